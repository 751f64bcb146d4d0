"""Dual balancing: logarithms for the scales of the losses, equal lengths for their gradients."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import BELOW_1, checked
from jaxtl.methods.multitask.gram import gram, weighted_sum
from jaxtl.methods.multitask.weights import at_least, logged_weights
from jaxtl.plan import Combine, PyTree


@checked
def db_mtl(decay: Annotated[float, BELOW_1] = 0.9) -> Combine:
    """Averaged gradients of log L_i, each scaled to the length of the longest, and their sum.

    The moving averages start at 0 and are of what is shared, one copy of it for each task; what a
    task has for itself gets the gradient of log L_i. Losses below 1e-8 count as 1e-8; a gradient of
    length 0 stays so. The weights that are logged are those of the gradients of L_i in this step.

    Args:
        decay: of the moving averages, 0 for none. The paper tries 0.1, 0.5 and 0.9.

    Lin et al., "Dual-Balancing for Multi-Task Learning", 2023. arXiv:2308.12029, Algorithm 1.
    """

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        return jax.tree.map(lambda x: jnp.zeros((len(losses), *x.shape), x.dtype), trainable)

    def update(jacobian: PyTree, losses: jax.Array, state: PyTree, rng: jax.Array):
        relative = 1 / at_least(losses)

        def average(old: jax.Array, rows: jax.Array) -> jax.Array:
            factors = relative.reshape(-1, *[1] * (rows.ndim - 1)).astype(rows.dtype)
            return decay * old + (1 - decay) * factors * rows

        averages = jax.tree.map(average, state, jacobian)
        lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(gram(averages)), 0))
        there = lengths > 0
        scales = jnp.where(there, lengths.max() / jnp.where(there, lengths, 1), 0)
        return weighted_sum(scales, averages), averages, logged_weights(scales * relative)

    return Combine(init, update, lambda losses, before, after: 1 / at_least(losses))
