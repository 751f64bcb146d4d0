"""What learners read off an episode: features, classes, similarities; padding counts as nothing."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxtl.models.blocks import flatten
from jaxtl.plan import Examples, Head, Model, Params, State, Statistics

REGRESSION = "maml, anil, meta_sgd, implicit_maml, reptile, fine_tuning, ridge_head and in_context"


def head_of(model: Model) -> Head:
    """The one head that the model of a learner has."""
    (head,) = model.heads.values()
    return head


def check_classes(model: Model, learner: str) -> None:
    """Check that an episode is one of classes.

    Raises:
        ValueError: its labels are numbers.
    """
    if not head_of(model).integer:
        raise ValueError(
            f"{learner} compares classes, head {next(iter(model.heads))!r} predicts numbers; "
            f"those that can: {REGRESSION}"
        )


def both_features(
    model: Model,
    params: Params,
    state: State,
    support: Examples,
    queries: Examples,
    *,
    rng: jax.Array,
    live: bool,
) -> tuple[jax.Array, jax.Array, Statistics]:
    """(features of the support [n, features], of the queries, batch statistics), in one pass.

    Args:
        live: batch statistics are those of both together, padding included.
    """
    shots = len(support.labels)
    inputs = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), support.inputs, queries.inputs)
    headless = dataclasses.replace(model, heads={})
    output, statistics = headless.apply(params, state.statistics, inputs, rng=rng, train=live)
    features = flatten(output["features"])
    return features[:shots], features[shots:], statistics


def memberships(support: Examples, ways: int) -> jax.Array:
    """[support, ways]: the weight of an example in the column of its class, otherwise 0."""
    one_hot = jax.nn.one_hot(support.labels, ways, dtype=support.weights.dtype)
    return one_hot * support.weights[:, None]


def class_means(features: jax.Array, support: Examples, ways: int) -> jax.Array:
    """[ways, features], weighted means; 0 for a class without support."""
    members = memberships(support, ways).astype(features.dtype)
    totals = jnp.maximum(members.sum(0, keepdims=True), jnp.finfo(features.dtype).tiny)
    return (members / totals).T @ features


def among_present(logits: jax.Array, support: Examples, ways: int) -> jax.Array:
    """Logits [..., ways] with those of classes without support so low that no softmax sees them.

    They are finite: an infinite one makes the gradient of a smoothed cross-entropy NaN.
    """
    present = memberships(support, ways).sum(0) > 0
    present = jnp.broadcast_to(present, logits.shape)
    return jnp.where(present, logits, jnp.finfo(logits.dtype).min / 4)


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """[] of values and weights [n]; 0 where no weight is."""
    total = jnp.maximum(weights.sum(), jnp.finfo(weights.dtype).tiny)
    return jnp.sum(jnp.where(weights > 0, values, 0) * (weights / total))


def mean_row(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """[1, features] of rows [n, features] and weights [n]; 0 where no weight is."""
    weights = weights.astype(rows.dtype)
    return weights[None] @ rows / jnp.maximum(weights.sum(), jnp.finfo(rows.dtype).tiny)


def squared_euclidean(rows: jax.Array, others: jax.Array) -> jax.Array:
    """-|a - b|^2 for rows a [n, features] and b [m, features]: [n, m]."""
    # One product; around their mean, so that little cancels where all lie far from 0.
    centre = jax.lax.stop_gradient(others.mean(0, keepdims=True))
    rows, others = rows - centre, others - centre
    squares = jnp.sum(rows**2, 1)[:, None] + jnp.sum(others**2, 1)[None]
    return 2 * rows @ others.T - squares


def cosine(rows: jax.Array, others: jax.Array) -> jax.Array:
    """a . b / (|a| |b|) for rows a [n, features] and b [m, features]: [n, m]; 0 where one is 0."""
    return unit(rows) @ unit(others).T


def unit(rows: jax.Array) -> jax.Array:
    """Rows [n, features] of length 1; a row of zeros stays, with gradient 0."""
    squares = jnp.sum(rows**2, -1, keepdims=True)
    lengths = jnp.sqrt(jnp.where(squares > 0, squares, 1))
    return jnp.where(squares > 0, rows / lengths, 0)


def targets(head: Head, support: Examples, ways: int) -> jax.Array:
    """What a regression on the support fits: one-hot classes or the numbers, [support, ways]."""
    if head.integer:
        return jax.nn.one_hot(support.labels, ways, dtype=support.weights.dtype)
    labels = support.labels.reshape(len(support.labels), -1)
    return jnp.where(support.weights[:, None] > 0, labels, 0)
