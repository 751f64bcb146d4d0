"""Penalties on the singular values of a batch of features or predictions.

Singular vectors are constants of the gradients. These are the closed forms, finite for repeated and
zero singular values too, where they are one of the subgradients.
"""

import jax
import jax.numpy as jnp

from jaxtl.losses.magnitude import binade
from jaxtl.losses.weighting import weigh


def smallest_singular_values(features: jax.Array, *, count: int = 1) -> jax.Array:
    """Sum of the squares of the smallest singular values, unscaled.

    By a Gram matrix, which in float32 does not resolve values below 1e-3 of the largest one.

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
    return _squares(weigh(features, None)[0], count, slice(count))


def largest_singular_values(
    features: jax.Array, weights: jax.Array | None = None, *, count: int = 1
) -> jax.Array:
    """Sum of the squares of the largest singular values, unscaled.

    Args:
        features: [n, features] float, not centred.
        weights: [n] float >= 0, frequency weights; all ones if None. Twice the weights are twice
            the value.
        count: how many of the min(n, features) singular values.

    Returns:
        [] float >= 0; 0 where there is no weight.

    Raises:
        ValueError: there are fewer than `count` singular values.

    Chen et al., "Transferability vs. Discriminability: Batch Spectral Penalization for Adversarial
    Domain Adaptation", ICML 2019.
    """
    features, root = _rooted(features, weights)
    return _squares(root[:, None] * features, count, slice(-count, None))


def _squares(features: jax.Array, count: int, chosen: slice) -> jax.Array:
    """From the eigenvectors v of the smaller Gram matrix, the squares |v'F|^2 of those chosen."""
    if not 1 <= count <= min(features.shape):
        raise ValueError(f"count must be from 1 to {min(features.shape)}, the rank, got {count}.")
    n, width = features.shape
    features = features if n <= width else features.T
    constant = jax.lax.stop_gradient(features) / binade(features)
    gram = jnp.matmul(constant, constant.T, precision="highest")
    vectors = jnp.linalg.eigh(gram)[1][:, chosen]  # in ascending order
    return jnp.sum(jnp.matmul(vectors.T, features, precision="highest") ** 2)


def batch_nuclear_norm(logits: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """-|diag(sqrt(w)) P|_* / sum w: minus the sum of the singular values of the predictions.

    Least where each prediction is sure and all classes are predicted equally often.

    Args:
        logits: [n, classes] float; P is their softmax.
        weights: [n] float >= 0, frequency weights; all ones if None. They have no gradient.
            Twice the weights divide the value by sqrt(2).

    Returns:
        [] float <= 0, at least -1 where no weight is below 1; 0 where there is no weight.

    Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under Label
    Insufficient Situations", CVPR 2020. arXiv:2003.12237.
    """
    logits, root = _rooted(logits, weights)
    p = root[:, None] * jax.nn.softmax(logits)
    left, values, right = jnp.linalg.svd(jax.lax.stop_gradient(p), full_matrices=False)
    left *= (values > 1e-6 * values[0])[None]
    slope = jnp.matmul(left, right, precision="highest")
    total = jnp.sum(root**2)
    return -jnp.sum(slope * p) / jnp.where(total > 0, total, 1)


def _rooted(rows: jax.Array, weights: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Rows [n, ...] and the square roots of their weights [n]."""
    rows, weights, present = weigh(rows, weights)
    return rows, jax.lax.stop_gradient(jnp.where(present, jnp.sqrt(weights), 0))
