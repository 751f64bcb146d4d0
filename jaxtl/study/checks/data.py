"""What a model is to read, checked on the data: labels, ranges of images, token ids."""

import functools
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from jaxtl.data import Dataset
from jaxtl.data.arrays import is_image
from jaxtl.data.columns import Numbered
from jaxtl.data.streamed import Streamed
from jaxtl.data.table import Table, result_of
from jaxtl.models import index_bounds
from jaxtl.paths import unknown
from jaxtl.plan import Experiment, Head, Params, PyTree, State
from jaxtl.train.resolve.stage import Setup

SAMPLED_ROWS = 64
"""Rows of streamed images whose range is looked at."""


def check_labels(
    dataset: Dataset, column: str, name: str, head: Head, seeds: Sequence[int]
) -> list[int]:
    """Check that a head can read a label column; returns the seeds for which no label is known.

    Raises:
        ValueError: there is no such column, or its labels are of another shape or kind or outside
            of what the head takes.
    """
    table = dataset.table()
    if column not in table.labels:
        hint = f" Domains of [{name!r}] and evaluations with column={name!r} read {name!r}."
        hint = hint if name in table.labels else ""
        raise ValueError(unknown(f"label column of {dataset.name}:", column, table.labels) + hint)
    what = f"dataset {dataset.name}: label column {column!r}"
    labels = table.labels[column]
    if labels.shape[1:] != head.label_shape:
        raise ValueError(
            f"{what} has shape {list(labels.shape[1:])} an example, head {name!r} expects "
            f"{list(head.label_shape)}"
        )
    if head.integer and column not in table.classes:
        raise ValueError(
            f"{what} holds {labels.dtype}, head {name!r} expects class indices: integers from 0 on"
        )
    known = table.known(column)
    rows_of_seed = {seed: dataset.rows(seed) for seed in seeds}
    rows = np.unique(np.concatenate([*rows_of_seed.values()]))
    used = labels[rows][known[rows]]
    if head.integer and used.size and used.max() >= head.size:
        raise ValueError(
            f"dataset {dataset.name}: label {used.max()} of column {column!r} is outside the "
            f"label space of head {name!r}, 0 to {head.size - 1}{_renumbering(used, head.size)}"
        )
    if not head.integer:
        _check_values(dataset, column, name, head, used)
    return [seed for seed, rows in rows_of_seed.items() if len(rows) and not known[rows].any()]


def no_labels(dataset: Dataset, columns: Mapping[str, str], seeds: Sequence[int]) -> str:
    """What to say of data that none of the heads {head: column} can read a label of."""
    which, heads = ", ".join(map(repr, columns.values())), ", ".join(map(repr, columns))
    return (
        f"dataset {dataset.name}: label column {which} holds no known label (seed "
        f"{', '.join(map(str, seeds[:5]))}); head {heads} has nothing to read. Data without labels "
        "are `unlabelled` domains"
    )


def _renumbering(labels: np.ndarray, size: int) -> str:
    """What to do about classes whose numbers are too large."""
    distinct = np.unique(labels)
    if len(distinct) > size:
        return f"; there are {len(distinct)} classes"
    if distinct[0] > 0 and distinct[-1] - distinct[0] < size:
        return f"; classes are numbered from 0: subtract {distinct[0]}"
    return "; number them with np.unique(labels, return_inverse=True)[1]"


def _check_values(dataset: Dataset, column: str, name: str, head: Head, used: np.ndarray) -> None:
    """Refuse labels that a head of values cannot mean."""
    what = f"dataset {dataset.name}: label column {column!r}"
    if head.bounds is not None:
        low, high = head.bounds
        outside = used[(used < low) | (used > high)]
        if outside.size:
            raise ValueError(
                f"{what} holds {outside[0]:g}, head {name!r} expects labels from {low:g} to "
                f"{high:g}"
            )
        return
    names = dataset.table().classes.get(column, Numbered(0))
    if not isinstance(names, Numbered) and not all(map(_is_number, names)):
        raise ValueError(
            f"{what} holds the classes {', '.join(names[:5])}, head {name!r} predicts numbers; "
            "`relabel` says which number each class is"
        )
    raw = result_of(dataset.load)
    if names and column in raw.classes and not raw.known(column).all():
        raise ValueError(
            f"{what} holds integers, of which -1 may be a number or a missing one, and head "
            f"{name!r} predicts numbers: give floats, with NaN where a label is missing"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


Reading = tuple[str, Dataset]
"""(place for messages, data that a stage's model reads)."""


def check_readings(
    experiment: Experiment, setups: Mapping[str, tuple[Setup, str | None]]
) -> tuple[list[str], list[str]]:
    """(what is wrong, what should be known) of the inputs that the models of an experiment read.

    A model that was given uint8 images in training or evaluation, or in the stages before, reads
    images in [0, 1]; so does one that starts from published weights. Images in floats must then be
    in that range. Token ids must be those of the model's vocabulary.

    Args:
        setups: {stage: (its setup, the stage before)}.
    """
    problems, notes = [], []
    for name, (setup, _) in setups.items():
        readings, published = _readings(experiment, setups, name)
        for place, line in _range_lines(name, readings, published):
            (problems if place else notes).append(f"{place}{line}")
        problems += _id_lines(setup, readings)
    return list(dict.fromkeys(problems)), list(dict.fromkeys(notes))


def _readings(
    experiment: Experiment, setups: Mapping[str, tuple[Setup, str | None]], name: str
) -> tuple[list[Reading], bool]:
    """(what a stage's model reads, in stages before and in evaluations too; if it is published)."""
    setup, parent = setups[name]
    heads, stage = setup.model.heads, setup.stage
    readings = [
        (f"stage {name!r}: ", domain.dataset) for domain in (*stage.domains, *stage.data.values())
    ]
    for evaluation_name, evaluation in experiment.evals.items():
        if evaluation.head in heads:
            readings.append((f"evaluation {evaluation_name!r}: ", evaluation.dataset))
    for criterion_name, criterion in experiment.criteria.items():
        for domain in criterion.domains:
            if heads.keys() >= domain.heads.keys():
                readings.append((f"criterion {criterion_name!r}: ", domain.dataset))
    published = stage.weights is not None
    while parent is not None:
        place, (setup, parent) = f"stage {parent!r}: ", setups[parent]
        readings += [(place, domain.dataset) for domain in setup.stage.domains]
        published = published or setup.stage.weights is not None
    return readings, published


def _range_lines(
    stage: str, readings: Sequence[Reading], published: bool
) -> Iterator[tuple[str, str]]:
    """(place, problem) of images in another range than others; no place for what may be meant."""
    of_bytes: dict[str, str] = {}  # {path: a dataset of uint8 images}
    of_floats: list[tuple[str, Dataset, str]] = []
    for place, dataset in readings:
        for path, leaf in _leaves(dataset.table()).items():
            if is_image(leaf.shape) and leaf.dtype == np.uint8:
                of_bytes.setdefault(path, dataset.name)
            elif is_image(leaf.shape):
                of_floats.append((place, dataset, path))
    for place, dataset, path in of_floats:
        low, high = _bounds(dataset.table(), path)
        if low >= -0.01 and high <= 1.01:
            continue
        images = f"images of dataset {dataset.name} are floats from {low:.4g} to {high:.4g}"
        bright = low >= 0 and high > 1.5
        remedy = "divide them by their largest possible value, or give uint8"
        if path in of_bytes:
            yield (
                place,
                f"{images}; stage {stage!r} reads images in [0, 1], as those of {of_bytes[path]}, "
                f"which are uint8: {remedy}",
            )
        elif published and bright:
            yield (
                place,
                f"{images}; the published weights of stage {stage!r} read images in [0, 1]: "
                f"{remedy}",
            )
        elif published:
            yield "", f"{images}, which published weights of stage {stage!r} read as they are"
        elif bright:
            yield "", f"{images}; floats are taken as they are, only integers are scaled to [0, 1]"


def _id_lines(setup: Setup, readings: Sequence[Reading]) -> Iterator[str]:
    """Problems with integers that a model looks up in a table."""
    if not any(np.issubdtype(leaf.dtype, np.integer) for leaf in jax.tree.leaves(setup.inputs)):
        return

    def outputs(params: Params, state: State, inputs: PyTree) -> PyTree:
        return setup.model.apply(params, state.statistics, inputs)[0]

    sizes = index_bounds(outputs, setup.params, setup.state, setup.inputs)
    for place, dataset in readings:
        for path, leaf in _leaves(dataset.table()).items():
            if path not in sizes or isinstance(leaf, Streamed) or leaf.dtype == object:
                continue
            low, high = _bounds(dataset.table(), path)
            if low < 0 or high >= sizes[path]:
                yield (
                    f"{place}dataset {dataset.name} has ids from {low} to {high}; the model of "
                    f"stage {setup.stage.name!r} knows 0 to {sizes[path] - 1}: was it made with "
                    "another tokenizer?"
                )


def _leaves(table: Table) -> dict[str, np.ndarray | Streamed]:
    leaves = jax.tree_util.tree_leaves_with_path(table.inputs)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


@functools.lru_cache(128)
def _bounds(table: Table, path: str) -> tuple[float, float]:
    """Least and largest number of a leaf, or of the first rows of what is streamed."""
    leaf = _leaves(table)[path]
    values = leaf[:SAMPLED_ROWS] if isinstance(leaf, Streamed) else leaf
    return (values.min().item(), values.max().item()) if values.size else (0.0, 0.0)
