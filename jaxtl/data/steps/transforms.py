"""What is done to a whole table: (table, ...) -> table. The input is never changed."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxtl.data.columns import as_column, names_of
from jaxtl.data.steps.selections import generator
from jaxtl.data.streamed import Streamed, chunks
from jaxtl.data.table import Call, PyTree, Table, result_of


def name_of(fn: Callable) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def relabel_classes(table: Table, keep: tuple[int | str, ...], column: str) -> Table:
    index = table.places(keep, column)
    names, labels = table.names(column), table.labels[column]
    table.places(np.unique(labels[labels != -1]), column)  # all that the column holds
    if len(set(index)) < len(index) or not index:
        raise ValueError(f"classes: each must be given once, got {keep}")
    renumbered = np.full(len(names) + 1, -1, np.int32)  # the last entry serves label -1
    renumbered[index] = np.arange(len(index))
    return table.with_labels(column, renumbered[labels], tuple(names[i] for i in index))


def map_images(table: Table, fn: Callable[..., np.ndarray], arguments: tuple) -> Table:
    shapes = [leaf.shape for leaf in jax.tree.leaves(table.inputs)]
    if not any(len(shape) == 4 for shape in shapes):
        raise ValueError(
            f"{name_of(fn)} needs images [n, height, width, channels]; the inputs are {shapes}"
        )

    def one_by_one(block: np.ndarray) -> np.ndarray:
        # Nothing may depend on what else is read with an image.
        return np.concatenate([fn(image[None], *arguments) for image in block])

    def mapped(leaf: np.ndarray | Streamed) -> np.ndarray | Streamed:
        if leaf.ndim != 4:
            return leaf
        return leaf.map(one_by_one) if isinstance(leaf, Streamed) else fn(leaf, *arguments)

    return dataclasses.replace(table, inputs=jax.tree.map(mapped, table.inputs))


TURNS = 4


def quarter_turns(table: Table, column: str) -> Table:
    """The rows turned by 0, 90, 180 and 270 degrees, each turn with classes of its own."""
    names, labels = table.names(column), table.labels[column]
    shapes = [leaf.shape for leaf in jax.tree.leaves(table.inputs)]
    sides = [shape[1:3] for shape in shapes if len(shape) == 4]
    if not sides or any(height != width for height, width in sides):
        raise ValueError(
            "quarter_turns needs square images [n, side, side, channels]; the inputs are "
            f"{shapes}: resize, pad or center_crop can make images square"
        )

    def turned(leaf: np.ndarray | Streamed) -> np.ndarray | Streamed:
        if isinstance(leaf, Streamed):
            return leaf.copies(TURNS, _turn if leaf.ndim == 4 else _same)
        turn = _turn if leaf.ndim == 4 else _same
        return np.concatenate([turn(leaf, i) for i in range(TURNS)])

    of_turns = [f"{name} turned by {90 * i}" if i else name for i in range(TURNS) for name in names]
    turn = np.repeat(np.arange(TURNS), len(labels)).reshape(-1, *[1] * (labels.ndim - 1))
    numbers = np.concatenate([labels] * TURNS)
    numbers = np.where(numbers >= 0, numbers + len(names) * turn, -1).astype(np.int32)
    others = {name: np.concatenate([values] * TURNS) for name, values in table.labels.items()}
    copies = dataclasses.replace(table, inputs=jax.tree.map(turned, table.inputs), labels=others)
    return copies.with_labels(column, numbers, tuple(of_turns))


def _turn(images: np.ndarray, quarters: int) -> np.ndarray:
    return np.rot90(images, quarters, axes=(1, 2))


def _same(values: np.ndarray, quarters: int) -> np.ndarray:
    return values


def relabel(
    table: Table, column: str, fn: Callable[[Table], np.ndarray], classes: tuple[str, ...] | None
) -> Table:
    watched, twin = _Watched(table.labels), copy.copy(table)
    object.__setattr__(twin, "labels", watched)  # a constructor would copy them
    labels = fn(twin)
    if classes is None:
        labels = np.asarray(labels).astype(np.float32)
    labels, names = as_column(labels, classes and names_of(classes, column), column)
    if len(labels) != len(table):
        raise ValueError(f"the function returned {len(labels)} labels for {len(table)} rows")
    known = np.ones(labels.shape, bool)
    for other in watched.columns_read:
        read_known = table.known(other)
        if read_known.shape != labels.shape:
            read_known = read_known.reshape(len(table), -1).all(1)
        known[~read_known] = False
    return table.with_labels(column, labels, names, known)


class _Watched(dict):
    """Label columns that know which of them were read."""

    def __init__(self, columns: Mapping[str, np.ndarray]):
        super().__init__(columns)
        self.columns_read: set[str] = set()

    def __getitem__(self, column: str) -> np.ndarray:
        self.columns_read.add(column)
        return super().__getitem__(column)


def match_classes(table: Table, column: str, names: tuple[str, ...], matched: str) -> Table:
    """One more column: the classes of another one, numbered by these names."""
    places = np.array([*map(names.index, table.names(column)), -1], np.int32)
    return table.with_labels(matched, places[table.labels[column]], names)


def hide(table: Table, column: str, fraction: float) -> Table:
    labels, known = table.column(column), np.ones(len(table), bool)
    order = generator(0, "hide", column).permutation(len(table))
    known[order[: round(fraction * len(table))]] = False
    return table.with_labels(column, labels, table.classes.get(column), known)


def standardize(table: Table, like: Call) -> Table:
    if isinstance(table.inputs, Mapping) and {"ids", "mask"} <= table.inputs.keys():
        raise ValueError("token ids are no numbers to standardize")
    return scale(table, statistics_of(like))


def statistics_of(like: Call) -> PyTree:
    """What `standardize` reads of a table: the `Moments` of each leaf of its inputs, cached."""
    return result_of(Call(_moments, (like,)))


def scale(table: Table, statistics: PyTree) -> Table:
    """`standardize` by statistics that are at hand.

    Args:
        statistics: the inputs' tree of `Moments`, None for a leaf that stays as it is.
    """

    def standard(leaf: np.ndarray | Streamed, moments: Moments | None) -> np.ndarray | Streamed:
        if moments is None:
            return leaf
        varies = moments.max > moments.min
        factor = np.where(varies, 1 / np.where(varies, moments.std, 1), 0)

        def apply(block: np.ndarray) -> np.ndarray:
            if np.result_type(block, np.float32) == np.float64:  # float32 could not tell them apart
                return ((block - moments.mean) * factor).astype(np.float32)
            return (block - moments.mean.astype(np.float32)) * factor.astype(np.float32)

        return leaf.map(apply) if isinstance(leaf, Streamed) else apply(leaf)

    return dataclasses.replace(table, inputs=jax.tree.map(standard, table.inputs, statistics))


class Moments(NamedTuple):
    """Statistics of the rows of an array, each of the shape of a row; mean and std float64."""

    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray


def _moments(like: Call) -> PyTree:
    """The moments of each leaf of a table's inputs, None of text."""

    def finite(leaf: np.ndarray | Streamed) -> Moments | None:
        if leaf.dtype == object:
            return None
        statistics = moments(leaf)
        if not np.isfinite(statistics.mean).all():
            raise ValueError("inputs that are not finite cannot be standardized")
        return statistics

    return jax.tree.map(finite, result_of(like).inputs)


def moments(leaf: np.ndarray | Streamed) -> Moments:
    """One pass over the rows, chunk by chunk.

    Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979: two parts' means and sums of squared deviations give those of the whole.
    """
    count, (mean, squares) = 0, np.zeros((2, *leaf.shape[1:]))
    least, most = np.full_like(mean, np.inf), np.full_like(mean, -np.inf)
    for chunk in chunks(leaf):
        chunk_mean = chunk.mean(0, dtype=np.float64)
        chunk_squares = ((chunk - chunk_mean) ** 2).sum(0)
        total = count + len(chunk)
        shift = chunk_mean - mean
        squares = squares + chunk_squares + shift**2 * (count * len(chunk) / total)
        mean = mean + shift * (len(chunk) / total)
        least, most = np.minimum(least, chunk.min(0)), np.maximum(most, chunk.max(0))
        count = total
    return Moments(mean, np.sqrt(squares / max(count, 1)), least, most)
