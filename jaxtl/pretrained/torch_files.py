"""PyTorch's files without PyTorch: tensors and plain values, nothing that could run.

Two formats: since version 1.6 a zip archive of a pickle and raw storages; before, four pickles (a
magic number, the protocol, the machine, the tree), the keys of the storages and the storages.
"""

import collections
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_WRAPPERS = ("state_dict", "model_state_dict", "model")


class _Storage(NamedTuple):
    """Numbers of the file, from `start` on; `kind` is a name in `_TYPES`."""

    key: str
    kind: str
    start: int


class _Tensor(NamedTuple):
    """A view of a storage: offset and strides count numbers."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a dictionary that `torch.save` wrote, float16 and bfloat16 as float32.

    Those of {"state_dict": ...} and {"model": ...} are found inside. Strides and offsets of the
    file are honoured; everything that is not a tensor is left out.

    Raises:
        pickle.UnpicklingError: the file holds something else than tensors, dictionaries and plain
            values, or tensors that it has no numbers for.
        Exception: of any kind, as the bytes of a broken file can mean anything.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _read_zip(archive)
    with path.open("rb") as file:
        return _read_legacy(file)


class _Unpickler(pickle.Unpickler):
    """Knows tensors, storages, dictionaries and plain values; anything else is an error.

    Attributes:
        kinds: {key: kind} of the storages met.
    """

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.kinds: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": collections.OrderedDict,
            "torch.Size": tuple,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch._utils._rebuild_parameter_with_state": self._parameter,
        } | {f"torch.{kind}": kind for kind in _TYPES}
        full = f"{module}.{name}"
        if full not in known:
            raise pickle.UnpicklingError(
                f"it holds {full}, and only tensors, dictionaries and plain values are read: save "
                "the state_dict alone"
            )
        return known[full]

    def persistent_load(self, pid: Any) -> _Storage:
        tag, kind, key, _, _, *view = pid
        if tag != "storage":
            raise pickle.UnpicklingError(f"it holds a {tag}, not only tensors")
        self.kinds[key] = kind
        # Files of before 0.4 may say which part of a storage is meant: (key, start, length).
        return _Storage(key, kind, view[0][1] if view and view[0] else 0)

    def _tensor(self, storage: _Storage, offset: int, size: tuple, stride: tuple, *_) -> _Tensor:
        return _Tensor(storage, storage.start + offset, size, stride)

    def _parameter(self, tensor: _Tensor, *_) -> _Tensor:
        return tensor


def _read_zip(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    names = set(archive.namelist())
    trees = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(trees) != 1:
        raise pickle.UnpicklingError("it is a zip archive, but not one of torch.save")
    root = trees[0].removesuffix("data.pkl")
    order = "little"
    if f"{root}byteorder" in names:
        order = archive.read(f"{root}byteorder").decode()
    tensors = _tensors(_Unpickler(io.BytesIO(archive.read(trees[0]))).load())
    numbers = {
        storage.key: np.frombuffer(
            archive.read(f"{root}data/{storage.key}"), _dtype(storage.kind, order)
        )
        for storage in {tensor.storage for tensor in tensors.values()}
    }
    return {name: _array(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    def load() -> Any:
        return _Unpickler(file).load()

    if load() != _MAGIC:
        raise pickle.UnpicklingError("it is no file of torch.save")
    load()  # the protocol
    order = "little" if load()["little_endian"] else "big"
    unpickler = _Unpickler(file)
    tensors = _tensors(unpickler.load())
    numbers = {}
    for key in load():
        dtype = _dtype(unpickler.kinds[key], order)
        size = int.from_bytes(file.read(8), order) * dtype.itemsize
        content = file.read(size)
        if len(content) < size:
            raise pickle.UnpicklingError("the file ends before its tensors do")
        numbers[key] = np.frombuffer(content, dtype)
    return {name: _array(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def _dtype(kind: str, order: str) -> np.dtype:
    return np.dtype(_TYPES[kind]).newbyteorder(order)


def _tensors(tree: Any) -> dict[str, _Tensor]:
    """{name: tensor} of a checkpoint's dictionary, or of the wrapper's inside it."""
    if not isinstance(tree, dict):
        raise pickle.UnpicklingError(
            f"it holds a {type(tree).__name__}, not a dictionary of tensors"
        )
    for wrapper in _WRAPPERS:
        if isinstance(tree.get(wrapper), dict):
            return _tensors(tree[wrapper])
    return {name: leaf for name, leaf in tree.items() if isinstance(leaf, _Tensor)}


def _array(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    storage, offset, size, stride = tensor
    if math.prod(size) == 0:
        return np.zeros(size, numbers.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # Overlapping views, which could be of any size, are nothing that a model's file has.
    if min(offset, *size, *stride, 0) < 0 or last >= len(numbers) or math.prod(size) > len(numbers):
        raise pickle.UnpicklingError("it has a tensor outside of its storage")
    steps = [step * numbers.itemsize for step in stride]
    array = np.lib.stride_tricks.as_strided(numbers[offset:], size, steps)
    array = array.astype(array.dtype.newbyteorder("="), order="C")
    if storage.kind == "BFloat16Storage":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if storage.kind == "HalfStorage" else array
