"""The columns of a table as features: a category is as many of them as it has names."""

import dataclasses
from typing import Any

import numpy as np

from jaxtl.data.sources.label_spelling import spelled
from jaxtl.data.table import Call, Table, result_of
from jaxtl.paths import unknown

Spaces = tuple[tuple[str, tuple[str, ...] | None], ...]
"""((column, its categories, or None for one of numbers), ...) in the order of the features."""


def one_hot(table: Table, spaces: Call) -> Table:
    """Inputs {column: [n]} as [n, features], whose `columns` are `age`, `sex=female`, `sex=male`.

    Args:
        spaces: call that returns the `Spaces` of the table and of all that share its features.

    Raises:
        ValueError: a category that is missing, or not among them.
    """
    blocks, names = [], []
    for column, categories in result_of(spaces):
        values = table.inputs[column]
        if categories is None:
            blocks.append(values[:, None])
            names.append(column)
            continue
        places = places_of(values, categories, column)
        blocks.append(places[:, None] == np.arange(len(categories)))
        names += [f"{column}={category}" for category in categories]
    dtype = np.result_type(np.float32, *(block.dtype for block in blocks if block.dtype != bool))
    inputs = np.concatenate(blocks, 1, dtype=dtype)
    return dataclasses.replace(table, inputs=inputs, columns=tuple(names))


def places_of(values: np.ndarray, categories: tuple[str, ...], column: str) -> np.ndarray:
    """Where the values of a column [n] stand among its categories, [n] int.

    Raises:
        ValueError: a value is missing, or none of them.
    """
    places: dict[Any, int | None] = {category: i for i, category in enumerate(categories)}
    for value in {*values} - places.keys():  # 1.0 and "1.00" are the category "1"
        places[value] = places.get(spelled(value))
    strangers = [(row, value) for row, value in enumerate(values) if places[value] is None]
    if strangers:
        row, value = strangers[0]
        if spelled(value) is None:
            reason = "a category is missing"
        else:
            reason = unknown("category", spelled(value), categories)
        more = f" ({len(strangers)} such rows)" if len(strangers) > 1 else ""
        raise ValueError(f"column {column!r}, row {row}: {reason}{more}")
    return np.array([places[value] for value in values], int)


def given(spaces: Spaces) -> Spaces:
    """Those that are at hand, for a `Call`."""
    return spaces
