"""Rows of a table by the names of its columns, as people hold them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtl.data.sources.frames import columns_of, is_frame, numbers_of, texts_of
from jaxtl.data.sources.label_spelling import spelled
from jaxtl.paths import closest
from jaxtl.plan import PyTree

SHOWN = 5


def in_columns(given: Any, columns: Sequence[str], wanted: PyTree) -> Any:
    """Rows for `rows.read_rows`: [n, columns] or {column: [n]}, as the data were.

    Args:
        given: a DataFrame of pandas or polars, {column: [n]} or a list of dicts, which may have
            other columns besides; or rows in the order of the columns.
        columns: all names, in order; none for data that are no table.
        wanted: abstract rows [1, columns], or {column: [1]} with categories as objects.

    Raises:
        ValueError: a column is missing, or holds something else.
    """
    by_name = _by_name(given, columns) if columns else None
    if not columns or (by_name is None and not isinstance(wanted, Mapping)):
        return given
    if by_name is None:
        by_name = dict(zip(columns, _transposed(given, len(columns)), strict=True))
    if missing := [name for name in columns if name not in by_name]:
        near = [match for name in missing[:1] for match in closest(name, by_name, 1)]
        hint = f" Did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(map(repr, missing[:SHOWN]))
        raise ValueError(f"they lack the columns {shown}.{hint} Needed: {', '.join(columns)}")
    if not isinstance(wanted, Mapping):
        values = {name: _column(by_name[name], name, False) for name in columns}
        if len({*map(len, values.values())}) > 1:
            sizes = {name: len(column) for name, column in values.items()}
            raise ValueError(f"different numbers of rows: {sizes}")
        return np.stack([*values.values()], 1)
    return {name: _column(by_name[name], name, wanted[name].dtype == object) for name in columns}


def _by_name(given: Any, columns: Sequence[str]) -> Mapping[str, Any] | None:
    """{column: values} of what has names; None of what has none."""
    if is_frame(given):
        return columns_of(given)
    if isinstance(given, Mapping):
        return {str(name): values for name, values in given.items()}
    if isinstance(given, list | tuple) and given and isinstance(given[0], Mapping):
        for i, row in enumerate(given):
            if absent := [name for name in columns if name not in row]:
                raise ValueError(f"row {i} lacks the column {absent[0]!r}")
        return {name: [row[name] for row in given] for name in columns}
    return None


def _transposed(given: Any, count: int) -> list[Any]:
    """The columns of rows that have no names."""
    rows = np.array(given, object)
    if not rows.size and rows.ndim < 2:
        return [np.zeros(0)] * count
    if rows.ndim != 2 or rows.shape[1] != count:
        shape = ", ".join(map(str, rows.shape))
        raise ValueError(f"rows of {count} columns are expected, or columns by name; got [{shape}]")
    return list(rows.T)


def _column(values: Any, name: str, is_category: bool) -> np.ndarray:
    """One column [n], of categories as texts.

    Raises:
        ValueError: it is none, or a category is missing.
    """
    try:
        if hasattr(values, "to_list"):  # a series
            return _texts(texts_of(values)) if is_category else numbers_of(values)
        array = _texts(values) if is_category else np.asarray(values)
        if isinstance(values, str) or array.ndim != 1:
            raise ValueError(f"must be a list of a value for each row, got {values!r:.40}")
        return _texts(map(spelled, array)) if is_category else array
    except ValueError as error:
        raise ValueError(f"column {name!r}: {error}") from error


def _texts(values: Any) -> np.ndarray:
    """Texts [n], of which none is missing."""
    texts = np.array([*values, None], object)[:-1] if np.iterable(values) else np.array(values)
    if rows := [row for row, text in enumerate(texts.ravel()) if text is None]:
        raise ValueError(f"a category is missing in {len(rows)} rows, first in row {rows[0]}")
    return texts
