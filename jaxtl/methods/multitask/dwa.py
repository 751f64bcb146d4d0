"""Dynamic weight average: what falls slowly weighs more."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import POSITIVE, Size, checked
from jaxtl.methods.multitask.weights import at_least, logged_weights
from jaxtl.plan import PyTree, Weigh

LARGEST_RATIO = 1e6
"""Of a loss to the one before: a softmax of larger ones is the same."""


@checked
def dwa(temperature: Annotated[float, POSITIVE] = 2.0, every: Size = 50) -> Weigh:
    """Weights K softmax(r_i / T) with r_i = L_i(t - 1) / L_i(t - 2).

    L_i(t) is the mean of a loss over an epoch in the paper; here over `every` steps, as a stage
    counts steps. The weights are 1 until two such means are there.

    Args:
        temperature: T; larger is more even.
        every: steps of which a mean is taken.

    Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019.
    arXiv:1803.10704, Eq. 7.
    """

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        zeros = jnp.zeros_like(losses)
        return {"sum": zeros, "last": zeros, "before": zeros, "steps": jnp.int32(0)}

    def weigh(losses: jax.Array, state: PyTree, rng: jax.Array):
        ratios = jnp.minimum(at_least(state["last"]) / at_least(state["before"]), LARGEST_RATIO)
        weights = len(losses) * jax.nn.softmax(ratios / temperature)
        weights = jnp.where(state["steps"] >= 2 * every, weights, 1)
        total, steps = state["sum"] + losses, state["steps"] + 1
        complete = steps % every == 0
        after = {
            "sum": jnp.where(complete, 0, total),
            "last": jnp.where(complete, total / every, state["last"]),
            "before": jnp.where(complete, state["last"], state["before"]),
            "steps": steps,
        }
        return weights, after, logged_weights(weights)

    return Weigh(init, weigh)
