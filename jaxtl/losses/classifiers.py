"""Disagreement of two classifiers."""

import jax
import jax.numpy as jnp

from jaxtl.losses.imbalance import cross_entropy
from jaxtl.losses.magnitude import below_largest
from jaxtl.losses.weighting import weigh, weighted_mean


def classifier_discrepancy(
    logits: jax.Array, others: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """The mean over examples and classes of |softmax(logits) - softmax(others)|.

    A mean over the classes too, as in the paper: the sum over them, which is in [0, 2], is
    classes times as much.

    Args:
        logits: [n, classes] float.
        others: [n, classes] float, of another classifier.
        weights: [n] float >= 0, only their proportions count; all ones if None.

    Returns:
        [] float in [0, 2 / classes]; 0 where there is no weight.

    Saito et al., "Maximum Classifier Discrepancy for Unsupervised Domain Adaptation", CVPR 2018.
    arXiv:1712.02560.
    """
    logits, _, _ = weigh(logits, weights)
    others, weights, present = weigh(others, weights)
    gaps = jnp.abs(jax.nn.softmax(logits) - jax.nn.softmax(others)).mean(1)
    return jnp.where(present, weighted_mean(gaps, weights), 0)


def margin_disparity(
    source_logits: jax.Array,
    source_adversary: jax.Array,
    target_logits: jax.Array,
    target_adversary: jax.Array,
    source_weights: jax.Array | None = None,
    target_weights: jax.Array | None = None,
    *,
    margin: float = 4.0,
    floor: float = 1e-6,
) -> jax.Array:
    """What the adversary of margin disparity discrepancy minimises and the features maximise.

    With y the class that the classifier predicts, a constant of the gradient, and p the softmax of
    the adversary: margin * the mean of -log p_y over the source + the mean of
    -log(1 - p_y + floor) over the target. The adversary agrees with the classifier on the source
    and not on the target.

    Args:
        source_logits: [n_source, classes] float, of the classifier.
        source_adversary: [n_source, classes] float, logits of the adversary.
        target_logits: [n_target, classes], target_adversary: likewise.
        source_weights: [n_source] float >= 0, only their proportions count; all ones if None.
        target_weights: [n_target], likewise.
        margin: exp of the paper's rho, its gamma.
        floor: >= 0, added to 1 - p_y as in public code; 0 in the paper. The gradient vanishes where
            p_y is within it of 1.

    Returns:
        [] float; a domain without weight adds 0. No rounding of 1 - p_y enters.

    Raises:
        ValueError: there are fewer than 2 classes.

    Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019.
    arXiv:1904.05801.
    """
    if source_logits.shape[-1] < 2:
        raise ValueError(f"2 classes or more expected, got {source_logits.shape[-1]}")
    source_logits, _, _ = weigh(source_logits, source_weights)
    source_adversary, source_weights, some_source = weigh(source_adversary, source_weights)
    target_logits, _, _ = weigh(target_logits, target_weights)
    target_adversary, target_weights, some_target = weigh(target_adversary, target_weights)

    agreed = cross_entropy(source_adversary, source_logits.argmax(-1))
    target_adversary = below_largest(target_adversary)
    predicted = jax.nn.one_hot(target_logits.argmax(-1), target_logits.shape[-1], dtype=bool)
    others = jnp.where(predicted, -jnp.inf, target_adversary)
    log_rest = jax.nn.logsumexp(others, -1) - jax.nn.logsumexp(target_adversary, -1)
    avoided = -jnp.logaddexp(log_rest, jnp.log(floor)) if floor else -log_rest
    source_term = jnp.where(some_source, weighted_mean(agreed, source_weights), 0)
    target_term = jnp.where(some_target, weighted_mean(avoided, target_weights), 0)
    return margin * source_term + target_term
