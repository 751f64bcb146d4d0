"""Tables as datasets: inputs, and labels in one label space for train and test."""

import collections
import dataclasses
import logging
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtl.data.arrays import as_inputs
from jaxtl.data.dataset import Dataset, Step
from jaxtl.data.sources.embedded import TEST_FRACTION, fixed_splits
from jaxtl.data.sources.label_spelling import MANY, ODD_SHARE, label_space, number
from jaxtl.data.sources.names import natural, refuse_alike
from jaxtl.data.sources.roles import Roles
from jaxtl.data.splits import Splits
from jaxtl.data.steps.one_hot import Spaces, one_hot
from jaxtl.data.table import Call, Table, result_of

SHOWN_ERRORS = 5
MANY_ROWS = 10  # numbers that count up through fewer are no surprise
MOST_CATEGORIES = 1000  # of a column: each is an input

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """What a table holds of the columns that have a role.

    Attributes:
        place: for messages.
        inputs: {column: [n] float64, or categories as texts [n]}, in order.
        labels: {label column: [n] as they are written; numbers to predict, None where missing}.
        declared: {column of the table: the categories that its type names, in order}.
    """

    place: str
    inputs: Mapping[str, np.ndarray]
    labels: Mapping[str, Sequence[Any]]
    declared: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def warn_of_row_numbers(place: str, columns: Mapping[str, np.ndarray]) -> None:
    """Log the inputs that number the rows, which nobody means."""
    for name, values in columns.items():
        if values.dtype == object or len(values) < MANY_ROWS:
            continue
        if np.array_equal(values - values[0], range(len(values))):
            logger.warning("%s: column %r, which numbers the rows, is an input", place, name)


def as_splits(
    name: str, reads: tuple[Call, ...], roles: Roles, test: float | None, has_categories: bool
) -> Splits:
    """Train and test of calls that return `Cells`.

    Args:
        reads: of one table, or of train's and test's.
        test: the fraction of the one that is the test set; None for no such set.
        has_categories: whether an input is one.
    """
    calls = [Call(_table, (i, reads, roles)) for i in range(len(reads))]
    names = ("train", "test")[: len(calls)]
    splits = Splits(
        **{s: Dataset(f"{name}.{s}", call) for s, call in zip(names, calls, strict=True)}
    )
    if test is not None:
        splits = fixed_splits(name, Call(_divisible, (calls[0],)), float(test))
    if not has_categories:
        return splits
    steps = (Step(one_hot, (Call(_spaces, (reads, roles)),)),)
    return splits.each(lambda dataset: dataclasses.replace(dataset, steps=steps))


def fraction_of(test: Any, roles: Roles) -> float | None:
    """The fraction of one table that is the test set, of the argument `test` that is no table.

    Raises:
        ValueError: it is no fraction.
    """
    if test is None:
        return TEST_FRACTION if roles.labels else None
    if not isinstance(test, numbers.Real) or not 0 < test < 1:
        raise ValueError(f"test must be a fraction between 0 and 1 or another table, got {test!r}")
    return float(test)


def _table(part: int, reads: tuple[Call, ...], roles: Roles) -> Table:
    """One of the tables that share a label space."""
    tables = [result_of(read) for read in reads]
    chosen, features = tables[part], [*tables[0].inputs]
    _check_alike(tables[0], tables[-1])
    if any(values.dtype == object for values in chosen.inputs.values()):
        inputs = {
            name: chosen.inputs[name].astype(_dtype([t.inputs[name] for t in tables]), copy=False)
            for name in features
        }
    else:
        stacked = [np.stack([t.inputs[name] for name in features], 1) for t in tables]
        inputs = stacked[part].astype(_dtype(stacked))
    labels, classes = labels_of(tables, part, roles)
    return Table(inputs, labels, classes, tuple(features))


def labels_of(
    tables: Sequence[Cells], part: int, roles: Roles
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """({label column: labels [n]} of a part, {label column: names of the classes} of all parts)."""
    chosen, labels, classes = tables[part], {}, {}
    for head, column in roles.labels:
        where, written = f"column {column!r}", [label for t in tables for label in t.labels[head]]
        if head in roles.values:
            if all(value is None for value in written):
                raise ValueError(f"{chosen.place}, {where}: all labels are missing")
            labels[head] = np.array(chosen.labels[head], np.float64)  # NaN for None
            continue
        names = dict(roles.classes).get(head) or _declared(tables, column, "classes=")
        where = f"{', '.join(t.place for t in tables)}: {where}"
        classes[head], indices = label_space(written, names, where)
        labels[head] = np.array([indices.get(t, -1) for t in chosen.labels[head]], np.int32)
        _log_missing(chosen.place, chosen.labels[head], labels[head], classes[head])
    return labels, classes


def _dtype(parts: Sequence[np.ndarray]) -> np.dtype:
    """float64 where float32 could not tell the rows of a part apart; that of texts is object."""
    is_text = parts[0].dtype == object
    return np.dtype(object) if is_text else np.result_type(*(as_inputs(p).dtype for p in parts))


def _check_alike(first: Cells, last: Cells) -> None:
    """Raises ValueError if the inputs of train and test differ in names or kinds."""
    if first.inputs.keys() != last.inputs.keys():
        missing = ", ".join(sorted(first.inputs.keys() - last.inputs.keys())) or "none"
        new = ", ".join(sorted(last.inputs.keys() - first.inputs.keys())) or "none"
        raise ValueError(
            f"{last.place} has other columns than {first.place}: missing {missing}, new {new}"
        )
    for name, values in first.inputs.items():
        kinds = [
            "categories" if v.dtype == object else "numbers" for v in (values, last.inputs[name])
        ]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"column {name!r} holds {kinds[0]} in {first.place}, {kinds[1]} in {last.place}"
            )


def _declared(tables: Sequence[Cells], column: str, argument: str) -> tuple[str, ...] | None:
    """The categories that a column's type names, the same in train and test.

    Raises:
        ValueError: they differ.
    """
    spaces = dict.fromkeys(t.declared[column] for t in tables if column in t.declared)
    if len(spaces) > 1:
        shown = " and ".join(str([*space[:SHOWN_ERRORS]]) for space in spaces)
        raise ValueError(
            f"column {column!r} has other categories in {tables[0].place} than in "
            f"{tables[-1].place}: {shown}; name them in {argument}"
        )
    return next(iter(spaces), None)


def _spaces(reads: tuple[Call, ...], roles: Roles) -> Spaces:
    """The categories of the inputs, those of train and test together."""
    tables = [result_of(read) for read in reads]
    spaces: list[tuple[str, tuple[str, ...] | None]] = []
    for column, values in tables[0].inputs.items():
        categories = None
        if values.dtype == object:
            categories = _categories(tables, column, dict(roles.categories).get(column))
        spaces.append((column, categories))
    return tuple(spaces)


def _categories(
    tables: Sequence[Cells], column: str, names: tuple[str, ...] | None
) -> tuple[str, ...]:
    argument, where = f"categorical={{{column!r}: ...}}", f"{tables[0].place}: column {column!r}"
    names = names or _declared(tables, column, argument)
    texts = [text for t in tables for text in t.inputs[column]]
    if names is None:
        are_numbers = all(number(text) is not None for text in {*texts})
        names = tuple(sorted({*texts}, key=float if are_numbers else natural))
        refuse_alike(names, f"{where}: categories", argument)
        if len(names) > max(MANY, ODD_SHARE * len(texts)):
            raise ValueError(
                f"{where}: {len(names)} different categories in {len(texts)} rows, such as "
                f"{names[0]!r}; leave it out with drop=[{column!r}], or name them in {argument}"
            )
    if len(names) > MOST_CATEGORIES:
        raise ValueError(
            f"{where}: {len(names):,} categories would be as many inputs, and at most "
            f"{MOST_CATEGORIES:,} are made; leave it out with drop=[{column!r}], group them, or "
            "give a model that embeds them their numbers with data.arrays"
        )
    return names


def _divisible(call: Call) -> Table:
    """The table, in which every class has enough rows for two parts."""
    table = result_of(call)
    if len(table) < 2:
        raise ValueError("a single row cannot be divided into train and test")
    first = next(iter(table.labels), None)
    names = table.classes.get(first, ())
    single = [name for i, name in enumerate(names) if np.sum(table.labels[first] == i) == 1]
    if single:
        raise ValueError(
            f"a single row cannot be in both train and test: {len(single)} classes have one row "
            f"({', '.join(single[:SHOWN_ERRORS])}). Pass a second file as test=, remove them, or "
            "pass regression=True if the labels are numbers to predict"
        )
    return table


def _log_missing(
    place: str, texts: Sequence[str], labels: np.ndarray, names: tuple[str, ...]
) -> None:
    """Log the labels that are missing and the classes that are."""
    pairs = zip(texts, labels, strict=True)
    missing = collections.Counter(text for text, label in pairs if label < 0)
    if missing:
        shown = ", ".join(f"{text!r} {n}" for text, n in missing.most_common(SHOWN_ERRORS))
        logger.info(
            "%s: %d of %d labels are missing (%s)", place, missing.total(), len(labels), shown
        )
    present = set(labels.tolist())
    if absent := [name for i, name in enumerate(names) if i not in present]:
        logger.warning("%s: no row of the classes %s", place, ", ".join(absent[:10]))
