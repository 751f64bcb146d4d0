"""Arrays -> score: how far domains are apart, and how good a model is without target labels."""

from jaxtl.transferability.criteria import (
    certainty,
    criteria,
    deep_embedded_validation,
    feature_rank,
    importance_weighted_validation,
    linear_probe,
    mixed_validation,
    nearest_neighbours,
    neighborhood_density,
    source_accuracy,
)
from jaxtl.transferability.domain_classifier import (
    domain_logits,
    importance_weights,
    proxy_a_distance,
)
from jaxtl.transferability.representation import (
    effective_rank,
    neighbour_accuracy,
    probe_accuracy,
)
from jaxtl.transferability.validation import (
    deep_embedded_risk,
    mixed_agreement,
    soft_neighborhood_density,
)
