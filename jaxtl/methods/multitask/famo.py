"""FAMO: all losses fall at the same relative rate, for the price of one backward pass."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import checked
from jaxtl.methods.multitask.weights import at_least, logged_weights
from jaxtl.plan import PyTree, Weigh

PAPER = optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.025))
"""Rate and decay of the paper's code; the decay is part of the gradient that Adam sees."""


@checked
def famo(tx: optax.GradientTransformation = PAPER) -> Weigh:
    """Weights c z_i / L_i with z = softmax(xi) and c = 1 / sum_i z_i / L_i, so that they sum to 1.

    xi then descends along the slope of z at how far each log L_i has fallen: a task that falls
    less gets more. The paper measures the fall after the step, on the same minibatch, by a second
    forward pass; here it is measured at the next step, on its minibatch, which costs nothing and is
    noisier, and xi is moved before that step weighs. Losses are at least 0 at best, as in the
    paper; below 1e-8 one counts as 1e-8.

    Args:
        tx: optax transformation of xi.

    Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023. arXiv:2306.03792,
    Algorithm 1.
    """

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        zeros = jnp.zeros_like(losses)
        return {"xi": zeros, "log_losses": zeros, "steps": jnp.int32(0), "tx": tx.init(zeros)}

    def weigh(losses: jax.Array, state: PyTree, rng: jax.Array):
        positive, xi = at_least(losses), state["xi"]
        log_losses = jnp.log(positive)
        fall = state["log_losses"] - log_losses
        shares = jax.nn.softmax(xi)
        slope = shares * (fall - jnp.sum(shares * fall))
        updates, tx_state = tx.update(slope, state["tx"], xi)
        moved = {"xi": optax.apply_updates(xi, updates), "tx": tx_state}
        begun = state["steps"] > 0  # the first step has nothing to compare with
        after = jax.tree.map(
            lambda new, old: jnp.where(begun, new, old), moved, {key: state[key] for key in moved}
        )
        relative = jax.nn.softmax(after["xi"]) / positive
        weights = relative / relative.sum()
        after |= {"log_losses": log_losses, "steps": state["steps"] + 1}
        return weights, after, logged_weights(weights)

    return Weigh(init, weigh)
