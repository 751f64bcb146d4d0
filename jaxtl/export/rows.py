"""Rows as they are given, made into the arrays that a model's dataset would hold.

The ranges are those of `data.arrays`, as far as they can be told from what the dataset held: a
model of uint8 images takes any integers of 0 to 255 and floats in [0, 1], one of float images in
[0, 1] integers too. The rest is refused.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data.arrays import is_image
from jaxtl.plan import PyTree

SHOWN_LEAVES = 5
SLACK = 0.01  # of [0, 1], for images that were resized or noisy
NEAR = 1e-3  # of a level of uint8, for floats that are levels divided by 255


def read_rows(
    given: Any, wanted: PyTree, ranges: Sequence[Sequence[float] | None] = (), exact: bool = False
) -> PyTree:
    """Rows as NumPy arrays [n, ...] in dtypes that the data have.

    Args:
        given: arrays, lists or whatever NumPy makes an array of; in a pytree like `wanted`.
        wanted: abstract rows [1, ...]; texts have the dtype object.
        ranges: [least, most] in training of each leaf that holds float images, None where unknown.
        exact: uint8 must come out as uint8, since something is computed from its levels.

    Raises:
        ValueError: they are not such rows; a line for each thing that is wrong.
    """
    limits, sizes, problems = iter(ranges or itertools.repeat(None)), {}, []

    def read(given: Any, wanted: PyTree, path: str) -> PyTree:
        try:
            _check_form(given, wanted)
            if isinstance(wanted, Mapping):  # in JAX's order, which is that of the ranges
                return {k: read(given[k], wanted[k], f"{path}[{k!r}]") for k in sorted(wanted)}
            if isinstance(wanted, tuple):
                pairs = enumerate(zip(given, wanted, strict=True))
                return tuple(read(*pair, f"{path}[{i}]") for i, pair in pairs)
            rows = _leaf(given, wanted, next(limits), exact)
        except ValueError as error:
            problems.append(f"{path} {error}".strip())
            return None
        sizes[path] = len(rows)
        return rows

    rows = read(given, wanted, "")
    if problems:
        raise ValueError("\n  ".join(problems))
    if len(set(sizes.values())) > 1:
        raise ValueError(f"different numbers of rows: {sizes}")
    return rows


def _check_form(given: Any, wanted: PyTree) -> None:
    """Raises ValueError if a part of the rows is no dict, tuple or array where one is wanted."""
    expected = ""
    if isinstance(wanted, Mapping):
        if not isinstance(given, Mapping) or given.keys() != wanted.keys():
            expected = f"{{{', '.join(wanted)}}}"
    elif isinstance(wanted, tuple):
        if not isinstance(given, list | tuple) or len(given) != len(wanted):
            expected = f"{len(wanted)} parts"
    elif isinstance(given, Mapping):
        expected = "an array"
    if expected:
        raise ValueError(f"expected {expected}, got {_kind(given)}")


def _kind(given: Any) -> str:
    if isinstance(given, Mapping):
        return f"{{{', '.join(map(str, given))}}}"
    if hasattr(given, "dtype") and hasattr(given, "shape"):
        return f"{given.dtype}{list(given.shape)}"
    return type(given).__name__


def _leaf(
    given: Any, spec: jax.ShapeDtypeStruct, limits: Sequence[float] | None, exact: bool
) -> np.ndarray:
    array = _array(given, spec)
    if not array.size and array.ndim == 1:  # an empty list
        return np.empty((0, *spec.shape[1:]), spec.dtype)
    if array.ndim != len(spec.shape):
        one_row = array.ndim == len(spec.shape) - 1
        axes = f"{array.ndim} axes, not {len(spec.shape)}"
        raise ValueError(f"{_kind(array)} has {'one row, without their axis' if one_row else axes}")
    is_float = spec.dtype != object and np.issubdtype(spec.dtype, np.floating)
    if is_float and array.ndim == 2 and array.shape[1] != spec.shape[1]:
        raise ValueError(f"{_kind(array)} has {array.shape[1]} columns, not {spec.shape[1]}")
    if spec.dtype == object:
        return _texts(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{array.dtype} is not a dtype of numbers")
    if spec.dtype == np.uint8:
        return _levels(array, exact)
    if is_float:
        with np.errstate(over="ignore"):  # infinity is found later, with the rest of its kind
            as_float = array.astype(spec.dtype)
        return _float_images(array, limits) if is_image(spec.shape) else as_float
    return _whole(array, spec.dtype)


def _array(given: Any, spec: jax.ShapeDtypeStruct) -> np.ndarray:
    if isinstance(given, str | bytes):
        raise ValueError("one text, not a list of texts" if spec.dtype == object else "a text")
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise ValueError(f"{np.ma.count_masked(given)} masked values")
    try:
        # NumPy makes texts of all that stands among texts in a list.
        in_list = spec.dtype == object and not hasattr(given, "dtype")
        array = np.asarray(given, object) if in_list else np.asarray(given)
        if array.dtype == object and spec.dtype != object:
            if any(isinstance(value, str | bytes) for value in array.flat):
                raise ValueError("holds texts among its numbers")
            array = array.astype(np.float64)
        if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.kind != "f":
            array = array.astype(np.float32)  # bfloat16, which NumPy does not know
    except (TypeError, ValueError, RuntimeError) as error:  # the last is PyTorch's
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{_kind(given)} is no array of rows: {reason}") from error
    return array


def _texts(array: np.ndarray) -> np.ndarray:
    array = array.astype(object)
    if others := [value for value in array if not isinstance(value, str | bytes)]:
        raise ValueError(f"{len(others)} of {len(array)} rows are no texts, such as {others[0]!r}")
    return array


def _levels(array: np.ndarray, exact: bool) -> np.ndarray:
    """What uint8 holds."""
    if array.dtype.kind in "iu":
        _count(array, (array < 0) | (array > 255), "outside 0 to 255, which uint8 holds")
        return array.astype(np.uint8)
    if array.dtype.kind == "b":
        raise ValueError("bool is no uint8 of 0 to 255")
    _count(
        array,
        ~_in_unit(array),
        "outside [0, 1]; the data are uint8, so that 0 to 255 must be integers",
    )
    if not exact:
        return array.astype(np.float32)
    levels = np.rint(array * 255)
    _count(
        array,
        (np.abs(array * 255 - levels) > NEAR) | (levels < 0) | (levels > 255),
        "no multiples of 1/255; the data are uint8 and are transformed as such, so give uint8",
    )
    return levels.astype(np.uint8)


def _float_images(array: np.ndarray, limits: Sequence[float] | None) -> np.ndarray:
    """float32 images of the scale of those that had these limits."""
    in_unit = limits is None or _in_unit(np.array(limits)).all()
    if array.dtype.kind == "f":
        if limits is not None and in_unit:
            _count(array, ~_in_unit(array), "outside [0, 1], where the data lie")
        return array.astype(np.float32)
    if not in_unit or array.dtype.kind == "b":
        low, high = limits or (0, 1)
        raise ValueError(f"{array.dtype}; the data are floats from {low:.4g} to {high:.4g}")
    if array.dtype != np.uint16:
        return _levels(array, True).astype(np.float32) / 255
    if 0 < array.max(initial=0) <= 255:
        raise ValueError("uint16 images of at most 255: give them as uint8, or as floats in [0, 1]")
    return array.astype(np.float32) / 65535


def _in_unit(array: np.ndarray) -> np.ndarray:
    """Whether values are in [0, 1], or nearly; NaN is not."""
    return (array >= -SLACK) & (array <= 1 + SLACK)


def _whole(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if array.dtype.kind == "f":
        _count(array, ~np.isfinite(array) | (array != np.rint(array)), "no whole numbers")
    if np.issubdtype(dtype, np.bool_):
        _count(array, (array != 0) & (array != 1), "neither 0 nor 1")
    else:
        limits = np.iinfo(dtype)
        _count(array, (array < limits.min) | (array > limits.max), f"outside {dtype}")
    return array.astype(dtype)


def _count(array: np.ndarray, wrong: np.ndarray, what: str, name: str = "") -> None:
    """Raises ValueError if a value is wrong."""
    if wrong.any():
        rows = wrong.reshape(len(array), -1).any(1).sum()
        text = f"{name}{wrong.sum()} values in {rows} of {len(array)} rows are {what}"
        raise ValueError(text.lstrip())


def check_finite(rows: PyTree, when: str = "") -> None:
    """Raises ValueError, with their number, if values are NaN or infinite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(rows):
        if np.issubdtype(leaf.dtype, np.floating):
            name = f"{when}{jax.tree_util.keystr(path)} " if path else when
            _count(leaf, ~np.isfinite(leaf), "not finite", name)


def check_indices(rows: PyTree, bounds: Mapping[str, int]) -> None:
    """Raises ValueError, with their number, if values do not choose among so many entries.

    Args:
        bounds: as `models.index_bounds` returns them.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(rows):
        name = jax.tree_util.keystr(path)
        if name in bounds:
            what = f"outside 0 to {bounds[name] - 1}, the ids that the model knows"
            _count(leaf, (leaf < 0) | (leaf >= bounds[name]), what, f"{name} ")


def in_words(inputs: PyTree, n: str = "") -> str:
    """`uint8[32, 8, 8, 1]`, with the keys of a pytree before it; texts are `str[32]`.

    Args:
        n: in place of the first axis.
    """
    parts = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(inputs):
        shape = [n, *leaf.shape[1:]] if n else leaf.shape
        dtype = "str" if leaf.dtype == object else leaf.dtype
        parts.append(f"{jax.tree_util.keystr(path)} {dtype}[{', '.join(map(str, shape))}]".strip())
    return ", ".join([*parts[:SHOWN_LEAVES], *(["..."] if parts[SHOWN_LEAVES:] else [])])
