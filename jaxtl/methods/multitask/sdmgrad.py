"""Direction-oriented descent: the shortest weighted mean of gradients beside their plain mean."""

from typing import Annotated

import jax

from jaxtl.form import NOT_NEGATIVE, checked
from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.solvers import min_norm_weights, shifted
from jaxtl.methods.multitask.weights import logged_weights
from jaxtl.plan import Combine, PyTree


@checked
def sdmgrad(preference: Annotated[float, NOT_NEGATIVE] = 0.3) -> Combine:
    """(g_w + preference * g_0) / (1 + preference), g_0 the mean of the tasks' gradients.

    The weights w on the simplex make it shortest (Eq. 9). From MGDA (0) to the mean gradient
    (large). The paper's stochastic algorithm takes steps of gradient descent on w, with three
    batches against the bias; here w solves the problem of the batch at hand. Logged are the
    weights w.

    Args:
        preference: the paper's lambda; it scales by 1 / (1 + lambda) in its experiments.

    Xiao et al., "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic
    Algorithms", NeurIPS 2023. arXiv:2305.18409.
    """

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        weights = min_norm_weights(shifted(products, preference))
        both = (weights + preference / len(weights)) / (1 + preference)
        return both, state, logged_weights(weights)

    return gram_rule(coefficients)
