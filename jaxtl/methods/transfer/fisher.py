"""The diagonal of the Fisher information of a model's predictions.

Classes have the likelihood softmax(logits), whatever loss trains them. For other heads the loss is
taken for minus the log-likelihood, up to a constant. Heads are taken to be independent of each
other: their values add up.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.losses import weighted_losses
from jaxtl.models import to_float
from jaxtl.paths import join, split
from jaxtl.plan import Columns, Head, Model, Params, PyTree, State, Statistics

Scores = Callable[[Head, jax.Array, jax.Array, jax.Array], jax.Array]
"""(head, outputs [size], label, weights of its elements, 0 or 1) -> [m, size] gradients of the
log-likelihood by the outputs, up to sign, such that the sum over m of their squared pullbacks is
what one example contributes."""

BLOCK = 256
"""Examples on the device at a time."""


def exact_fisher(
    model: Model, params: Params, state: State, columns: Columns, chosen: Callable[[str], bool]
) -> Params:
    """Mean over the examples of E_y (d log p(y | x) / d parameter)^2, y from the model itself.

    The expectation is exact: a sum over the classes. For a head of numbers it is the curvature of
    the loss by the outputs (Gauss-Newton), which of a squared error is that of the Gaussian, and of
    a mean of sigmoid cross-entropies the mean of those of the coin tosses; neither depends on y.

    Args:
        model, params, state: at which the information is asked for, as in evaluation.
        columns: inputs, and the heads that count; their labels are not read.
        chosen: path -> whether the parameter is asked for.

    Returns:
        The tree of the chosen parameters, float32 >= 0.

    Kunstner et al., "Limitations of the empirical Fisher approximation", 2019. arXiv:1905.12558.
    """
    anything = {head: np.zeros_like(labels) for head, labels in columns.labels.items()}
    columns = columns._replace(labels=anything)
    return _mean_squares(_expected_scores, model, params, state, columns, chosen)


def empirical_fisher(
    model: Model, params: Params, state: State, columns: Columns, chosen: Callable[[str], bool]
) -> Params:
    """Mean of (d log p(y | x) / d parameter)^2 over the examples, with their own labels y.

    One gradient an example instead of one for each class. It vanishes where the labels are fitted.

    Args:
        as `exact_fisher`; examples without a label do not count.
    """
    return _mean_squares(_label_scores, model, params, state, columns, chosen)


def _expected_scores(
    head: Head, outputs: jax.Array, label: jax.Array, weights: jax.Array
) -> jax.Array:
    if head.integer:
        p = jax.nn.softmax(outputs)
        return jnp.sqrt(p)[:, None] * (jnp.eye(head.size) - p[None])
    anything = jnp.zeros_like(label), jnp.ones_like(label, jnp.float32)
    curvature = jax.hessian(partial(weighted_losses, head))(outputs, *anything)
    values, directions = jnp.linalg.eigh(curvature)
    return jnp.sqrt(jnp.maximum(values, 0))[:, None] * directions.T


def _label_scores(
    head: Head, outputs: jax.Array, label: jax.Array, weights: jax.Array
) -> jax.Array:
    if head.integer:
        return (jax.nn.one_hot(label, head.size) - jax.nn.softmax(outputs))[None]
    return jax.grad(partial(weighted_losses, head))(outputs, label, weights)[None]


def _mean_squares(
    scores: Scores,
    model: Model,
    params: Params,
    state: State,
    columns: Columns,
    chosen: Callable[[str], bool],
) -> Params:
    labels, weights, shares = {}, {}, {}
    for head, values in columns.labels.items():
        known = values >= 0 if np.issubdtype(values.dtype, np.integer) else ~np.isnan(values)
        labels[head], weights[head] = np.where(known, values, 0), known.astype(np.float32)
        labelled = known.reshape(len(known), -1).any(1)
        shares[head] = np.float32(labelled / max(labelled.sum(), 1))
    heads = tuple((name, model.heads[name]) for name in labels)
    asked, others, statistics = jax.device_put((*split(params, chosen), state.statistics))
    total = jax.tree.map(jnp.zeros_like, asked)
    for start in range(0, len(jax.tree.leaves(columns.inputs)[0]), BLOCK):
        examples = jax.tree.map(
            lambda leaf, start=start: leaf[start : start + BLOCK],
            (columns.inputs, labels, weights, shares),
        )
        total = _add_squares(model.apply, heads, scores, total, asked, others, statistics, examples)
    return jax.tree.map(np.asarray, total)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _add_squares(
    apply: Callable,
    heads: tuple[tuple[str, Head], ...],
    scores: Scores,
    total: Params,
    asked: Params,
    others: Params,
    statistics: Statistics,
    examples: tuple[PyTree, *tuple[dict[str, jax.Array], ...]],
) -> Params:
    """total + the sum over examples of share * sum_m (pullback of score m)^2.

    One pullback after the other: XLA then squares and adds without a copy in memory, which a
    batch of them would need for every parameter.
    """

    def add_example(total, example):
        inputs, labels, weights, shares = example

        def logits(asked):
            row = to_float(jax.tree.map(lambda leaf: leaf[None], inputs))
            output, _ = apply(join(asked, others), statistics, row)
            return {name: output["logits"][name][0] for name, _ in heads}

        outputs, pull = jax.vjp(logits, asked)
        zeros = jax.tree.map(jnp.zeros_like, outputs)
        for name, head in heads:

            def add_score(total, row, name=name):
                (pulled,) = pull({**zeros, name: row})
                return jax.tree.map(lambda old, new: old + new**2, total, pulled), None

            rows = scores(head, outputs[name], labels[name], weights[name])
            rows = rows * jnp.sqrt(shares[name])
            total, _ = jax.lax.scan(add_score, total, rows)
        return total, None

    return jax.lax.scan(add_example, total, examples)[0]
