"""Tasks weighed by their noise, which is learned."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import checked
from jaxtl.methods.multitask.weights import bounded, logged_weights
from jaxtl.plan import PyTree, Weigh


@checked
def uncertainty_weighting(tx: optax.GradientTransformation) -> Weigh:
    """sum_t exp(-s_t) L_t + s_t / 2; s_t = log sigma_t^2 is learned beside the model.

    The s_t start at 0 and are state of the rule: they are no parameters, and no part of a
    gradient's norm. The paper halves squared errors (Eq. 5) and not cross-entropies (Eq. 10); that
    is another start of s_t by log 2 and nothing else, so here all are as the heads give them. They
    stay within +-40. Logged are the weights exp(-s_t).

    Args:
        tx: optax transformation of the s_t; the paper's is that of the model.

    Kendall et al., "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics", CVPR 2018. arXiv:1705.07115, Eq. 7 to 10.
    """

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        start = jnp.zeros_like(losses)
        return {"log_variance": start, "noise": tx.init(start)}

    def weigh(losses: jax.Array, state: PyTree, rng: jax.Array):
        before = state["log_variance"]
        weights = jnp.exp(-before)
        updates, noise = tx.update(0.5 - weights * losses, state["noise"], before)
        moved = bounded(optax.apply_updates(before, updates))
        return weights, {"log_variance": moved, "noise": noise}, logged_weights(weights)

    return Weigh(init, weigh)
