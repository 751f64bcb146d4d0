"""Gradient vaccine: pairs of tasks get at least the cosine that they usually have."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import SHARE, checked
from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.pcgrad import orders
from jaxtl.plan import Combine, PyTree

LARGEST_GOAL = 0.999
"""The multiple of g_j that turns g_i to a cosine grows without bound towards 1."""


@checked
def gradvac(beta: Annotated[float, SHARE] = 0.01) -> Combine:
    """The sum of the tasks' gradients, each turned to the cosines that are usual; Algorithm 1.

    As in PCGrad, gradient i meets the others in an order drawn for every step. Where its cosine
    with g_j is below the moving average of that pair, it gets the multiple of g_j that makes them
    equal (Eq. 3), which PCGrad does for an average of 0. The averages start at 0; one is kept for
    each pair over all that is shared ("whole model" of the paper's granularities), and those above
    0.999 count as 0.999.

    Args:
        beta: weight of a step's cosine in its moving average (Eq. 4); the paper's is 0.01, public
            code has 0.5 too.

    Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively
    Multilingual Models", ICLR 2021. arXiv:2010.05874.
    """

    def init(losses: jax.Array) -> PyTree:
        return jnp.zeros((len(losses), len(losses)))

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        weights, cosines = vaccinate(products, state, orders(len(losses), rng))
        return weights.sum(0), (1 - beta) * state + beta * cosines, {}

    return gram_rule(coefficients, init)


def vaccinate(
    products: jax.Array, usual: jax.Array, orders: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Each gradient after it met the others.

    Args:
        products: [tasks, tasks], g_i . g_j.
        usual: [tasks, tasks], the cosines that the pairs usually have.
        orders: [tasks, tasks], in which each meets the others.

    Returns:
        Coefficients in the given gradients, and the cosines as they were when i met j, both
        [tasks, tasks].
    """
    tasks = len(products)
    lengths = jnp.sqrt(jnp.diagonal(products))

    def row(task: jax.Array, usual: jax.Array, order: jax.Array):
        def meet(carry: tuple[jax.Array, jax.Array], other: jax.Array):
            coefficients, cosines = carry
            length = jnp.sqrt(jnp.maximum(coefficients @ products @ coefficients, 0))
            both = length * lengths[other]
            ready = (both > 0) & (other != task)
            cosine = coefficients @ products[:, other] / jnp.where(ready, both, 1)
            cosine = jnp.clip(cosine, -1, 1)
            goal = jnp.minimum(usual[other], LARGEST_GOAL)
            sine, goal_sine = (jnp.sqrt(1 - x**2) for x in (cosine, goal))
            multiple = length * (goal * sine - cosine * goal_sine)
            multiple /= jnp.where(ready, lengths[other], 1) * goal_sine
            turns = ready & (cosine < goal)
            coefficients = coefficients.at[other].add(jnp.where(turns, multiple, 0))
            return (coefficients, cosines.at[other].set(jnp.where(ready, cosine, 0))), None

        start = jax.nn.one_hot(task, tasks, dtype=products.dtype)
        return jax.lax.scan(meet, (start, jnp.zeros_like(start)), order)[0]

    return jax.vmap(row)(jnp.arange(tasks), usual, orders)
