"""Smooth Tchebycheff: the task that is worst, relative to where it stood, weighs most."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import POSITIVE, Size, checked
from jaxtl.methods.multitask.weights import at_least, logged_weights
from jaxtl.plan import PyTree, Weigh


@checked
def stch(smoothness: Annotated[float, POSITIVE] = 1.0, warm_up: Size = 100) -> Weigh:
    """Minimises mu log sum_i exp(log(L_i / n_i) / mu), a smooth largest of the relative losses.

    The losses are compared on a logarithmic scale with their nadirs n_i, as in the paper's
    experiments on many tasks: the mean losses over the last quarter of a warm-up, which minimises
    sum_i log L_i. (There it is the last of 4 epochs.) The weights are
    softmax_i(log(L_i / n_i) / mu) / L_i; losses below 1e-8 count as 1e-8.

    Args:
        smoothness: mu; towards 0 only the worst task counts.
        warm_up: steps.

    Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024.
    arXiv:2402.19078, Eq. 10.
    """
    measured = -(-warm_up // 4)

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        return {"nadir": jnp.zeros_like(losses), "steps": jnp.int32(0)}

    def weigh(losses: jax.Array, state: PyTree, rng: jax.Array):
        positive, steps, nadir = at_least(losses), state["steps"], state["nadir"]
        worst = jax.nn.softmax(jnp.log(positive / at_least(nadir)) / smoothness)
        warm = steps < warm_up
        weights = jnp.where(warm, 1, worst) / positive
        nadir = nadir + jnp.where(warm & (steps >= warm_up - measured), positive / measured, 0)
        return weights, {"nadir": nadir, "steps": steps + 1}, logged_weights(weights)

    return Weigh(init, weigh)
