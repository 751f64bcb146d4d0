"""PyTorch's files without PyTorch: tensors and plain values, nothing that could run.

Two formats: since version 1.6 a zip archive of a pickle and raw storages; before, four pickles (a
magic number, the protocol, the machine, the tree), the keys of the storages and the storages.
"""

import io
import math
import mmap
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxtl.pretrained.archives import Unreadable, members, shorten, unpack
from jaxtl.pretrained.torch_pickle import TYPES, Tensor, TorchPickle

_MAGIC = 0x1950A86A20F9469CFC6C
_PICKLE_BYTES = 16 * 2**20
_VIEWS = 4  # times what their storages hold, as tensors may share one
_DEPTH = 8  # of wrappers in wrappers, as a dictionary may hold itself
_WRAPPERS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "ema")


def read_torch(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The tensors of a dictionary that `torch.save` wrote, float16 and bfloat16 as float32.

    Those of {"state_dict": ...}, {"model": ...} and their like are found inside, those of any
    dictionary if it is the only one with tensors, and those of one in another. Strides and offsets
    of the file are honoured; everything that is not a tensor is left out.

    Returns:
        ({name: tensor}, which dictionary inside the file's was taken, if any).

    Raises:
        Unreadable: the file holds something else than tensors, dictionaries and plain values, or
            tensors that it has no numbers for, or more than fits its size.
        Exception: of any kind, as the bytes of a broken file can mean anything.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _read_zip(archive, path)
    with path.open("rb") as file:
        if file.read(265)[257:262] == b"ustar":
            raise Unreadable(
                "it is a tar archive of a PyTorch before 0.2: load it there and save it again"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _read_legacy(content)


def _read_zip(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, np.ndarray], str]:
    infos = members(archive, path)
    trees = [name for name in infos if name.rpartition("/")[2] == "data.pkl"]
    if len(trees) != 1:
        raise Unreadable("it is a zip archive, but not one of torch.save")
    root = trees[0].removesuffix("data.pkl")
    order = "little"
    if f"{root}byteorder" in infos:
        order = unpack(archive, infos[f"{root}byteorder"]).decode()
    if infos[trees[0]].file_size > _PICKLE_BYTES:
        raise Unreadable(f"its pickle has more than {_PICKLE_BYTES} bytes")
    pickle = TorchPickle()
    tensors, remark = _tensors(pickle.load(io.BytesIO(unpack(archive, infos[trees[0]]))))

    def numbers(key: str) -> np.ndarray:
        name = f"{root}data/{key}"
        if name not in infos:
            raise Unreadable(f"it has no {shorten(name)}, which a tensor is made of")
        kind, count = pickle.storages[key]
        dtype = _dtype(kind, order)
        if infos[name].file_size != count * dtype.itemsize:
            raise Unreadable(
                f"{shorten(name)} has {infos[name].file_size} bytes, not those of {count} numbers"
            )
        return np.frombuffer(unpack(archive, infos[name]), dtype)

    return _arrays(tensors, numbers), remark


def _read_legacy(content: mmap.mmap) -> tuple[dict[str, np.ndarray], str]:
    if TorchPickle().load(content) != _MAGIC:
        raise Unreadable("it is no file of torch.save")
    TorchPickle().load(content)  # the protocol
    order = "little" if TorchPickle().load(content)["little_endian"] else "big"
    pickle = TorchPickle()
    tensors, remark = _tensors(pickle.load(content))
    numbers = {}
    for key in TorchPickle().load(content):
        if not isinstance(key, str):
            raise Unreadable("it holds a storage without a name")
        if key in numbers:
            raise Unreadable("it has a storage twice")
        kind, declared = pickle.storages[key]
        count, dtype = int.from_bytes(content.read(8), order), _dtype(kind, order)
        size = count * dtype.itemsize
        if size > content.size() - content.tell():
            raise Unreadable("the file ends before its tensors do")
        if count != declared:
            raise Unreadable(f"a storage has {count} numbers, a tensor's has {declared}")
        numbers[key] = np.frombuffer(content.read(size), dtype)
    return _arrays(tensors, numbers.__getitem__), remark


def _dtype(kind: str, order: str) -> np.dtype:
    return np.dtype(TYPES[kind]).newbyteorder(order)


def _tensors(tree: Any) -> tuple[dict[str, Tensor], str]:
    """{name: tensor} of a checkpoint's dictionary, or of the wrapper's inside it; the remark."""
    if not isinstance(tree, dict):
        raise Unreadable(f"it holds a {type(tree).__name__}, not a dictionary of tensors")
    dictionaries = {key: _leaves(value) for key, value in tree.items() if isinstance(value, dict)}
    # By identity, as a short file may hold a long dictionary under many names.
    distinct = {id(items): items for items, _ in dictionaries.values()}
    full = {number for number, items in distinct.items() if _select(items)}
    inner = {key: each for key, each in dictionaries.items() if id(each[0]) in full}
    loose = _select(tree)
    key = next((wrapper for wrapper in _WRAPPERS if wrapper in inner), None)
    if key is None and (loose or not inner):
        return loose, ""
    if key is None and len(inner) > 1:
        raise Unreadable(
            f"it holds several dictionaries of tensors, {_quote(inner)}: save the one that you "
            "mean alone"
        )
    key = next(iter(inner)) if key is None else key
    others = [name for name in (*inner, *loose) if name != key]
    items, names = inner[key]
    remark = f"tensors of {_quote([*names[::-1], key], ' in ')}"
    return _select(items), f"{remark}, not of {_quote(others)}" if others else remark


def _leaves(tree: dict) -> tuple[dict, list[str]]:
    """What a dictionary holds, or a wrapper's in it, and the wrappers from the outside:
    {"model": {"state_dict": ...}}."""
    names: list[str] = []
    while len(names) < _DEPTH:
        wrapper = next((name for name in _WRAPPERS if isinstance(tree.get(name), dict)), None)
        if wrapper is None:
            break
        tree = tree[wrapper]
        names.append(wrapper)
    return tree, names


def _select(items: dict) -> dict[str, Tensor]:
    return {name: leaf for name, leaf in items.items() if isinstance(leaf, Tensor)}


def _quote(names: Any, between: str = ", ") -> str:
    return shorten(between.join(repr(shorten(name, 40)) for name in list(names)[:8]), 200)


def _arrays(
    tensors: Mapping[str, Tensor], numbers_of: Callable[[str], np.ndarray]
) -> dict[str, np.ndarray]:
    """{name: array}, equal views of a storage once."""
    keys = {tensor.storage.key for tensor in tensors.values()}
    numbers = {key: numbers_of(key) for key in sorted(keys)}
    views = set(tensors.values())
    for view in views:
        _check(view, len(numbers[view.storage.key]))
    total = sum(math.prod(view.size) * numbers[view.storage.key].itemsize for view in views)
    stored = sum(array.nbytes for array in numbers.values())
    if total > _VIEWS * stored:
        raise Unreadable(f"its tensors would take {total} bytes, its storages have {stored}")
    arrays = {view: _array(view, numbers[view.storage.key]) for view in views}
    return {name: arrays[tensor] for name, tensor in tensors.items()}


def _check(tensor: Tensor, count: int) -> None:
    _, offset, size, stride = tensor
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # Overlapping views, which could be of any size, are nothing that a model's file has.
    fits = last < count and math.prod(size) <= count
    if min(offset, *size, *stride, 0) < 0 or (math.prod(size) and not fits):
        raise Unreadable("it has a tensor outside of its storage")


def _array(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    storage, offset, size, stride = tensor
    if math.prod(size) == 0:
        array = np.zeros(size, numbers.dtype)
    else:
        steps = [step * numbers.itemsize for step in stride]
        array = np.lib.stride_tricks.as_strided(numbers[offset:], size, steps)
    array = array.astype(array.dtype.newbyteorder("="), order="C")
    if storage.kind == "BFloat16Storage":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if storage.kind == "HalfStorage" else array
