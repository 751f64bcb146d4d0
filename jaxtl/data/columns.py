"""Label columns: what kind each is, its class names, and which of its labels are known.

A column of classes holds int32, -1 where missing, and has names; a column of values holds float32,
NaN where missing. It is made once, when data are loaded; what comes after asks for the mask.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxtl.paths import unknown

LARGEST_CLASS = 2**16 - 1
"""Integers above it, without class names, are values: nobody means 65,536 classes by them."""


class Numbered(tuple):
    """Names of classes that have none: "0", "1", ... They stand for positions."""

    def __new__(cls, size: int) -> "Numbered":
        return super().__new__(cls, map(str, range(size)))

    def __getnewargs__(self) -> tuple[int]:
        return (len(self),)


def names_of(classes: Iterable[Any], column: str) -> tuple[str, ...]:
    """Class names as text.

    Raises:
        ValueError: they are one text, none, or a name stands twice.
    """
    if isinstance(classes, Numbered):
        return classes
    try:
        if isinstance(classes, str | bytes | set | frozenset):  # a set has no order
            raise TypeError
        names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in classes)
    except TypeError:
        raise ValueError(
            f"classes of column {column!r}: expected a list of names, got {classes!r}"
        ) from None
    if not names:
        raise ValueError(f"classes of column {column!r}: there are no names")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"classes of column {column!r}: named twice: {', '.join(twice)}")
    return names


def as_column(
    values: Any, names: Sequence[str] | None, column: str
) -> tuple[np.ndarray, Sequence[str] | None]:
    """(labels int32 or float32, class names or None for values) of what a user gives.

    Args:
        values: [n, ...] integers or booleans (classes; -1 is a missing one), texts (names of
            classes; None is a missing one) or floats (values; NaN is a missing one). Whole numbers
            in floats are classes if `names` are given. Integers without names of which some are
            below -1 or above `LARGEST_CLASS` are values.
        names: of the classes, in order; None if the user gave none. Texts are sorted then.
        column: its name, for messages.

    Raises:
        ValueError: they are of another type, contradict the names, do not fit their type, or are
            -1 and 1, of which it cannot be said whether -1 is a class.
    """
    values = _plain_array(values, column)
    kind = values.dtype.kind
    if kind == "O":
        return _class_indices(values, names, column)
    if kind == "f" and names is not None:
        values, kind = _whole_numbers(values, column), "i"
    if kind == "f":
        with np.errstate(over="ignore"):
            floats = values.astype(np.float32)
        if (np.isinf(floats) & np.isfinite(values)).any():
            raise ValueError(f"label column {column!r} holds numbers too large for float32")
        if coarse(values, floats).any():
            raise ValueError(
                f"label column {column!r} holds values that float32 cannot tell apart: subtract "
                "their mean"
            )
        return floats, None
    if kind == "b":
        return values.astype(np.int32), names or Numbered(2)
    least, most = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if names is None and (least < -1 or LARGEST_CLASS < most < 2**31):
        return values.astype(np.float32), None
    if most >= 2**31:
        raise ValueError(
            f"label column {column!r} holds {most}, and classes are numbered from 0 (int32): "
            "renumber them with np.unique(labels, return_inverse=True)[1], or give floats if they "
            "are values"
        )
    if least == -1 and most == 1 and not (values == 0).any():
        raise ValueError(
            f"label column {column!r} holds -1 and 1 alone, and -1 means that a label is missing: "
            "relabel the classes as 0 and 1, such as (labels > 0).astype(int), or give floats"
        )
    return values.astype(np.int32), names or Numbered(most + 1)


def coarse(values: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """At which positions [...] of rows [n, ...] rounding takes more than 1/1000 of their range."""
    if values.dtype.itemsize <= rounded.dtype.itemsize or not len(values):
        return np.zeros(values.shape[1:], bool)
    with np.errstate(all="ignore"):
        error = np.fmax.reduce(np.abs(values - rounded), 0)
        return error > 1e-3 * (np.fmax.reduce(values, 0) - np.fmin.reduce(values, 0))


def _plain_array(values: Any, column: str) -> np.ndarray:
    """An array of booleans, integers, floats, or of texts and None (objects)."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"label column {column!r}: rows of different lengths ({error})") from None
    if array.dtype.kind in "US":
        array = np.array(values, object)  # NumPy writes numbers among texts as texts
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.kind != "O":
        raise ValueError(
            f"label column {column!r} holds {array.dtype}; labels are integers (classes), texts "
            "(names of classes) or floats (values)"
        )
    flat = [plain_value(value) for value in array.ravel()]
    present = [value for value in flat if value is not None]
    for kinds, convert, missing in (
        (str, str, None),
        (bool | np.bool_ | int | np.integer, int, -1),
        (int | np.integer | float | np.floating, float, np.nan),
    ):
        if all(isinstance(value, kinds) for value in present):
            plain = [missing if value is None else convert(value) for value in flat]
            return np.array(plain, object if convert is str else None).reshape(array.shape)
    kinds = ", ".join(sorted({type(value).__name__ for value in present}))
    raise ValueError(
        f"label column {column!r} holds objects of type {kinds}; labels are integers "
        "(classes), texts (names of classes) or floats (values)"
    )


def plain_value(value: Any) -> Any:
    """None for NaN and for pandas' NA and NaT, text for bytes, else the value."""
    is_nan = isinstance(value, float | np.floating) and value != value
    if is_nan or type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _class_indices(
    values: np.ndarray, names: Sequence[str] | None, column: str
) -> tuple[np.ndarray, Sequence[str]]:
    """Texts -> their places among the names, which are sorted if none are given."""
    spelled = {value for value in values.ravel() if value is not None}
    if names is None:
        names = tuple(sorted(spelled)) or Numbered(0)
    for value in sorted(spelled - set(names)):
        raise ValueError(f"label column {column!r}: {unknown('class', value, names)}")
    places = {name: i for i, name in enumerate(names)} | {None: -1}
    labels = np.array([places[value] for value in values.ravel()], np.int32)
    return labels.reshape(values.shape), names


def _whole_numbers(values: np.ndarray, column: str) -> np.ndarray:
    """Whole numbers in floats as integers, NaN as -1."""
    known = ~np.isnan(values)
    if (values[known] % 1 != 0).any():
        raise ValueError(
            f"label column {column!r} has class names, but holds fractions or infinity"
        )
    if known.any() and values[known].min() < 0:
        raise ValueError(
            f"label column {column!r} has class names, but holds {values[known].min():g}; classes "
            "are numbered from 0, and NaN is a missing label"
        )
    return np.where(known, values, -1).astype(np.int64)
