"""Examples, and the calls that load them once."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data.streamed import select
from jaxtl.paths import unknown

PyTree = Any
CACHED_TABLES = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Examples; the labels are in memory, and the inputs where they fit.

    Attributes:
        inputs: pytree of [n, ...] NumPy arrays or, larger than memory, `Streamed` rows; images are
            uint8 [n, height, width, channels], other numbers float32, text an object array of str.
        labels: {column: [n, ...]}, int32 with -1 where missing or float32 with NaN where missing.
        classes: {column: names of the classes} of integer columns.

    Raises:
        ValueError: the arrays differ in their number of rows, or a column with classes is missing.
    """

    inputs: PyTree
    labels: Mapping[str, np.ndarray]
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        leaves = {
            f"inputs{jax.tree_util.keystr(path)}": leaf for path, leaf in _leaves(self.inputs)
        }
        leaves |= {f"labels[{column!r}]": values for column, values in self.labels.items()}
        if scalars := [name for name, leaf in leaves.items() if np.ndim(leaf) == 0]:
            raise ValueError(f"expected arrays with a leading axis of rows, got {scalars[0]} []")
        sizes = {name: len(leaf) for name, leaf in leaves.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"arrays with different numbers of rows: {sizes}")
        for column in self.classes:
            self.column(column)

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

    def names(self, column: str) -> tuple[str, ...]:
        """Class names of one column; ValueError if it has no classes."""
        if column not in self.classes:
            self.column(column)
            raise ValueError(f"label column {column!r} has no classes")
        return self.classes[column]


def _leaves(tree: PyTree) -> list[tuple[Any, np.ndarray]]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def to_float(inputs: PyTree) -> PyTree:
    """uint8 leaves -> float32 in [0, 1]; other leaves unchanged. May be jitted."""
    return jax.tree.map(
        lambda x: x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x, inputs
    )


class Call(NamedTuple):
    """A function with its arguments, equal to another one if both are."""

    function: Callable[..., Any]
    arguments: tuple = ()


_lock = threading.RLock()  # a table that two threads ask for is read once


@functools.lru_cache(CACHED_TABLES)
def _cached(load: Call) -> Any:
    return load.function(*load.arguments)


def loaded(load: Call) -> Any:
    """The result of a call, cached."""
    with _lock:
        return _cached(load)
