"""One column of a Hugging Face dataset as an array: what kind it is, and what it becomes."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtl.data.arrays import as_inputs
from jaxtl.data.sources import image_files
from jaxtl.data.sources.label_spelling import spelled
from jaxtl.data.steps.images import one_shape, stack

INPUTS = ("image", "array", "text", "number")
"""Kinds that can be inputs, those that are more likely meant first."""


def kind_of(feature: Any) -> str:
    """One of `INPUTS`, "class", "bytes", or what the feature is called, which cannot be read."""
    name, dtype = type(feature).__name__, str(getattr(feature, "dtype", ""))
    if name == "Image" or (isinstance(feature, dict) and feature.keys() == {"bytes", "path"}):
        return "image"
    if name == "ClassLabel":
        return "class"
    if name in ("List", "LargeList", "Sequence", "list") or name.startswith("Array"):
        inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        kinds = ("array", "number", "class")
        return "array" if inner is None or kind_of(inner) in kinds else f"list of {kind_of(inner)}"
    if name != "Value":
        return "structure" if isinstance(feature, dict) else name
    if dtype in ("string", "large_string"):
        return "text"
    if dtype in ("binary", "large_binary"):
        return "bytes"
    return "number" if dtype.startswith(("int", "uint", "float", "bool")) else dtype


def column_of(name: str, feature: Any, values: Any, size: tuple[int, int] | None) -> np.ndarray:
    """A column of inputs [n, ...].

    Args:
        name: for messages.
        feature: of the dataset.
        values: pyarrow's ChunkedArray [n].
        size: (height, width) of images, None to leave them as they are.

    Raises:
        ValueError: a value is missing, of another shape than others, or no image.
    """
    _refuse_missing(name, values.is_null().to_numpy())
    kind = kind_of(feature)
    if kind in ("image", "bytes"):
        return _images(name, values.to_pylist(), size)
    if kind == "text":
        return np.array([*values.to_pylist(), None], object)[:-1]
    return as_inputs(numbers_of(name, values) if kind == "number" else array_of(name, values))


def numbers_of(name: str, values: Any) -> np.ndarray:
    """A column of numbers as float64 [n].

    Raises:
        ValueError: one is missing or infinite.
    """
    numbers = array_of(name, values).astype(np.float64)
    _refuse_missing(name, ~np.isfinite(numbers))
    return numbers


def _refuse_missing(name: str, missing: np.ndarray) -> None:
    if missing.any():
        raise ValueError(
            f"column {name!r}: missing values in {missing.sum()} of {len(missing)} rows, first in "
            f"row {np.argmax(missing)}; leave out these rows, or the column"
        )


def inner_names(feature: Any) -> tuple[str, ...] | None:
    """The classes of which a feature has several for each row; None if it is of other kind."""
    inner = getattr(feature, "feature", None)
    return tuple(inner.names) if kind_of(inner) == "class" else None


def array_of(name: str, values: Any) -> np.ndarray:
    """Numbers, or lists of them of one length, as an array [n, ...]; NaN where one is missing.

    Raises:
        ValueError: the lists differ in their lengths, or one is missing.
    """
    import pyarrow.compute as pc
    import pyarrow.types as types

    values, shape = _storage(values), [len(values)]
    while any(
        f(values.type) for f in (types.is_list, types.is_large_list, types.is_fixed_size_list)
    ):
        if values.null_count:
            raise ValueError(f"column {name!r}: {values.null_count} lists are missing")
        sizes = sorted(pc.unique(pc.list_value_length(values)).to_pylist())
        if len(sizes) > 1:
            raise ValueError(
                f"column {name!r} holds lists of {sizes[0]} to {sizes[-1]} values; arrays have one "
                "length"
            )
        shape.append(sizes[0] if sizes else 0)
        values = _storage(values.flatten())
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _storage(values: Any) -> Any:
    """One array, of what an extension type such as Array2D stands for."""
    values = values.combine_chunks() if hasattr(values, "combine_chunks") else values
    return getattr(values, "storage", values)


def texts_of(name: str, feature: Any, values: Any) -> list[str]:
    """Labels as names of classes, "" where one is missing.

    Raises:
        ValueError: a `ClassLabel` is none of its classes, or whole numbers are -1 and 1, of which
            it cannot be said whether -1 is a class.
    """
    labels = values.to_pylist()
    if kind_of(feature) == "class":
        names = [*feature.names, ""]
        if wrong := [v for v in labels if v is not None and not -1 <= v < len(names) - 1]:
            raise ValueError(
                f"column {name!r} has {len(names) - 1} classes, but a label {wrong[0]}"
            )
        return [names[-1 if value is None else value] for value in labels]
    if str(feature.dtype).startswith("int"):
        if {*labels} - {None} == {-1, 1}:
            raise ValueError(
                f"column {name!r} holds -1 and 1 alone, and -1 means that a label is missing: make "
                "it a ClassLabel, or name the classes by texts"
            )
        labels = [None if value == -1 else value for value in labels]
    texts = {value: spelled(value) or "" for value in {*labels}}
    return [texts[value] for value in labels]


def _images(name: str, files: Sequence[Any], size: tuple[int, int] | None) -> np.ndarray:
    """Images of one size [n, height, width, channels], of bytes or of paths."""

    def read(row: int, function: Any, *arguments: Any) -> Any:
        file = files[row]
        if isinstance(file, dict):
            file = file["path"] if file["bytes"] is None else file["bytes"]
        try:
            return function(io.BytesIO(file) if isinstance(file, bytes) else file, *arguments)
        except ValueError as error:
            raise ValueError(f"column {name!r}, row {row}: {error}") from error

    rows = range(len(files))
    shapes = [read(row, image_files.header).shape for row in rows]
    channels = max((shape[2] for shape in shapes), default=1)
    if size is None:
        one_shape({(*shape[:2], channels) for shape in shapes}, f"column {name!r}")
    return stack([read(row, image_files.decode, channels, size) for row in rows], name)
