"""Which rows of a table a seed uses: (table, rows, draw, ...) -> rows.

`draw(*names)` is a generator of random numbers that depends on the seed, on the selections so far
and on the names.
"""

import zlib
from collections.abc import Callable

import numpy as np

from jaxtl.data.table import Table


def generator(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng((seed, *(zlib.crc32(name.encode()) for name in names)))


def everything(table: Table, rows: np.ndarray, draw: Callable) -> np.ndarray:
    return rows


def with_label(table: Table, rows: np.ndarray, draw: Callable, column: str) -> np.ndarray:
    return rows[table.known(column)[rows]]


def only(
    table: Table, rows: np.ndarray, draw: Callable, keep: tuple[int | str, ...], column: str
) -> np.ndarray:
    return rows[np.isin(table.column(column)[rows], table.places(keep, column))]


def few(table: Table, rows: np.ndarray, draw: Callable, k: int, column: str) -> np.ndarray:
    labels = table.column(column)[rows]
    names = table.names(column)
    if labels.ndim > 1:
        raise ValueError(
            f"few needs one class an example; column {column!r} has {labels.shape[1:]}"
        )
    groups = {name: rows[labels == index] for index, name in enumerate(names)}
    scarce = [f"{name} ({len(group)})" for name, group in groups.items() if len(group) < k]
    if scarce:
        raise ValueError(f"fewer than {k} examples of class {', '.join(scarce)}")
    drawn = [draw(name).permutation(group)[:k] for name, group in groups.items()]
    return np.concatenate(drawn)


def take(table: Table, rows: np.ndarray, draw: Callable, n: int) -> np.ndarray:
    if not 0 < n <= len(rows):
        raise ValueError(f"there are {len(rows)} examples, not {n}")
    return draw().permutation(rows)[:n]


def split(table: Table, rows: np.ndarray, draw: Callable, fraction: float, part: int) -> np.ndarray:
    shuffled, middle = draw().permutation(rows), round(fraction * len(rows))
    return shuffled[middle:] if part else shuffled[:middle]


def slice(
    table: Table,
    rows: np.ndarray,
    draw: Callable,
    start: int | None,
    stop: int | None,
    step: int | None = None,
) -> np.ndarray:
    return rows[start:stop:step]
