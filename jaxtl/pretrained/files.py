"""Files of arrays: `.safetensors`, `.npz`, and PyTorch's `.pth`, `.pt` and `.bin`."""

import functools
import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from jaxtl.pretrained.torch_files import read_torch


def read_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """{name: array}, without a leading `module.` that all names share.

    Floats narrower than float32 come as float32; arrays are read-only. The last two files that were
    read are kept in memory.

    Raises:
        ValueError: the suffix is unknown, or the file cannot be read.
    """
    stat = path.stat()
    return _read_once(path, (stat.st_mtime_ns, stat.st_size))


def sha256(path: Path) -> str:
    """Hexadecimal hash of a file's content."""
    stat = path.stat()
    return _hash_once(path, (stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(2)
def _read_once(path: Path, stamp: tuple[int, int]) -> Mapping[str, np.ndarray]:
    if path.suffix not in _READERS:
        raise ValueError(
            f"cannot read {path}: its suffix is {path.suffix!r}, expected {', '.join(_READERS)}."
        )
    try:
        arrays = _READERS[path.suffix](path)
    except ImportError as error:
        raise ValueError(f"cannot read {path}: {error}; pip install 'jaxtl[pretrained]'.") from None
    except pickle.UnpicklingError as error:
        raise ValueError(f"cannot read {path}: {error}.") from error
    except Exception as error:  # of any kind: the bytes of a broken file can mean anything
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ValueError(f"cannot read {path}: {reason}.") from error
    if not arrays:
        raise ValueError(f"cannot read {path}: it holds no arrays.")
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    for array in arrays.values():
        array.setflags(write=False)
    return MappingProxyType(arrays)


@functools.lru_cache(16)
def _hash_once(path: Path, stamp: tuple[int, int]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {name: _widened(array) for name, array in load_file(path).items()}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: _widened(file[name]) for name in file.files}


def _widened(array: np.ndarray) -> np.ndarray:
    """float16 and bfloat16 as float32; NumPy's files keep the latter as two bytes of no type."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array


_READERS = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": read_torch,
    ".pt": read_torch,
    ".bin": read_torch,
}
