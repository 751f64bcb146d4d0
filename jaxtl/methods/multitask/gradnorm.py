"""GradNorm: gradients of tasks are made alike in length, longer for those that lag behind."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import NOT_NEGATIVE, checked
from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.weights import logged_weights
from jaxtl.plan import Combine, PyTree


@checked
def gradnorm(
    tx: optax.GradientTransformation, alpha: Annotated[float, NOT_NEGATIVE] = 1.5
) -> Combine:
    """Learned weights w_i, by sum_i |G_i - mean_j G_j r_i^alpha| with G_i = ||w_i grad L_i||.

    r_i is L_i(t) / L_i(0) relative to the mean over the tasks, so a task that has fallen less gets
    the longer gradient. The target of G_i is a constant of that sum (Eq. 2). The weights start at
    1, are kept from falling below 0 and, after each step, sum to the number of tasks; those of
    before the step weigh the losses. Where the paper takes lengths of one layer's gradient, the
    last that is shared, `joint(..., shared=("backbone/dense_1/.*",))` names it: the same weights
    go for all other parameters. By default it is the whole backbone.

    Args:
        tx: optax transformation of the weights; the paper's has a rate of 0.025.
        alpha: how strongly tasks are pulled to a common rate; 0 makes lengths equal.

    Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask
    Networks", ICML 2018. arXiv:1711.02257, Algorithm 1.
    """

    def init(losses: jax.Array) -> PyTree:
        ones = jnp.ones_like(losses)
        return {"weights": ones, "first": ones, "steps": jnp.int32(0), "tx": tx.init(ones)}

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        weights = state["weights"]
        first = jnp.where(state["steps"] == 0, losses, state["first"])
        remaining = jnp.where(first > 0, losses / jnp.where(first > 0, first, 1), 1)
        mean = remaining.mean()
        lag = jnp.where(mean > 0, remaining / jnp.where(mean > 0, mean, 1), 1)
        lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(products), 0))
        target = jnp.mean(weights * lengths) * lag**alpha
        slopes = jnp.sign(weights * lengths - target) * lengths
        updates, tx_state = tx.update(slopes, state["tx"], weights)
        moved = jnp.maximum(optax.apply_updates(weights, updates), 0)
        total = moved.sum()
        moved = jnp.where(total > 0, len(moved) * moved / jnp.where(total > 0, total, 1), 1)
        after = {"weights": moved, "first": first, "steps": state["steps"] + 1, "tx": tx_state}
        return weights, after, logged_weights(weights)

    return gram_rule(coefficients, init, others=lambda losses, before, after: before["weights"])
