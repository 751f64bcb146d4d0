"""Fair shares of the decrease of the losses, from their sum to that of the worst task."""

from typing import Annotated

import jax

from jaxtl.form import POSITIVE, checked
from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.solvers import fair_weights
from jaxtl.methods.multitask.weights import logged_weights
from jaxtl.plan import Combine, PyTree


@checked
def fairgrad(alpha: Annotated[float, POSITIVE] = 2.0) -> Combine:
    """sum_i a_i g_i with G a = a ** (-1 / alpha), a > 0, G the inner products (Eq. 7).

    The direction that is best for the tasks' decreases g_i . d by alpha-fairness: 1 is proportional
    fairness, the rule of Nash-MTL; 2 the least potential delay; the larger alpha, the nearer to
    max-min; towards 0, to the plain sum. Logged are the weights.

    Args:
        alpha: the paper tries 1 and 2 for most data sets.

    Ban & Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024. arXiv:2402.15638.
    """

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        weights = fair_weights(products, 1 / alpha)
        return weights, state, logged_weights(weights)

    return gram_rule(coefficients)
