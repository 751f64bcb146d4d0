"""What alignments are compared with: the source as it is, and principal components of both."""

import numpy as np

from jaxtl.methods.adapt.shallow.aligned import Aligned, Classifier, alignment, with_target_as_it_is
from jaxtl.methods.adapt.shallow.classifiers import nearest_neighbour
from jaxtl.methods.adapt.shallow.eigenproblems import principal
from jaxtl.plan import Method


def unaligned(classifier: Classifier | None = None) -> Method:
    """The classifier of the sources' features, used on the target as it is.

    Args:
        classifier: by default the nearest neighbour.
    """

    def align(source, labels, target, classify) -> Aligned:
        return with_target_as_it_is(source)

    return alignment(align, classifier or nearest_neighbour())


def joint_pca(classifier: Classifier | None = None, *, dim: int = 30) -> Method:
    """Principal components of the examples of all domains together.

    Args:
        classifier: by default the nearest neighbour.
        dim: number of components.
    """

    def align(source, labels, target, classify) -> Aligned:
        components = principal(np.concatenate([source, target]), dim)
        return Aligned(source @ components, components, np.zeros(dim))

    return alignment(align, classifier or nearest_neighbour(), width=dim)
