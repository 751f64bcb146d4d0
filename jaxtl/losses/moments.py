"""Distances between the central moments of two domains."""

import jax
import jax.numpy as jnp

from jaxtl.losses.magnitude import centre, centre_both, norms
from jaxtl.losses.weighting import weigh, weighted_mean


def central_moment_discrepancy(
    source: jax.Array,
    target: jax.Array,
    source_weights: jax.Array | None = None,
    target_weights: jax.Array | None = None,
    *,
    order: int = 5,
    low: float = 0.0,
    high: float = 1.0,
) -> jax.Array:
    """|means' gap| / (high - low) + sum_{k=2}^order |k-th moments' gap| / (high - low)^k.

    Moments are central, of each feature by itself, over the total weight; norms are Euclidean over
    the features, with gradient 0 where a gap is 0.

    Args:
        source: [n_source, features] float, in [low, high], such as the outputs of a sigmoid.
        target: [n_target, features], likewise.
        source_weights: [n_source] float >= 0, only their proportions count; all ones if None.
        target_weights: [n_target], likewise.
        order: >= 1, the highest moment; the paper's 5. Features are raised to it: at 5 the value is
            finite for those up to 1e7 * (high - low).
        low, high: bounds of the features, the paper's a and b. Nothing is clipped to them.

    Returns:
        [] float >= 0; 0 where a domain has no weight.

    Raises:
        ValueError: the order is below 1, or high is not above low.

    Zellinger et al., "Central Moment Discrepancy (CMD) for Domain-Invariant Representation
    Learning", ICLR 2017. arXiv:1702.08811.
    """
    if order < 1 or not low < high:
        raise ValueError(f"order >= 1 and low < high expected, got {order}, {low} and {high}")
    source, source_weights, some_source = weigh(source, source_weights)
    target, target_weights, some_target = weigh(target, target_weights)
    source, target = centre_both(source, target, source_weights, target_weights)
    # In units of the range, its powers need no divisor.
    source, target = source / (high - low), target / (high - low)
    means = weighted_mean(source, source_weights), weighted_mean(target, target_weights)
    value = norms(means[0] - means[1])
    x, y = centre(source, source_weights), centre(target, target_weights)
    for k in range(2, order + 1):
        value += norms(weighted_mean(x**k, source_weights) - weighted_mean(y**k, target_weights))
    return jnp.where(some_source & some_target, value, 0)
