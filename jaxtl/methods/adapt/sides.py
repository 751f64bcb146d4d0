"""Rows of a batch by the side of their domain, source or target.

A loss reads leaves [batch, domains, ...] or flat rows [n, ...] of one side, example by example, so
that what is sharded along the batch stays where it is. Domains are picked by static slices: a loss
that hands regrouped inputs to the model alone lets the engine start from the features of blocks
that are frozen.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import entropy
from jaxtl.plan import Batch, PyTree, StageShape
from jaxtl.plan.batch import sides_of

Weight = float | optax.Schedule


def at_step(value: Weight, step: jax.Array) -> jax.Array:
    """A factor [] float32 that may follow a schedule."""
    return jnp.asarray(value(step) if callable(value) else value, jnp.float32)


def head_of(batch: Batch) -> str:
    """The one head that all domains of a batch name.

    Raises:
        ValueError: there are several, or none.
    """
    return _only(batch.labels)


def classes_of(shape: StageShape) -> int:
    """Number of classes of the one head that all domains of a stage name.

    Raises:
        ValueError: there are several heads, or none.
    """
    return shape.classes[_only(shape.classes)]


def _only(heads: Mapping[str, object]) -> str:
    if len(heads) != 1:
        raise ValueError(
            f"domain adaptation reads one head that all domains name; these name "
            f"{', '.join(sorted(heads)) or 'none: write unlabelled(dataset, head)'}"
        )
    return next(iter(heads))


def at_domains(tree: PyTree, positions: Sequence[int]) -> PyTree:
    """Of leaves [batch, domains, ...] some domains, in this order."""
    runs: list[tuple[int, int]] = []  # of neighbours, each of which is one slice
    for position in positions:
        if runs and runs[-1][1] == position:
            runs[-1] = (runs[-1][0], position + 1)
        else:
            runs.append((position, position + 1))

    def pick(leaf: jax.Array) -> jax.Array:
        slices = [leaf[:, start:stop] for start, stop in runs]
        return slices[0] if len(slices) == 1 else jnp.concatenate(slices, 1)

    return jax.tree.map(pick, tree)


def as_rows(tree: PyTree) -> PyTree:
    """Leaves [batch, domains, ...] as [batch * domains, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def rows_by_side(tree: PyTree, batch: Batch) -> tuple[PyTree, PyTree]:
    """(rows [n_source, ...] of the sources, rows [n_target, ...] of the targets).

    Args:
        tree: leaves [batch, domains, ...].
        batch: whose domains they are.

    Raises:
        ValueError: there is no source or no target, or the domains name several heads.
    """
    return source_rows(tree, batch), target_rows(tree, batch)


def source_rows(tree: PyTree, batch: Batch) -> PyTree:
    """The rows [n_source, ...] of `rows_by_side` alone."""
    return as_rows(at_domains(tree, _positions(batch)[0]))


def target_rows(tree: PyTree, batch: Batch) -> PyTree:
    """The rows [n_target, ...] of `rows_by_side` alone."""
    return as_rows(at_domains(tree, _positions(batch)[1]))


def _positions(batch: Batch) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`sides_of` a batch whose domains name one head; ValueError otherwise."""
    head_of(batch)
    return sides_of(batch.roles)


def sources_first(tree: PyTree, batch: Batch) -> PyTree:
    """The rows of `rows_by_side` one after the other, [n_source + n_target, ...]."""
    return jax.tree.map(lambda *sides: jnp.concatenate(sides), *rows_by_side(tree, batch))


def flat_features(output: Mapping) -> jax.Array:
    """[batch, domains, width] of what `apply_flat` returns, whatever the shape of its features."""
    features = output["features"]
    return features.reshape(*features.shape[:2], -1)


def labelled_weights(batch: Batch) -> jax.Array:
    """[batch, domains], an example's own weight where its label may be used, otherwise 0."""
    return jnp.where(batch.weights[head_of(batch)] > 0, batch.present, 0)


def example_mean(losses: jax.Array, weights: jax.Array) -> jax.Array:
    """sum_i weights_i losses_i / n: linear in the weights, so that it may be cut into batches.

    Args:
        losses: [n] float; those of weight 0 may be anything.
        weights: [n] float >= 0.
    """
    return jnp.mean(jnp.where(weights > 0, weights * losses, 0))


def mean_entropy(logits: jax.Array, weights: jax.Array) -> jax.Array:
    """`example_mean` of the entropies of predictions [n, classes]."""
    return weights.mean() * entropy(logits, weights)
