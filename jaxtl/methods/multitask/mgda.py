"""Multiple-gradient descent: the shortest of all weighted means of the tasks' gradients."""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxtl.form import checked
from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.solvers import min_norm_weights
from jaxtl.methods.multitask.weights import logged_weights
from jaxtl.plan import Combine, PyTree

Scale = Literal["none", "norm", "loss", "loss_norm"]


@checked
def mgda(divided_by: Scale = "none") -> Combine:
    """sum_i a_i g_i of least length, a_i >= 0 of sum 1; no task's loss rises to first order.

    It is 0 where no direction lowers all losses. Small gradients decide its length, so that tasks
    with small losses are served first, unless the gradients are divided by something: it is then
    those whose shortest mean is taken, times the mean of what they were divided by. (Public code
    weighs the gradients as they were by the a_i, and a loss may rise.) Solved exactly, not by the
    iterations of Frank and Wolfe. The sum of the plain gradients is up to as many times longer as
    there are tasks. Logged are the weights a_i of the (divided) gradients.

    Args:
        divided_by: what each task's gradient is divided by first: "norm" its length, "loss" the
            task's loss, "loss_norm" their product.

    Désidéri, "Multiple-gradient descent algorithm", Comptes Rendus Mathématique 2012; Sener &
    Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018. arXiv:1810.04650,
    Eq. 3 and Algorithm 2.
    """

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        scales = jnp.ones_like(losses)
        if divided_by in ("norm", "loss_norm"):
            scales *= jnp.sqrt(jnp.diagonal(products))
        if divided_by in ("loss", "loss_norm"):
            scales *= jnp.abs(losses)
        scales = jnp.where(scales > 0, scales, 1)
        scales /= jnp.mean(scales)
        weights = min_norm_weights(products / scales[:, None] / scales[None])
        return weights / scales, state, logged_weights(weights)

    return gram_rule(coefficients)
