"""Rows that stay on disk until they are asked for, in the place of an array of inputs."""

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxtl.data.sources.stamps import stamps

PyTree = Any
CHUNK = 2**22  # numbers looked at together in a pass over all rows
THREADS = min(8, os.cpu_count() or 1)
"""How many pages are read at a time, and ahead."""

logger = logging.getLogger(__name__)


class Streamed:
    """Inputs [n, ...] of which rows are read, again each time that they are asked for.

    A leaf of `Table.inputs`. It has the shape, dtype and length of an array, and
    `streamed[rows]`, for rows as NumPy takes them (an integer, a slice, integers of any shape or
    a mask), is an array in memory. A row that is named twice is read once.

    Args:
        shape, dtype: of the whole.
        read: rows [m] int64, ascending and distinct, m > 0 -> [m, ...] of that dtype. What it
            reads for a row depends on that row alone; it is called from several threads.
        files: what tells that the rows were changed: paths of the files that hold them, or a
            function, rows [m] int64 -> bytes that differ once these rows' files do.
        source: what besides its number and its files decides what a row holds, such as the
            function that decodes it and the arguments of that; None if nobody says.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        read: Callable[[np.ndarray], np.ndarray],
        files: Sequence[str | os.PathLike] | Callable[[np.ndarray], bytes] = (),
        source: Any = None,
    ):
        self.shape, self.dtype, self._read = tuple(shape), np.dtype(dtype), read
        self.version = files if callable(files) else lambda rows: stamps(files).version(slice(None))
        self.source = source
        self._names = self._own_names

    def _own_names(self, rows: np.ndarray) -> list[bytes]:
        return [self.version(rows[i : i + 1]) + rows[i].tobytes() for i in range(len(rows))]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Streamed({self.dtype}{list(self.shape)})"

    def __getitem__(self, rows: Any) -> np.ndarray:
        index = self._index(rows)
        if not index.size:
            return np.empty((*index.shape, *self.shape[1:]), self.dtype)
        distinct, places = np.unique(index, return_inverse=True)
        values = self._read(distinct)
        return values if np.array_equal(index, distinct) else values[places]

    def _index(self, rows: Any) -> np.ndarray:
        """Rows as integers from 0 to n - 1, of any shape."""
        n = len(self)
        if isinstance(rows, slice):
            return np.arange(*rows.indices(n))
        rows = np.asarray(rows)
        if rows.dtype == bool and rows.shape == (n,):
            return np.flatnonzero(rows)
        if rows.size and not np.issubdtype(rows.dtype, np.integer):
            raise IndexError(f"{self} is read by rows, got an index of dtype {rows.dtype}")
        rows = rows.astype(np.int64)
        if rows.size and not -n <= rows.min() <= rows.max() < n:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {self}")
        return np.where(rows < 0, rows + n, rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise ValueError(f"{self} is not held in memory; read some of its rows, as in inputs[:100]")

    def names(self, rows: Any) -> list[bytes] | None:
        """What tells each of these rows [m], as it is now, from all others of the same `source`.

        Nothing is read for it. None where there is no source.
        """
        return None if self.source is None else self._names(self._index(rows))

    def map(self, fn: Callable[[np.ndarray], np.ndarray]) -> "Streamed":
        """The result of `fn`, [m, ...] -> [m, ...] row by row, on what is read."""
        example = fn(self[:1])
        shape = (len(self), *example.shape[1:])
        source = None if self.source is None else (self.source, fn)
        made = Streamed(
            shape, example.dtype, lambda rows: fn(self._read(rows)), self.version, source
        )
        made._names = self._names
        return made

    def copies(self, count: int, fn: Callable[[np.ndarray, int], np.ndarray]) -> "Streamed":
        """The rows `count` times over; copy i, from row i * n on, is made by `fn(rows, i)`.

        Args:
            fn: [m, ...] of one dtype and shape to the same, row by row.
        """
        n = len(self)

        def read(rows: np.ndarray) -> np.ndarray:
            values = np.array(self[rows % n])
            for i in np.unique(rows // n):
                copied = rows // n == i
                values[copied] = fn(values[copied], i)
            return values

        def names(rows: np.ndarray) -> list[bytes]:
            return [
                name + bytes([i]) for name, i in zip(self._names(rows % n), rows // n, strict=True)
            ]

        source = None if self.source is None else (self.source, fn)
        made = Streamed(
            (count * n, *self.shape[1:]),
            self.dtype,
            read,
            lambda rows: self.version(rows % n),
            source,
        )
        made._names = names
        return made

    def select(self, rows: np.ndarray) -> "Streamed":
        """These rows (indices or a mask), as a view."""
        chosen = self._index(rows)
        view = Streamed(
            (len(chosen), *self.shape[1:]),
            self.dtype,
            lambda at: self[chosen[at]],
            lambda at: self.version(chosen[at]),
            self.source,
        )
        view._names = lambda at: self._names(chosen[at])
        return view


def rows_of_file(values: np.memmap, dtype: Any) -> Streamed:
    """The rows of a file that NumPy maps into memory, converted to a dtype."""
    files = () if values.filename is None else (values.filename,)
    return Streamed(values.shape, dtype, lambda rows: values[rows].astype(dtype, copy=False), files)


def select(inputs: PyTree, rows: np.ndarray) -> PyTree:
    """These rows (indices or a mask) of all leaves: copies in memory, views of what is streamed."""
    return jax.tree.map(lambda x: x.select(rows) if isinstance(x, Streamed) else x[rows], inputs)


def is_streamed(inputs: PyTree) -> bool:
    """Whether a leaf is."""
    return any(isinstance(leaf, Streamed) for leaf in jax.tree.leaves(inputs))


def chunks(leaf: np.ndarray | Streamed) -> Iterator[np.ndarray]:
    """All rows of a leaf, a few at a time."""
    rows = max(1, CHUNK // max(1, math.prod(leaf.shape[1:])))
    return (leaf[start : start + rows] for start in range(0, len(leaf), rows))


def read_ahead(
    load: Callable[[Any], Any], items: Iterable[Any], *, required: bool
) -> Iterator[Any]:
    """`map(load, items)`, computed ahead in threads by Grain.

    Args:
        required: False does without threads where grain is not installed.

    Raises:
        ValueError: grain is required, and not installed.
    """
    try:
        import grain
    except ImportError as error:
        if required:
            raise ValueError(
                "reading data that do not fit in memory needs grain. Install it with: "
                "pip install 'jaxtl[stream]'"
            ) from error
        return map(load, items)
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
    return _closing(iter(grain.MapDataset.source(list(items)).map(load).to_iter_dataset(options)))


def _closing(iterator: Any) -> Iterator[Any]:
    with contextlib.closing(iterator):
        yield from iterator


def stream(streamed: bool | None, nbytes: float, what: str) -> bool:
    """Whether to stream data of so many bytes: if asked to, or if half the memory is too small.

    Args:
        streamed: what the user says; None decides by the size.
        nbytes: of the decoded inputs.
        what: for the log.
    """
    half = physical_memory() / 2
    if streamed is None and nbytes > half:
        logger.info(
            "%s: %.1f GB of inputs are streamed, half of the memory is %.1f GB",
            *(what, nbytes / 2**30, half / 2**30),
        )
    return nbytes > half if streamed is None else streamed


def physical_memory() -> float:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
