"""Projecting conflicting gradients: what one task takes from another is left out."""

import jax
import jax.numpy as jnp

from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.plan import Combine, PyTree


def pcgrad() -> Combine:
    """The sum of the tasks' gradients, each without its conflicts with the others; Algorithm 1.

    Each gradient g_i meets the others in an order of its own, drawn for every step: where
    g_i . g_j < 0 its part along g_j (as it was) is taken away.

    Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020. arXiv:2001.06782.
    """

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        return project_conflicts(products, rng).sum(0), state, {}

    return gram_rule(coefficients)


def project_conflicts(products: jax.Array, rng: jax.Array) -> jax.Array:
    """Row i: the coefficients, in the given gradients, of gradient i without its conflicts.

    All that is asked are inner products, so the gradients themselves are not needed.

    Args:
        products: [tasks, tasks], g_i . g_j.
        rng: key of the orders in which the others are met.

    Returns:
        [tasks, tasks].
    """
    tasks = len(products)

    def row(task: jax.Array, order: jax.Array) -> jax.Array:
        def meet(coefficients: jax.Array, other: jax.Array):
            along, length = coefficients @ products[:, other], products[other, other]
            conflict = (along < 0) & (other != task) & (length > 0)
            share = jnp.where(conflict, along / jnp.where(length > 0, length, 1), 0)
            return coefficients.at[other].add(-share), None

        return jax.lax.scan(meet, jax.nn.one_hot(task, tasks, dtype=products.dtype), order)[0]

    return jax.vmap(row)(jnp.arange(tasks), orders(tasks, rng))


def orders(tasks: int, rng: jax.Array) -> jax.Array:
    """[tasks, tasks], a permutation of the tasks for each of them."""
    keys = jax.random.split(rng, tasks)
    return jax.vmap(lambda key: jax.random.permutation(key, tasks))(keys)
