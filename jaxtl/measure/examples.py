"""The examples of an evaluation: which rows of which seed, and how they are cut into batches."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxtl.data.streamed import is_streamed
from jaxtl.plan import Evaluation, Model, PyTree

CHUNK_BYTES = 2**26
"""Of streamed rows about as many are read at a time."""


class Examples(NamedTuple):
    """What is evaluated.

    Attributes:
        inputs: of each seed, pytree of [n, ...], which may be streamed; one object for those that
            share them.
        labels: [m, ...].
        labelled: [m, ...] bool, which of them there are.
        rows: of each seed, [k] rows of labels.
        places: of each seed, [k] rows of inputs.
    """

    inputs: Sequence[PyTree]
    labels: np.ndarray
    labelled: np.ndarray
    rows: Sequence[np.ndarray]
    places: Sequence[np.ndarray]

    @property
    def longest(self) -> int:
        """The most rows of a seed."""
        return max(map(len, self.rows))


class Batch(NamedTuple):
    """A batch of one seed.

    Attributes:
        inputs: pytree of [batch, ...].
        labels: [batch, ...].
        weights: of the labels, likewise; 0 where one is missing or filled up.
        counts: [batch], of the examples; 0 where one is filled up.
    """

    inputs: PyTree
    labels: np.ndarray
    weights: np.ndarray
    counts: np.ndarray


def examples_of(evaluation: Evaluation, model: Model, seeds: Sequence[int]) -> Examples:
    """The examples of an evaluation; a dataset drawn per seed has each seed's own rows."""
    table = evaluation.dataset.table()
    labels, labelled = table.labels_of(evaluation.column, model.heads[evaluation.head])
    rows = [evaluation.dataset.rows(seed) for seed in seeds]
    return Examples([table.inputs] * len(rows), labels, labelled, rows, rows)


def with_features(examples: Examples, features: Sequence[PyTree]) -> Examples:
    """The examples with features as inputs.

    Args:
        features: of each seed, leaves [k, ...], of the k rows of inputs that it reads, ascending;
            one object for seeds that share them.
    """
    places = [np.unique(places, return_inverse=True)[1] for places in examples.places]
    return examples._replace(inputs=features, places=places)


def batches(examples: Examples, size: int) -> Iterator[tuple[int, Batch]]:
    """(number of a seed, its next batch), seed after seed; all batches have one size.

    Streamed rows are read some batches at a time, each once for all seeds.
    """
    if not is_streamed(examples.inputs):
        for seed in range(len(examples.rows)):
            yield from _of_seed(examples, seed, size)
        return
    table = examples.inputs[0]
    row_bytes = sum(leaf.nbytes // max(len(leaf), 1) for leaf in jax.tree.leaves(table))
    step = max(1, CHUNK_BYTES // max(row_bytes * size, 1)) * size
    for begin in range(0, examples.longest, step):
        rows, places = ([x[begin : begin + step] for x in each] for each in examples[3:])
        members, flat = np.unique(np.concatenate(places), return_inverse=True)
        inputs = jax.tree.map(lambda leaf, members=members: leaf[members], table)
        places = np.split(flat, np.cumsum([len(each) for each in places])[:-1])
        part = examples._replace(inputs=[inputs] * len(rows), rows=rows, places=places)
        yield from batches(part, size)


def _of_seed(examples: Examples, seed: int, size: int) -> Iterator[tuple[int, Batch]]:
    inputs, labels, labelled = examples.inputs[seed], examples.labels, examples.labelled
    rows, places = examples.rows[seed], examples.places[seed]
    for start in range(0, len(rows), size):
        index = np.arange(start, start + size)
        counts = (index < len(rows)).astype(np.float32)
        index = np.minimum(index, len(rows) - 1)
        counted = counts.reshape(-1, *(1,) * (labelled.ndim - 1))
        chosen = jax.tree.map(lambda leaf, at=places[index]: leaf[at], inputs)
        weights = counted * labelled[rows[index]]
        yield seed, Batch(chosen, labels[rows[index]], weights, counts)


def table_bytes(examples: Examples) -> int:
    """Of all inputs, each table once."""
    tables = {id(table): table for table in examples.inputs}
    return sum(leaf.nbytes for leaf in jax.tree.leaves(list(tables.values())))


class Stacked(NamedTuple):
    """Examples of all seeds as one program takes them.

    Attributes:
        inputs: pytree of [n, ...].
        labels, labelled: [n, ...] by row of the inputs, or [m, ...].
        rows, places: [seeds, batches, batch] int32.
        counts: [seeds, batches, batch], 0 where a row is filled up.
    """

    inputs: PyTree
    labels: np.ndarray
    labelled: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    counts: np.ndarray


def stacked(examples: Examples, size: int) -> Stacked:
    """The examples with as many batches for each seed, and the inputs of all in one table."""
    count = -(-examples.longest // size)
    shape = (len(examples.rows), count, size)
    rows, places = (np.zeros((shape[0], count * size), np.int32) for _ in range(2))
    counts = np.zeros(rows.shape, np.float32)
    tables = {id(table): table for table in examples.inputs}
    lengths = [len(jax.tree.leaves(table)[0]) for table in tables.values()]
    begins = dict(zip(tables, np.cumsum([0, *lengths]).tolist(), strict=False))
    for i, (table, chosen, at) in enumerate(
        zip(examples.inputs, examples.rows, examples.places, strict=True)
    ):
        rows[i, : len(chosen)], places[i, : len(at)] = chosen, at + begins[id(table)]
        counts[i, : len(chosen)] = 1
    rows, places, counts = (leaf.reshape(shape) for leaf in (rows, places, counts))
    inputs = next(iter(tables.values()))
    if len(tables) > 1:  # features of seeds whose weights differ; streamed rows are one table
        inputs = jax.tree.map(lambda *leaves: np.concatenate(leaves), *tables.values())
    return Stacked(inputs, examples.labels, examples.labelled, rows, places, counts)


def one_by_one(whole: Stacked) -> Iterator[Stacked]:
    """The batches one after another, for inputs that stay on the host.

    A row is read once for all seeds; as many rows are given for each batch, the last one repeated.
    """
    each = range(whole.places.shape[1])
    parts = [np.unique(whole.places[:, [j]], return_inverse=True) for j in each]
    longest = max(len(members) for members, _ in parts)
    for j, (members, places) in enumerate(parts):
        members = np.pad(members, (0, longest - len(members)), "edge")
        inputs = jax.tree.map(lambda leaf, m=members: leaf[m], whole.inputs)
        yield whole._replace(
            inputs=inputs,
            rows=whole.rows[:, [j]],
            places=places.astype(np.int32).reshape(whole.places[:, [j]].shape),
            counts=whole.counts[:, [j]],
        )
