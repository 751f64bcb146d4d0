"""Files of arrays: `.safetensors`, `.npz`, and PyTorch's `.pth`, `.pt`, `.bin` and `.ckpt`.

Nothing in a file is run, and nothing is allocated on the word of a file: what it declares must be
what is there, and archives may unpack to 64 MB or 20 times their size.
"""

import functools
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from jaxtl.pretrained.archives import Unreadable, members, shorten, unpack
from jaxtl.pretrained.torch_files import read_torch

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_KINDS = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")

Result = TypeVar("Result")


class Content(NamedTuple):
    """What a file holds.

    Attributes:
        arrays: {name: array}; floats narrower than float32 come as float32, arrays are read-only.
        remark: which dictionary of the file's these are; empty if the file is that dictionary.
    """

    arrays: Mapping[str, np.ndarray]
    remark: str = ""


def read_file(path: Path) -> Content:
    """The arrays of a file, by the names that it has.

    The last two files that were read are kept in memory.

    Raises:
        ValueError: the suffix is unknown, or the file cannot be read.
    """
    if path.suffix not in _READERS:
        raise ValueError(
            f"cannot read {path}: its suffix is {path.suffix!r}, expected {', '.join(_READERS)}."
        )
    return _attempt(path, _read_once)


def sha256(path: Path) -> str:
    """Hexadecimal hash of a file's content.

    Raises:
        ValueError: the file cannot be read.
    """
    return _attempt(path, _hash_once)


def _attempt(path: Path, read: Callable[[Path, tuple[int, int]], Result]) -> Result:
    try:
        stat = path.stat()
        return read(path, (stat.st_mtime_ns, stat.st_size))
    except ImportError as error:
        raise ValueError(f"cannot read {path}: {error}; pip install 'jaxtl[pretrained]'.") from None
    except Unreadable as error:
        raise ValueError(f"cannot read {path}: {error}.") from None
    except Exception as error:  # of any kind: the bytes of a broken file can mean anything
        reason = f"{type(error).__name__}: {shorten(error, 300)}".removesuffix(": ")
        raise ValueError(f"cannot read {path}: {reason.rstrip('.')}.") from error


@functools.lru_cache(2)
def _read_once(path: Path, stamp: tuple[int, int]) -> Content:
    if not stamp[1]:
        raise Unreadable("it is empty")
    arrays, remark = _READERS[path.suffix](path)
    if not arrays:
        raise Unreadable("it holds no arrays")
    for array in arrays.values():
        array.setflags(write=False)
    return Content(MappingProxyType(arrays), remark)


@functools.lru_cache(16)
def _hash_once(path: Path, stamp: tuple[int, int]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], str]:
    from safetensors.numpy import load_file

    _check_header(path)
    return {name: _widen(array) for name, array in load_file(path).items()}, ""


def _check_header(path: Path) -> None:
    """What the library leaves to whoever calls it: names that stand twice, types of other machines.

    Raises:
        Unreadable: there are such.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise Unreadable("its header ends behind the file")
        entries = json.loads(file.read(length), object_pairs_hook=_unique)
    types = {name: entry["dtype"] for name, entry in entries.items() if name != "__metadata__"}
    if foreign := [f"{name} {kind}" for name, kind in types.items() if kind not in _KINDS]:
        raise Unreadable(
            f"it holds types that are not read: {shorten(', '.join(foreign), 200)}; expected "
            f"{', '.join(_KINDS)}"
        )


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(items)) < len(items):
        raise Unreadable("two names in its header are the same")
    return dict(items)


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], str]:
    with zipfile.ZipFile(path) as archive:
        infos = members(archive, path)
        if others := [name for name in infos if not name.endswith(".npy")]:
            raise Unreadable(f"it holds {shorten(others[0])}, which is no array")
        return {
            name.removesuffix(".npy"): _widen(_npy(name, unpack(archive, info)))
            for name, info in infos.items()
        }, ""


def _npy(name: str, content: bytes) -> np.ndarray:
    """The array of a file of NumPy, whose header must fit what follows it."""
    name, file = shorten(name), io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise Unreadable(f"{name} has format {version}, expected one of {list(_HEADERS)}")
    try:
        shape, fortran, dtype = _HEADERS[version](file)
    except Exception as error:  # NumPy evaluates the header as a literal of Python
        raise Unreadable(f"{name} has no header of an array: {shorten(error)}") from error
    if dtype.hasobject:
        raise Unreadable(f"{name} holds Python objects, which are not read: allow_pickle=False")
    if dtype.kind not in "biufc" and not _is_bfloat16(dtype):
        raise Unreadable(f"{name} holds {shorten(dtype)}, no numbers")
    start, size = file.tell(), math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or len(content) - start != size:
        raise Unreadable(
            f"{name} has {len(content) - start} bytes, not the {size} of {shorten(list(shape))} "
            f"{dtype}"
        )
    flat = np.frombuffer(memoryview(content)[start:], dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _is_bfloat16(dtype: np.dtype) -> bool:
    """Two bytes of no type, as which NumPy's files keep it."""
    return dtype.kind == "V" and dtype.itemsize == 2 and not (dtype.names or dtype.subdtype)


def _widen(array: np.ndarray) -> np.ndarray:
    """float16 and bfloat16 as float32."""
    if _is_bfloat16(array.dtype):
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array


_READERS: Mapping[str, Callable[[Path], tuple[dict[str, Any], str]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": read_torch,
    ".pt": read_torch,
    ".bin": read_torch,
    ".ckpt": read_torch,
    ".tar": read_torch,  # of model.pth.tar, which is no tar archive
}
