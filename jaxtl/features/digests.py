"""What rows and weights hold, by content; each array is looked at once as long as it lives."""

import hashlib
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from jaxtl.data.streamed import Streamed
from jaxtl.fingerprint import of_value

SIZE = 16
"""Bytes of a digest."""
READ = 2**26
"""Bytes of streamed rows that are read at a time, where their files do not tell them apart."""

PyTree = Any
Value = TypeVar("Value")


class OfObjects(Generic[Value]):
    """What is known about objects that cannot be hashed; it is forgotten with them."""

    def __init__(self):
        self._lock = threading.RLock()
        self._entries: dict[int, tuple[Callable[[], Any], Value]] = {}

    def get(self, thing: Any, make: Callable[[], Value]) -> Value:
        """The value of an object, made if there is none; another one may stand where one stood."""
        place = id(thing)
        with self._lock:
            reference, value = self._entries.get(place, (lambda: None, None))
            if reference() is not thing:
                value = make()
                forget = weakref.ref(thing, lambda _: self._entries.pop(place, None))
                self._entries[place] = (forget, value)
            return value


_weights: OfObjects[bytes] = OfObjects()
_weights_of_rows: OfObjects[dict[int, bytes]] = OfObjects()
_origins: OfObjects[tuple[Callable[[], Any], int]] = OfObjects()
_rows: OfObjects[dict[bytes, "RowDigests"]] = OfObjects()
_sources: OfObjects[bytes | None] = OfObjects()


def row_of(leaf: Any, number: int) -> Any:
    """`leaf[number]`, whose digest is remembered as that of this row.

    So asking for the same row again, which makes another array, does not hash it again.

    Args:
        leaf: an array of NumPy or JAX, or a traced one.
    """
    row = leaf[number]
    is_array = isinstance(row, np.ndarray | jax.Array)  # not a number of NumPy
    if (
        is_array
        and _is_constant(leaf)
        and _is_constant(row)
        and isinstance(number, int | np.integer)
    ):
        origin = (weakref.ref(leaf), int(number))
        _origins.get(row, lambda: origin)
    return row


def _is_constant(leaf: Any) -> bool:
    """Whether nobody can write to an array, and whether that can be remembered."""
    if isinstance(leaf, jax.Array):
        return not isinstance(leaf, jax.core.Tracer)
    if isinstance(leaf, np.generic):  # the row of a vector: nothing can refer to it weakly
        return False
    while isinstance(leaf, np.ndarray):
        if leaf.flags.writeable or isinstance(leaf, np.memmap):
            return False
        leaf = leaf.base
    return True


def weights_digest(leaf: Any) -> bytes:
    """Of the dtype, shape and bits of an array; of one that may be written to, each time anew."""
    if not _is_constant(leaf):
        return _digest_of(leaf)
    whole, number = _origins.get(leaf, lambda: (lambda: None, 0))
    if (stacked := whole()) is None:
        return _weights.get(leaf, lambda: _digest_of(leaf))
    digests = _weights_of_rows.get(stacked, dict)
    if number not in digests:
        digests[number] = _digest_of(leaf)
    return digests[number]


def on_host(leaf: Any) -> np.ndarray:
    """The numbers of an array, wherever it lies; of a part of it in another process, by asking."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    if leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0))
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(leaf, tiled=True)


def _digest_of(leaf: Any) -> bytes:
    values = np.ascontiguousarray(on_host(leaf))
    hashed = hashlib.sha256(f"{values.dtype}{list(values.shape)}".encode())
    hashed.update(values.reshape(-1).view(np.uint8))
    return hashed.digest()[:SIZE]


def row_digests(inputs: PyTree, rows: np.ndarray) -> list[bytes]:
    """The digest of each row's content [m], over all leaves.

    Streamed rows go by the version of their files, without being read, where they can be told
    apart so. The kinds of the leaves are not part of it, see `kinds`.

    Args:
        inputs: leaves [n, ...] as a table holds them; nobody writes to them.
        rows: [m] int64 from 0 to n - 1.
    """
    parts = [_of_leaf(leaf, rows) for leaf in jax.tree.leaves(inputs)]
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    content, width = joined.tobytes(), joined.shape[1]
    return [content[i : i + width] for i in range(0, len(content), width)]


def kinds(inputs: PyTree) -> str:
    """What two inputs have in common whose rows can be compared."""
    leaves, structure = jax.tree.flatten(inputs)
    return f"{structure} {[(str(leaf.dtype), leaf.shape[1:]) for leaf in leaves]}"


class RowDigests:
    """Those of the rows of an array that were asked for.

    Attributes:
        digests: [n, SIZE] bytes.
        present: [n], which of them there are.
    """

    def __init__(self, count: int):
        self.lock = threading.Lock()
        self.digests = np.zeros((count, SIZE), np.uint8)
        self.present = np.zeros(count, bool)


def _of_leaf(leaf: np.ndarray | Streamed, rows: np.ndarray) -> np.ndarray:
    """[m, SIZE] bytes."""
    version = b""
    if isinstance(leaf, Streamed):
        if (source := _source_of(leaf)) is not None:
            named = [hashlib.sha256(source + name).digest()[:SIZE] for name in leaf.names(rows)]
            return np.frombuffer(b"".join(named), np.uint8).reshape(-1, SIZE)
        version = leaf.version(np.arange(len(leaf)))
    versions = _rows.get(leaf, dict)
    whole = versions.setdefault(version, RowDigests(len(leaf)))
    with whole.lock:
        if len(missing := np.unique(rows[~whole.present[rows]])):
            whole.digests[missing] = _of_content(leaf, missing)
            whole.present[missing] = True
    return whole.digests[rows]


def _of_content(leaf: np.ndarray | Streamed, rows: np.ndarray) -> np.ndarray:
    row_bytes = max(1, int(np.prod(leaf.shape[1:])) * leaf.dtype.itemsize)
    step, digests = max(1, READ // row_bytes), []
    for start in range(0, len(rows), step):
        block = np.ascontiguousarray(leaf[rows[start : start + step]])
        content = memoryview(block.reshape(-1).view(np.uint8))
        size = len(content) // len(block)
        digests += [
            hashlib.sha256(content[i * size : (i + 1) * size]).digest()[:SIZE]
            for i in range(len(block))
        ]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, SIZE)


def _source_of(leaf: Streamed) -> bytes | None:
    """What made these rows, apart from their files; None if that cannot be told."""

    def digest() -> bytes | None:
        fingerprint = None if leaf.source is None else of_value(leaf.source)
        return None if fingerprint is None or fingerprint.opaque else fingerprint.digest.encode()

    return _sources.get(leaf, digest)


def combined(parts: Sequence[bytes]) -> str:
    """One digest of several, 32 hexadecimal digits."""
    lengths = np.array([*map(len, parts)], np.int64)
    return hashlib.sha256(b"".join([lengths.tobytes(), *parts])).hexdigest()[:32]
