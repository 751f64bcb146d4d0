"""Weights that grow with what a task could still gain: noise that stays does not pay."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import NOT_NEGATIVE, checked
from jaxtl.methods.multitask.gram import weighted_sum
from jaxtl.methods.multitask.weights import bounded, logged_weights
from jaxtl.plan import Combine, PyTree

LEAST_CURVATURE = 1e-7


@checked
def excess_mtl(rate: Annotated[float, NOT_NEGATIVE] = 0.01) -> Combine:
    """Weights w_i, multiplied in each step by exp(rate E_i), with the sum of the tasks' number.

    E_i is the excess risk, how far a loss is above the least it can reach, estimated as
    sum_p g_i[p]^2 / h_i[p] with the curvature h_i[p] = sqrt(sum over steps of g_i[p]^2 + 1e-7) of
    the parameters that are shared, and divided by its value in the first step. The state holds h:
    a copy of what is shared for each task.

    Args:
        rate: of the multiplicative update.

    He et al., "Robust Multi-Task Learning with Excess Risks", ICML 2024. arXiv:2402.02009,
    Algorithm 1.
    """

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        squares = jax.tree.map(lambda x: jnp.zeros((len(losses), *x.shape), x.dtype), trainable)
        zeros = jnp.zeros_like(losses)
        return {"squares": squares, "first": zeros, "log_weights": zeros, "steps": jnp.int32(0)}

    def update(jacobian: PyTree, losses: jax.Array, state: PyTree, rng: jax.Array):
        squares = jax.tree.map(lambda sums, rows: sums + rows**2, state["squares"], jacobian)
        parts = jax.tree.map(
            lambda rows, sums: (
                (rows**2 / jnp.sqrt(sums + LEAST_CURVATURE)).reshape(len(rows), -1).sum(1)
            ),
            jacobian,
            squares,
        )
        excess = sum(jax.tree.leaves(parts))
        first = jnp.where(state["steps"] == 0, excess, state["first"])
        relative = jnp.where(first > 0, excess / jnp.where(first > 0, first, 1), 0)
        moved = state["log_weights"] + rate * relative
        moved = bounded(moved - jax.nn.logsumexp(moved) + jnp.log(float(len(losses))))
        after = {
            "squares": squares,
            "first": first,
            "log_weights": moved,
            "steps": state["steps"] + 1,
        }
        weights = jnp.exp(moved)
        return weighted_sum(weights, jacobian), after, logged_weights(weights)

    return Combine(init, update, lambda losses, before, after: jnp.exp(after["log_weights"]))
