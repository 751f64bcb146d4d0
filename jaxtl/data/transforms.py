"""What is done to a whole table: (table, ...) -> table. The input is never changed."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from jaxtl.data.selections import generator
from jaxtl.data.table import Call, Table, loaded
from jaxtl.paths import unknown


def name_of(fn: Callable) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def relabel_classes(table: Table, keep: tuple[int | str, ...], column: str) -> Table:
    names, labels = table.names(column), table.labels[column]
    for k in keep:
        if isinstance(k, str) and k not in names:
            raise ValueError(unknown("class", k, names))
    index = [names.index(k) if isinstance(k, str) else k for k in keep]
    outside = [i for i in (*index, *np.unique(labels[labels != -1])) if not 0 <= i < len(names)]
    if outside:
        raise ValueError(f"class {outside[0]} is outside the label space 0 to {len(names) - 1}")
    if len(set(index)) < len(index) or not index:
        raise ValueError(f"classes: each must be given once, got {keep}")
    renumbered = np.full(len(names) + 1, -1, np.int32)  # the last entry serves label -1
    renumbered[index] = np.arange(len(index))
    return dataclasses.replace(
        table,
        labels={**table.labels, column: renumbered[labels]},
        classes={**table.classes, column: tuple(names[i] for i in index)},
    )


def map_images(table: Table, fn: Callable[..., np.ndarray], arguments: tuple) -> Table:
    shapes = [leaf.shape for leaf in jax.tree.leaves(table.inputs)]
    if not any(len(shape) == 4 for shape in shapes):
        raise ValueError(
            f"{name_of(fn)} needs images [n, height, width, channels]; the inputs are {shapes}"
        )
    inputs = jax.tree.map(lambda x: fn(x, *arguments) if x.ndim == 4 else x, table.inputs)
    return dataclasses.replace(table, inputs=inputs)


def relabel(
    table: Table, column: str, fn: Callable[[Table], np.ndarray], classes: tuple[str, ...] | None
) -> Table:
    labels = np.asarray(fn(table)).astype(np.float32 if classes is None else np.int32)
    others = {name: names for name, names in table.classes.items() if name != column}
    return dataclasses.replace(
        table,
        labels={**table.labels, column: labels},
        classes=others if classes is None else {**others, column: classes},
    )


def hide(table: Table, column: str, fraction: float) -> Table:
    labels = table.column(column).copy()
    hidden = generator(0, "hide", column).permutation(len(labels))
    missing = -1 if np.issubdtype(labels.dtype, np.integer) else np.nan
    labels[hidden[: round(fraction * len(labels))]] = missing
    return dataclasses.replace(table, labels={**table.labels, column: labels})


def standardize(table: Table, like: Call) -> Table:
    def standard(leaf: np.ndarray, reference: np.ndarray) -> np.ndarray:
        if not (leaf.dtype == np.uint8 or np.issubdtype(leaf.dtype, np.floating)):
            return leaf
        varies = reference.max(0) > reference.min(0)
        mean, std = (getattr(reference, f)(0, dtype=np.float64) for f in ("mean", "std"))
        scale = np.where(varies, 1 / np.where(varies, std, 1), 0)
        return (leaf - mean.astype(np.float32)) * scale.astype(np.float32)

    inputs = jax.tree.map(standard, table.inputs, loaded(like).inputs)
    return dataclasses.replace(table, inputs=inputs)
