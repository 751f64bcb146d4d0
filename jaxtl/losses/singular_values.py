"""Penalties on the singular values of a batch of features."""

import jax
import jax.numpy as jnp


def smallest_singular_values(features: jax.Array, count: int = 1) -> jax.Array:
    """Sum of the squares of the smallest singular values, unscaled.

    From the eigenvectors of the smaller Gram matrix, which are constants of the gradient: for a
    left singular vector u the square is |u'F|^2, and 2 u u'F its gradient. That is finite for
    repeated and zero singular values too, where it is one of the subgradients.

    Args:
        features: [n, features] float, not centred.
        count: how many of the min(n, features) singular values.

    Returns:
        [] float >= 0.

    Raises:
        ValueError: there are fewer than `count` singular values.

    Chen et al., "Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage for
    Safe Transfer Learning", NeurIPS 2019.
    """
    n, width = features.shape
    if not 1 <= count <= min(n, width):
        raise ValueError(f"count must be from 1 to {min(n, width)}, the rank, got {count}.")
    features = features if n <= width else features.T
    constant = jax.lax.stop_gradient(features)
    vectors = jnp.linalg.eigh(constant @ constant.T)[1][:, :count]
    return jnp.sum((vectors.T @ features) ** 2)
