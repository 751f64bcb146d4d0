"""Unconflicting projection: each gradient becomes the nearest that harms no task."""

import jax
import jax.numpy as jnp

from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.solvers import non_negative_qp
from jaxtl.plan import Combine, PyTree


def upgrad() -> Combine:
    """The mean of the tasks' gradients, each projected on {d: g_i . d >= 0 for all i}.

    No task's loss rises to first order, and along with its gradient a task's influence shrinks
    (Definition 3 of the paper). Public code adds 1e-4 to the diagonal of the scaled inner products;
    here it is a few roundings.

    Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization", 2024. arXiv:2406.16232.
    """

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        return project_on_cone(products).mean(0), state, {}

    return gram_rule(coefficients)


def project_on_cone(products: jax.Array) -> jax.Array:
    """Row i: the coefficients, in the given gradients, of gradient i projected on the dual cone.

    The projection of g_i is g_i + sum_j u_j g_j, where u >= 0 makes it shortest.

    Args:
        products: [tasks, tasks], g_i . g_j.

    Returns:
        [tasks, tasks].
    """
    added = jax.vmap(lambda row: non_negative_qp(products, -row))(products)
    return added + jnp.eye(len(products), dtype=products.dtype)
