"""Second moments of features, and the distance between those of two domains."""

import jax
import jax.numpy as jnp

from jaxtl.losses.magnitude import centre
from jaxtl.losses.weighting import weigh


def covariance(x: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """Sample covariance, with the total weight - 1 for a divisor.

    Args:
        x: [n, features] float.
        weights: [n] float >= 0, frequency weights; all ones if None.

    Returns:
        [features, features]; zeros where the total weight is 1 or less.
    """
    x, weights, present = weigh(x, weights)
    x = centre(x, weights)
    rest = weights.sum() - 1
    products = jnp.matmul((weights[:, None] * x).T, x, precision="highest")
    return jnp.where(present & (rest > 0), products / jnp.where(rest > 0, rest, 1), 0)


def coral(
    source: jax.Array,
    target: jax.Array,
    source_weights: jax.Array | None = None,
    target_weights: jax.Array | None = None,
) -> jax.Array:
    """|C_source - C_target|^2 / (4 features^2), the distance of the sample covariances.

    Means are not compared: shifting either domain leaves the value unchanged. Public code often
    takes the mean of squares, 4 times as much, and adds a distance of means.

    Args:
        source: [n_source, features] float.
        target: [n_target, features] float; n_target may differ from n_source.
        source_weights: [n_source] float >= 0, frequency weights; all ones if None.
        target_weights: [n_target], likewise.

    Returns:
        [] float >= 0; 0 where a domain has a total weight of 1 or less, and so no covariance. It
        grows with the fourth power of the features and is finite up to 1e9.

    Sun & Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", 2016.
    arXiv:1607.01719, Eq. 1-3.
    """
    gap = covariance(source, source_weights) - covariance(target, target_weights)
    defined = True
    for side, weights in ((source, source_weights), (target, target_weights)):
        _, weights, present = weigh(side, weights)
        defined &= present & (weights.sum() > 1)
    return jnp.where(defined, jnp.sum((gap / (2 * gap.shape[-1])) ** 2), 0)
