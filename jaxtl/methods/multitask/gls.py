"""The geometric mean of the losses: their units do not matter."""

import jax
import jax.numpy as jnp

from jaxtl.methods.multitask.weights import at_least, logged_weights
from jaxtl.plan import Weigh


def gls() -> Weigh:
    """Minimises (prod_i L_i)^(1 / K), by the weights (prod_j L_j)^(1 / K) / (K L_i).

    Losses are at least 0; below 1e-8 one counts as 1e-8.

    Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy
    for Multi-Task Learning", CVPR Workshops 2019. arXiv:1904.08492, Eq. 2.
    """

    def weigh(losses: jax.Array, state: tuple, rng: jax.Array):
        positive = at_least(losses)
        weights = jnp.exp(jnp.mean(jnp.log(positive))) / (len(losses) * positive)
        return weights, state, logged_weights(weights)

    return Weigh(lambda trainable, losses: (), weigh)
