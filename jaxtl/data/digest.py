"""What the rows that a stage reads hold, in 16 hexadecimal digits that tell edited data apart.

Arrays are taken by content, `Streamed` rows by their files and a sample. The digest of an array is
computed once as long as the array lives: nobody may write to what a table holds.
"""

import concurrent.futures
import hashlib
import math
import os
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtl.data.streamed import Streamed

PyTree = Any
BLOCK = 2**22  # bytes gathered and hashed at a time; digests depend on it
TEXTS = 2**14  # texts likewise
SAMPLE, SAMPLE_BYTES = 16, 2**26  # rows, and bytes of them, that are read of what is streamed


class Digest(NamedTuple):
    """Equal for equal data, in every process.

    Attributes:
        digest: 16 hexadecimal digits.
        sampled: whether not every byte was read.
    """

    digest: str
    sampled: bool


def of_rows(inputs: PyTree, rows: np.ndarray) -> Digest:
    """The digest of some rows of a table's inputs, and of their numbers.

    What stands in other rows does not matter. Numbers are compared by their bits.

    Args:
        inputs: pytree of [n, ...] arrays, of objects if they are texts, or `Streamed`. Of these
            count path, size and time of change of the rows' files, and a sample of the rows.
        rows: [m] int64, in the order in which they count.
    """
    leaves, structure = jax.tree.flatten(inputs)
    rows = np.ascontiguousarray(rows, np.int64)
    numbers = hashlib.sha256(rows).digest()
    parts = [str(structure).encode(), numbers]
    for leaf in leaves:
        streamed = isinstance(leaf, Streamed)
        version = leaf.version(rows) if streamed else b""
        digests, key = _remembered(leaf), (numbers, version)
        if key not in digests:
            digests[key] = _of_sample(leaf, rows) if streamed else _content(leaf, rows)
        parts += [_kind(leaf.dtype, leaf.shape[1:]), version, digests[key]]
    return Digest(_joined(parts).hex()[:16], any(isinstance(leaf, Streamed) for leaf in leaves))


def of_arrays(tree: PyTree) -> Digest:
    """The digest of all that small arrays hold, such as labels and weights, or of texts."""
    leaves, structure = jax.tree.flatten(tree)
    parts = [str(structure).encode()]
    for leaf in map(np.asarray, leaves):
        flat = leaf.reshape(-1)
        parts += [_kind(leaf.dtype, leaf.shape), _content(flat, np.arange(len(flat)))]
    return Digest(_joined(parts).hex()[:16], sampled=False)


_digests_of: dict[int, tuple[Callable[[], Any], dict[tuple[bytes, bytes], bytes]]] = {}


def _remembered(leaf: np.ndarray | Streamed) -> dict[tuple[bytes, bytes], bytes]:
    """{(rows, version): digest} so far, forgotten with the array; arrays cannot be hashed."""
    place = id(leaf)
    reference, digests = _digests_of.get(place, (lambda: None, {}))
    if reference() is not leaf:  # another array stood there
        reference, digests = weakref.ref(leaf, lambda _: _digests_of.pop(place, None)), {}
        _digests_of[place] = (reference, digests)
    return digests


def _of_sample(leaf: Streamed, rows: np.ndarray) -> bytes:
    """The digest of the first, the last and evenly spaced rows among those named."""
    row_bytes = math.prod(leaf.shape[1:]) * leaf.dtype.itemsize
    count = min(SAMPLE, max(2, SAMPLE_BYTES // max(1, row_bytes)), len(rows))
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
    return _content(leaf[chosen], np.arange(len(chosen)))


def _content(leaf: np.ndarray, rows: np.ndarray) -> bytes:
    """The digest of rows [m] of an array, from those of blocks, which threads hash."""
    texts = leaf.dtype.kind in "OUS"
    row_bytes = math.prod(leaf.shape[1:]) * leaf.dtype.itemsize
    size = TEXTS if texts else max(1, BLOCK // max(1, row_bytes))

    def block(start: int) -> bytes:
        part = rows[start : start + size]
        first, last = part[0], part[-1]
        consecutive = last - first == len(part) - 1 and bool((np.diff(part) == 1).all())
        values = leaf[first : last + 1] if consecutive else leaf[part]  # a view, or a copy
        if texts:
            return hashlib.sha256(_spelled(np.asarray(values, object))).digest()
        return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8)).digest()

    starts = range(0, len(rows), size)
    if texts or len(starts) == 1:
        return _joined(list(map(block, starts)))
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return _joined(list(threads.map(block, starts)))


def _spelled(values: np.ndarray) -> bytes:
    """Texts with their kinds and lengths, so that ["ab", "c"] is not ["a", "bc"]."""
    kinds, encoded = [], []
    for value in values.reshape(-1):
        if isinstance(value, str):
            kind, text = b"s", value.encode("utf-8", "surrogatepass")
        elif isinstance(value, bytes):
            kind, text = b"b", value
        else:
            kind, text = b"o", repr(value).encode()
        kinds.append(kind)
        encoded.append(text)
    lengths = np.array([*map(len, encoded)], np.int64)
    return b"".join([*kinds, lengths.tobytes(), *encoded])


def _kind(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Of an array; texts of any length are of one kind."""
    return f"{'text' if dtype.kind in 'OUS' else dtype}{list(shape)}".encode()


def _joined(parts: list[bytes]) -> bytes:
    lengths = np.array([*map(len, parts)], np.int64)
    return hashlib.sha256(b"".join([lengths.tobytes(), *parts])).digest()
