"""Examples, and the calls that load them once."""

import contextlib
import dataclasses
import functools
import itertools
import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtl.data.columns import as_column, names_of
from jaxtl.data.sources.stamps import Stamps, has_changed, stamps
from jaxtl.data.streamed import select
from jaxtl.paths import unknown
from jaxtl.plan import Head

PyTree = Any
CACHED_TABLES = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Examples; the labels are in memory, and the inputs where they fit.

    Attributes:
        inputs: pytree of [n, ...] NumPy arrays or, larger than memory, `Streamed` rows; images are
            uint8 [n, height, width, channels], other numbers float32, text an object array of str.
        labels: {column: [n, ...]}, classes int32 with -1 where missing, or values float32 with NaN
            where missing; what is given otherwise is made so, see `columns.as_column`.
        classes: {column: names of the classes} of the columns of classes.
        columns: names of the inputs, in order, if they are the columns of a table: either
            [n, columns] or {column: [n]}. Inputs that something else was made of have none.

    Raises:
        ValueError: the arrays differ in their number of rows, a column with classes is missing, or
            labels are neither classes nor values.
    """

    inputs: PyTree
    labels: Mapping[str, np.ndarray]
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    columns: tuple[str, ...] = ()

    def __post_init__(self):
        inputs = jax.tree_util.tree_leaves_with_path(self.inputs)
        leaves = {f"inputs{jax.tree_util.keystr(path)}": leaf for path, leaf in inputs}
        leaves |= {f"labels[{column!r}]": values for column, values in self.labels.items()}
        if scalars := [name for name, leaf in leaves.items() if np.ndim(leaf) == 0]:
            raise ValueError(f"expected arrays with a leading axis of rows, got {scalars[0]} []")
        sizes = {name: len(leaf) for name, leaf in leaves.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"arrays with different numbers of rows: {sizes}")
        for column in self.classes:
            self.column(column)
        labels, classes = {}, {}
        for column, values in self.labels.items():
            names = names_of(self.classes[column], column) if column in self.classes else None
            if getattr(values, "dtype", None) != (np.float32 if names is None else np.int32):
                values, names = as_column(values, names, column)
            labels[column] = values
            if names is not None:
                classes[column] = names
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "classes", classes)
        if not self._are_columns():  # `replace` of a function of one's own keeps the names
            object.__setattr__(self, "columns", ())

    def _are_columns(self) -> bool:
        if isinstance(self.inputs, Mapping):
            return self.inputs.keys() == set(self.columns)
        return getattr(self.inputs, "shape", ())[1:] == (len(self.columns),)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.inputs)[0])

    def select(self, rows: np.ndarray) -> "Table":
        """These rows (indices or a mask); see `streamed.select`."""
        return dataclasses.replace(
            self,
            inputs=select(self.inputs, rows),
            labels={column: values[rows] for column, values in self.labels.items()},
        )

    def column(self, column: str) -> np.ndarray:
        """Labels [n, ...] of one column; ValueError if there is none of that name."""
        if column not in self.labels:
            raise ValueError(unknown("label column", column, self.labels))
        return self.labels[column]

    def known(self, column: str) -> np.ndarray:
        """Which labels of a column are known, bool [n, ...], label by label."""
        labels = self.column(column)
        return labels >= 0 if column in self.classes else ~np.isnan(labels)

    def with_labels(
        self,
        column: str,
        labels: np.ndarray,
        names: tuple[str, ...] | None,
        known: np.ndarray | None = None,
    ) -> "Table":
        """The table with one label column more, or another one of that name.

        Args:
            labels: [n, ...], classes if there are `names`, else values.
            known: bool [n] or [n, ...], of labels that are not missing; those that are if None.
        """
        if known is not None:
            labels = np.array(labels)
            labels[~known] = np.nan if names is None else -1
        classes = {other: names for other, names in self.classes.items() if other != column}
        if names is not None:
            classes[column] = names
        return dataclasses.replace(self, labels={**self.labels, column: labels}, classes=classes)

    def labels_of(self, column: str, head: Head) -> tuple[np.ndarray, np.ndarray]:
        """(labels, which are known), both [n, ...], as a head reads a column.

        int32 with -1 for a head of classes, float32 with NaN for one of values, where unknown.

        Raises:
            ValueError: there is no such column, or a head of classes is to read values.
        """
        labels, known = self.column(column), self.known(column)
        if head.integer:
            self.names(column)
            return labels, known
        return np.where(known, labels, np.nan).astype(np.float32), known

    def names(self, column: str) -> tuple[str, ...]:
        """Class names of one column; ValueError if it has no classes."""
        if column not in self.classes:
            self.column(column)
            raise ValueError(
                f"label column {column!r} has no classes, it holds values; if they number classes, "
                "give integers from 0 on, or the names as `classes`"
            )
        return self.classes[column]

    def places(self, keep: Sequence[int | str], column: str) -> list[int]:
        """Where classes, given as indices or names, stand among those of a column.

        Raises:
            ValueError: the column has no such class, or no classes at all.
        """
        names = self.names(column)
        for k in keep:
            if isinstance(k, str) and k not in names:
                raise ValueError(unknown("class", k, names))
            if not isinstance(k, str) and not 0 <= k < len(names):
                raise ValueError(f"class {k} is outside the label space 0 to {len(names) - 1}")
        return [names.index(k) if isinstance(k, str) else k for k in keep]


class Call(NamedTuple):
    """A function with its arguments, equal to another one if both are.

    It is made again once a file changes whose path is among the arguments.
    """

    function: Callable[..., Any]
    arguments: tuple = ()


class _Entry(NamedTuple):
    """A result, and the files that it was made of, by their stamps' ids."""

    value: Any
    sources: dict[int, Stamps]

    def is_outdated(self) -> bool:
        return any(map(has_changed, self.sources.values()))


_lock = threading.RLock()  # a table that two threads ask for is read once
_results: dict[Call, _Entry] = {}  # the one asked for last stands last
_runs = 0  # that go on
_dropped: dict[Call, dict[int, Stamps]] = {}  # results that they had, and were too many
# The files of the results that are being computed, the outermost first:
_sources: list[dict[int, Stamps]] = []


def result_of(load: Call) -> Any:
    """The result of a call, cached until a file that it was made of changes, see `read_from`.

    Raises:
        ValueError: it is to be computed again, within a run, of files that have changed.
    """
    with _lock:
        entry = _results.pop(load, None)
        if entry is None or (not _runs and entry.is_outdated()):
            _refuse_changes(_dropped.get(load, {}))
            _sources.append({})
            try:
                read_from(_files_among(load.arguments))
                value = load.function(*load.arguments)
            finally:
                sources = _sources.pop()
            entry = _Entry(value, sources)
        _results[load] = entry
        while len(_results) > CACHED_TABLES:
            oldest = next(iter(_results))
            sources = _results.pop(oldest).sources
            if _runs:
                _dropped[oldest] = sources
        if _sources:
            _sources[-1] |= entry.sources
        return entry.value


def read_from(paths: Iterable[str | os.PathLike]) -> Stamps:
    """Note, before they are read, of which files and folders the result being computed is made."""
    stamped = stamps(paths)
    with _lock:
        if _sources:
            _sources[-1][id(stamped)] = stamped
    return stamped


@contextlib.contextmanager
def unchanging() -> Iterator[None]:
    """A run: while it lasts, results stay as they are, whatever becomes of their files.

    What is made of files that have changed before is computed anew.
    """
    global _runs
    with _lock:
        if not _runs:
            sources = functools.reduce(operator.or_, (e.sources for e in _results.values()), {})
            changed = {place for place, stamped in sources.items() if has_changed(stamped)}
            for load in [load for load, e in _results.items() if changed & e.sources.keys()]:
                del _results[load]
        _runs += 1
    try:
        yield
    finally:
        with _lock:
            _runs -= 1
            if not _runs:
                _dropped.clear()


def _refuse_changes(sources: Mapping[int, Stamps]) -> None:
    for before in sources.values():
        differs = (stamps(before.paths).numbers != before.numbers).any(1)
        for path in itertools.compress(before.paths, differs):
            if not os.path.isdir(path):  # which changes with whatever is put there
                raise ValueError(f"{path} was changed while a run reads it; start the run again")


def _files_among(arguments: tuple) -> list[str | os.PathLike]:
    """Those that are paths of files, in tuples too; calls speak for themselves."""
    leaves = jax.tree.leaves(arguments, is_leaf=lambda each: isinstance(each, Call))
    paths = dict.fromkeys(leaf for leaf in leaves if isinstance(leaf, str | os.PathLike))
    return list(filter(os.path.isfile, paths))
