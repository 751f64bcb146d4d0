"""Frozen work once: features of deterministic first blocks, shared by all that asks for them.

There is one store for a process. In a run it also keeps features on disk, for later runs.
"""

from jaxtl.features.digests import row_of
from jaxtl.features.feature_store import Counts, FeatureStore
from jaxtl.features.programs import Parts, Program, cut, trace
from jaxtl.features.shared import backbone_features, counted, in_words, keeping, store
