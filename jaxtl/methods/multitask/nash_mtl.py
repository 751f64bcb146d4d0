"""Tasks bargain for the direction: none gains a little more without another losing its share."""

import jax

from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.solvers import fair_weights
from jaxtl.methods.multitask.weights import logged_weights
from jaxtl.plan import Combine, PyTree


def nash_mtl() -> Combine:
    """sum_i a_i g_i with G a = 1 / a, a > 0, where G holds the inner products (Claim 3.2).

    The direction that maximises sum_i log(g_i . d): it does not change when a loss is multiplied by
    a number. Its length is the root of the number of tasks wherever gradients do not cancel, so
    that steps become short by the learning rate alone; public code scales G first and clips the
    length at 1 (`clip_norm` of the method does that). Solved by Newton's method each step, as
    1 / a is the gradient of a concave function; the paper linearises and calls a solver every few
    steps. A gradient of length 0 has weight 0. Logged are the weights.

    Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022. arXiv:2202.01017.
    """

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        weights = fair_weights(products, 1.0)
        return weights, state, logged_weights(weights)

    return gram_rule(coefficients)
