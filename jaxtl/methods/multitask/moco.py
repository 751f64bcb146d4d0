"""Multi-objective gradients with correction: moving averages of gradients and of their weights."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import NOT_NEGATIVE, SHARE, checked
from jaxtl.methods.multitask.gram import gram, weighted_sum
from jaxtl.methods.multitask.solvers import project_simplex
from jaxtl.methods.multitask.weights import logged_weights
from jaxtl.plan import Combine, PyTree


@checked
def moco(
    beta: Annotated[float, SHARE] = 0.5,
    gamma: Annotated[float, NOT_NEGATIVE] = 0.1,
    rho: Annotated[float, NOT_NEGATIVE] = 0.0,
) -> Combine:
    """sum_i w_i y_i; y_i follows g_i, and w takes steps towards the shortest such sum; Algorithm 1.

    y <- y + beta (g - y) from 0, w <- the point of the simplex that is nearest to
    w - gamma (Y Y^T + rho I) w, from equal weights. It holds as many gradients as there are tasks.
    Constants are those of public code. A small gamma for large gradients: steps on w of fixed
    size do not know their scale. Logged are the weights w.

    Args:
        beta: share of the newest gradient in its moving average.
        gamma: step size of the weights.
        rho: pull of the weights towards equal ones.

    Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent
    Approach", ICLR 2023.
    """

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        zeros = jax.tree.map(lambda x: jnp.zeros((len(losses), *x.shape), x.dtype), trainable)
        return {"averages": zeros, "weights": jnp.full_like(losses, 1 / len(losses))}

    def update(jacobian: PyTree, losses: jax.Array, state: PyTree, rng: jax.Array):
        averages = jax.tree.map(lambda y, g: y + beta * (g - y), state["averages"], jacobian)
        before = state["weights"]
        weights = project_simplex(before - gamma * (gram(averages) @ before + rho * before))
        metrics = logged_weights(weights)
        state = {"averages": averages, "weights": weights}
        return weighted_sum(weights, averages), state, metrics

    return Combine(init, update)
