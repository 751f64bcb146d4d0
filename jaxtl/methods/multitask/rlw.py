"""Random weights, drawn for every step: the least that a method of weighing has to beat."""

import jax

from jaxtl.methods.multitask.weights import logged_weights
from jaxtl.plan import Weigh


def rlw() -> Weigh:
    """Weights softmax(z) with z from a normal distribution, new in each step; they sum to 1.

    Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task
    Learning", TMLR 2022. arXiv:2111.10603, Section 3.
    """

    def weigh(losses: jax.Array, state: tuple, rng: jax.Array):
        weights = jax.nn.softmax(jax.random.normal(rng, losses.shape, losses.dtype))
        return weights, state, logged_weights(weights)

    return Weigh(lambda trainable, losses: (), weigh)
