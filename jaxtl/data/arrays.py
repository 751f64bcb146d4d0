"""Data of one's own that are arrays: what inputs may be, and in which range.

The rule of ranges, the same wherever data come from: uint8 stands for 0..255 and reaches a model as
float32 in [0, 1]. Images [n, height, width, 1, 3 or 4] of uint16 are divided by 65535 when they are
loaded, and those of other integers must lie in 0..255 and become uint8. Floats are taken as they
are. All other integers become int32.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxtl.data.columns import as_column, coarse, names_of
from jaxtl.data.dataset import Dataset
from jaxtl.data.steps import images
from jaxtl.data.streamed import CHUNK, Streamed, rows_of_file
from jaxtl.data.table import Call, Table, read_from


def arrays(
    inputs: Any,
    labels: Any,
    *,
    name: str = "arrays",
    classes: Mapping[str, Iterable[str]] | Iterable[str] | None = None,
) -> Dataset:
    """A dataset of arrays in memory, or of inputs in files that `np.memmap` maps.

    The dataset may share memory with the arrays: make another one after writing to them.

    Args:
        inputs: array [n, ...], list of n rows (images of one size, texts, numbers), or pytree of
            arrays; ranges as the module says. Texts are held as objects. The rows of an `np.memmap`
            stay on disk until a batch needs them.
        labels: [n, ...] (column "label") or {column: [n, ...]}, None if there are none. Integers
            are classes, -1 is a missing one; integers without names, of which some are below -1
            or above 65,535, and floats are values, NaN is a missing one. Texts are names of
            classes, None is missing.
        name: for messages.
        classes: class names of the column "label", or {column: names}. Those of an integer column
            without names are "0", "1", ... up to its largest label, and stand for positions.

    Raises:
        ValueError: labels or inputs of another type, that do not fit their type or range, that
            contradict the names, or that differ in their number of rows.
    """
    try:
        labels = {} if labels is None else labels
        labels = labels if isinstance(labels, Mapping) else {"label": labels}
        given = classes if isinstance(classes, Mapping) else {"label": classes}
        given = {column: names_of(v, column) for column, v in given.items() if v is not None}
        columns = {column: as_column(v, given.get(column), column) for column, v in labels.items()}
        labels = {column: values for column, (values, _) in columns.items()}
        names = {column: names for column, (_, names) in columns.items() if names is not None}
        counts = [len(values) for values in labels.values() if values.ndim]
        if not labels and isinstance(inputs, list):
            counts = [len(inputs)]  # without labels a list can only be one of rows
        table = Table(as_inputs(inputs, min(counts, default=0)), labels, {**given, **names})
    except ValueError as error:
        raise ValueError(f"arrays {name!r}: {error}") from error
    mapped = (leaf for leaf in jax.tree.leaves(inputs) if isinstance(leaf, np.memmap))
    files = tuple(leaf.filename for leaf in mapped if leaf.filename is not None)
    return Dataset(name, Call(_held, (table, files)))


def _held(table: Table, files: tuple[str | os.PathLike, ...]) -> Table:
    """The table; another one once its files have changed, for whoever remembers it."""
    read_from(files)
    return dataclasses.replace(table)


def as_inputs(inputs: Any, rows: int | None = None) -> Any:
    """A pytree of what a `Table` holds as inputs.

    Args:
        inputs: as `arrays` takes them.
        rows: how many examples there are; a list of so many things is a list of rows.

    Raises:
        ValueError: a leaf holds something else than numbers and texts, or numbers that do not fit.
    """
    if isinstance(inputs, list | tuple):
        is_rows = isinstance(inputs, list) and len(inputs) == rows
        if is_rows or not any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(inputs)):
            inputs = _stack_rows(inputs)
    leaves, structure = jax.tree_util.tree_flatten_with_path(inputs)
    if not leaves:
        raise ValueError("there are no inputs")
    return jax.tree.unflatten(
        structure, [_leaf(leaf, f"inputs{jax.tree_util.keystr(path)}") for path, leaf in leaves]
    )


def _stack_rows(rows: Sequence[Any]) -> np.ndarray:
    """A list of rows as one array; texts as objects."""
    if any(isinstance(row, str | bytes) for row in rows):
        return np.array([*rows, None], object)[:-1]
    try:
        return images.stack([np.asarray(row) for row in rows], "inputs") if rows else np.zeros(0)
    except ValueError as error:
        raise ValueError(
            f"inputs are a list of {len(rows)} things that do not stack: {error}"
        ) from None


def _leaf(values: Any, place: str) -> np.ndarray | Streamed:
    on_disk = isinstance(values, np.memmap)
    values = values if on_disk else np.asarray(values)
    if values.dtype.kind in "US":
        values = values.astype(object)
    if values.dtype.kind not in "Obiuf":
        raise ValueError(f"{place} holds {values.dtype}; inputs are numbers or texts")
    if values.dtype == object:
        if not any(isinstance(value, str | bytes) for value in values.ravel()):
            kinds = ", ".join(sorted({type(value).__name__ for value in values.ravel()}))
            raise ValueError(f"{place} holds objects ({kinds}); inputs are numbers or texts")
        return values.view()
    if values.ndim == 0:
        raise ValueError(f"{place} is a single number, not an array [n, ...]")
    if on_disk and values.dtype.kind == "f":  # the first rows say which floats hold all of them
        first = np.asarray(values[: max(1, CHUNK // max(1, values[:1].size))])
        return rows_of_file(values, _numbers(first, place).dtype)
    if on_disk:
        return rows_of_file(values, values.dtype).map(lambda block: _numbers(block, place))
    return _numbers(values, place)


def _numbers(values: np.ndarray, place: str) -> np.ndarray:
    """Numbers [n, ...] in the type and the range that the module says."""
    kind, image = values.dtype.kind, is_image(values.shape)
    if values.dtype == np.uint8:
        return values.view()  # a digest that is remembered for an array must not outlive a change
    if kind == "f":  # float64 where float32 could not tell rows apart that differ
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32)
        return values.astype(np.float64) if coarse(values, narrow).any() else narrow
    if kind == "b":
        return values.astype(np.float32)
    if image and values.dtype == np.uint16:
        return (values / np.float32(65535)).astype(np.float32)
    least, most = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if image:
        if not 0 <= least <= most <= 255:
            raise ValueError(
                f"{place} are images of {values.dtype} from {least} to {most}, beyond 0 to 255; "
                "integers of images lie in 0..255, or in 0..65535 with dtype uint16; else give "
                "floats in [0, 1]"
            )
        return values.astype(np.uint8)
    if not -(2**31) <= least <= most < 2**31:
        raise ValueError(
            f"{place} holds integers from {least} to {most}, which do not fit int32; if they are "
            "quantities give floats, such as (x - x.mean(0)) / x.std(0); if they name things, "
            "number those from 0"
        )
    return values.astype(np.int32)


def is_image(shape: Sequence[int]) -> bool:
    """Whether an array of this shape is taken for images [n, height, width, channels]."""
    return len(shape) == 4 and shape[3] in (1, 3, 4)
