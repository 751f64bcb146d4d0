"""Rules that need no more of the tasks' gradients than their inner products."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtl.form import checked, describe
from jaxtl.plan import Combine, Metrics, PyTree

Coefficients = Callable[
    [jax.Array, jax.Array, PyTree, jax.Array], tuple[jax.Array, PyTree, Metrics]
]


@checked
def gram_rule(
    coefficients: Coefficients,
    init: Callable[[jax.Array], PyTree] = lambda losses: (),
    others: Callable[[jax.Array, PyTree, PyTree], jax.Array] | None = None,
) -> Combine:
    """A rule whose gradient is a weighted sum of those of the tasks.

    Args:
        coefficients: (inner products g_i . g_j [tasks, tasks], losses [tasks], state, rng) ->
            (weights of the gradients [tasks], state, {metric: []}).
        init: losses [tasks] of zeros -> state.
        others: as in `Combine`.

    Raises:
        ValueError: (while traced) the coefficients return something else.
    """

    def update(jacobian: PyTree, losses: jax.Array, state: PyTree, rng: jax.Array):
        returned = coefficients(gram(jacobian), losses, state, rng)
        if not isinstance(returned, tuple) or len(returned) != 3:
            raise ValueError(
                "the coefficients of a gram_rule must return (weights, state, {metric: value}), "
                f"they returned {describe(returned)}"
            )
        weights, state, metrics = returned
        if jnp.shape(weights) != losses.shape:
            raise ValueError(
                f"the coefficients of a gram_rule must return {len(losses)} weights, one for each "
                f"task, they returned {describe(weights)}"
            )
        return weighted_sum(weights, jacobian), state, metrics

    return Combine(lambda trainable, losses: init(losses), update, others)


def gram(jacobian: PyTree) -> jax.Array:
    """Inner products [tasks, tasks] of the rows of a Jacobian, leaves [tasks, ...]."""
    rows = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(jacobian)]
    return sum(jnp.matmul(row, row.T, precision="highest") for row in rows)


def weighted_sum(weights: jax.Array, jacobian: PyTree) -> PyTree:
    """sum_i weights_i g_i, of the form of one gradient."""
    return jax.tree.map(
        lambda leaf: jnp.tensordot(weights.astype(leaf.dtype), leaf, 1, precision="highest"),
        jacobian,
    )
