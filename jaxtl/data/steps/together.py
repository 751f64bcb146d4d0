"""Several datasets as one, a task each."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxtl.data.dataset import Dataset
from jaxtl.data.streamed import Streamed, is_streamed
from jaxtl.data.table import Call, Table, result_of
from jaxtl.form import checked

TASK = "task"


@checked
def together(datasets: Mapping[str, Dataset]) -> Dataset:
    """The rows of several datasets, one after the other, as one dataset; each is a task.

        tasks = data.together({"amazon": amazon, "dslr": dslr})
        labelled(tasks, ["amazon", "dslr"], draw=Tempered("task", temperature=2.0))

    Rows per seed, subsets and classes are those of the datasets. The label column "task" says whose
    a row is. Column "label" of a task is the column of its name, and any other column c is
    `<name>_<c>`; rows of other tasks have no label there. A column that all datasets have, with the
    same classes, stands under its own name too, for tasks that share a head.

    Args:
        datasets: {task: dataset}; their inputs have one form, shape and type.

    Raises:
        ValueError: there is none; on use, inputs differ or two columns have one name.
    """
    if not datasets:
        raise ValueError("together takes {task: dataset}, at least one")
    parts = tuple(datasets.values())
    calls = tuple(part._table_call() for part in parts)
    name = f"together({', '.join(part.name for part in parts)})"
    return Dataset(name, Call(_joined, (tuple(datasets), calls)), parts=parts)


def _joined(names: tuple[str, ...], calls: tuple[Call, ...]) -> Table:
    tables = [result_of(call) for call in calls]
    sizes = [len(table) for table in tables]
    inputs = _inputs(names, [table.inputs for table in tables])
    labels = {TASK: np.repeat(np.arange(len(names), dtype=np.int32), sizes)}
    classes = {TASK: names}
    starts = np.cumsum([0, *sizes])
    for name, table, start in zip(names, tables, starts, strict=False):
        for column, values in table.labels.items():
            called = name if column == "label" else f"{name}_{column}"
            if called in labels:
                raise ValueError(
                    f"two columns would be called {called!r}; give the task {name!r} another name"
                )
            missing = -1 if column in table.classes else np.nan
            labels[called] = np.full((starts[-1], *values.shape[1:]), missing, values.dtype)
            labels[called][start : start + len(values)] = values
            if column in table.classes:
                classes[called] = table.classes[column]
    first, *others = tables
    for column in first.labels:
        if column not in labels and all(_alike(first, other, column) for other in others):
            labels[column] = np.concatenate([table.labels[column] for table in tables])
            if column in first.classes:
                classes[column] = first.classes[column]
    return Table(inputs, labels, classes)


def _alike(first: Table, other: Table, column: str) -> bool:
    """Whether two tables have a column of the same classes, or of values of the same shape."""
    return (
        column in other.labels
        and first.classes.get(column) == other.classes.get(column)
        and first.labels[column].shape[1:] == other.labels[column].shape[1:]
    )


def _inputs(names: Sequence[str], parts: Sequence) -> object:
    """The inputs of all tasks, in memory if all of them are."""
    forms = [
        (jax.tree.structure(inputs), [(x.shape[1:], x.dtype) for x in jax.tree.leaves(inputs)])
        for inputs in parts
    ]
    differing = [name for name, form in zip(names, forms, strict=True) if form != forms[0]]
    if differing:
        described = [
            f"{name} {jax.tree.map(lambda x: f'{x.dtype}{list(x.shape[1:])}', inputs)}"
            for name, inputs in zip(names, parts, strict=True)
            if name in (names[0], *differing)
        ]
        raise ValueError(f"inputs of tasks have one form, shape and type; {', '.join(described)}")
    join = _stream if any(map(is_streamed, parts)) else np.concatenate
    return jax.tree.map(lambda *leaves: join(leaves), *parts)


def _stream(leaves: Sequence) -> Streamed:
    """Rows of several leaves, read from where they lie."""
    ends = np.cumsum([len(leaf) for leaf in leaves])
    starts = ends - [len(leaf) for leaf in leaves]

    def of_parts(rows: np.ndarray, function: Callable) -> list:
        """[function(leaf, its rows, which of the rows these are)]."""
        part = np.searchsorted(ends, rows, side="right")
        chosen = [(i, part == i) for i in np.unique(part)]
        return [function(leaves[i], rows[places] - starts[i], places) for i, places in chosen]

    def read(rows: np.ndarray) -> np.ndarray:
        values = np.empty((len(rows), *leaves[0].shape[1:]), leaves[0].dtype)

        def fill(leaf, chosen, places):
            values[places] = leaf[chosen]

        of_parts(rows, fill)
        return values

    def version(rows: np.ndarray) -> bytes:
        def of_leaf(leaf, chosen, places):
            if isinstance(leaf, Streamed):
                return leaf.version(chosen)
            return hashlib.sha256(np.ascontiguousarray(leaf[chosen])).digest()

        return b"".join(of_parts(rows, of_leaf))

    return Streamed((int(ends[-1]), *leaves[0].shape[1:]), leaves[0].dtype, read, version)
