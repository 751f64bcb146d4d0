"""Alignment of the tasks' gradients: orthogonal, and of one length."""

import jax
import jax.numpy as jnp

from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.weights import logged_weights
from jaxtl.plan import Combine, PyTree

NOISE = 32
"""Roundings for each task below which an eigenvalue counts as 0."""


def aligned_mtl() -> Combine:
    """The sum of the tasks' gradients after their matrix got the condition number 1.

    With G = V S V^T the inner products, weights B 1, B = sqrt(s_min) V S^(-1/2) V^T over the
    eigenvalues above 0 (Algorithm 1). All singular values of the aligned gradients are the
    smallest one of those given, so the weakest direction decides the length. The tasks count alike,
    as in the sum of their losses. Logged are the weights.

    Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR 2023.
    arXiv:2305.19000.
    """

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        weights = alignment(products).sum(0)
        return weights, state, logged_weights(weights)

    return gram_rule(coefficients)


def alignment(products: jax.Array) -> jax.Array:
    """B [tasks, tasks], symmetric: row i, the coefficients of the aligned gradient i."""
    values, vectors = jnp.linalg.eigh(products)  # ascending
    counts = values > NOISE * len(values) * jnp.finfo(values.dtype).eps * jnp.max(values)
    least = jnp.min(jnp.where(counts, values, jnp.inf))
    factors = jnp.sqrt(jnp.where(counts, least / jnp.where(counts, values, 1), 0))
    return (vectors * factors[None]) @ vectors.T
