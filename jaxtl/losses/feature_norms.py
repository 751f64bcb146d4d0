"""Losses that make the norms of features larger."""

import jax
import jax.numpy as jnp

from jaxtl.losses.magnitude import norms
from jaxtl.losses.weighting import weigh, weighted_mean


def adaptive_feature_norm(
    features: jax.Array, weights: jax.Array | None = None, *, increment: float = 1.0
) -> jax.Array:
    """The mean of (|f| - (|f| + increment))^2, the second norm a constant of the gradient.

    The value is always increment^2; the gradient pushes each norm up with the same force, whatever
    its size. A norm of 0 has gradient 0.

    Args:
        features: [n, features] float.
        weights: [n] float >= 0, only their proportions count; all ones if None.
        increment: the paper's residual Delta r.

    Returns:
        [] float >= 0; 0 where there is no weight.

    Xu et al., "Larger Norm More Transferable: An Adaptive Feature Norm Approach for Unsupervised
    Domain Adaptation", ICCV 2019. arXiv:1811.07456, its stepwise form.
    """
    features, weights, present = weigh(features, weights)
    sizes = norms(features)
    gaps = sizes - jax.lax.stop_gradient(sizes) - increment
    return jnp.where(present, weighted_mean(gaps**2, weights), 0)
