"""What tells that files were changed."""

import hashlib
import os
import time
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

RESOLUTION = 10_000_000  # ns within which two changes of a file may bear the same time


class Stamps(NamedTuple):
    """Files and folders as they were at some time.

    Attributes:
        paths: [n], as they were given.
        numbers: [n, 3] int64: CRC-32 of the absolute path, bytes, time of change in ns; the latter
            two are -1 where there is nothing.
    """

    paths: list[str]
    numbers: np.ndarray

    def version(self, rows: np.ndarray) -> bytes:
        """32 bytes that differ once the path, size or time of one of these files [m] does."""
        return hashlib.sha256(np.ascontiguousarray(self.numbers[rows])).digest()


def stamps(paths: Iterable[str | os.PathLike]) -> Stamps:
    """The stamps of files and folders as they are now.

    Waits until one more change would show, at most `RESOLUTION`.
    """
    paths = list(map(os.fsdecode, paths))
    numbers = np.array([*map(_stamp, paths)], np.int64).reshape(-1, 3)
    age = time.time_ns() - numbers[:, 2]
    if (young := age[(age >= 0) & (age < RESOLUTION)]).size:
        time.sleep((RESOLUTION - young.min()) / 1e9)
        numbers = np.array([*map(_stamp, paths)], np.int64)
    return Stamps(paths, numbers)


def has_changed(before: Stamps) -> bool:
    """Whether a file is not as it was."""
    return not np.array_equal(stamps(before.paths).numbers, before.numbers)


def _stamp(path: str) -> tuple[int, int, int]:
    name = zlib.crc32(os.fsencode(os.path.abspath(path)))
    try:
        status = os.stat(path)
    except OSError:  # whoever reads it says so
        return name, -1, -1
    return name, status.st_size, status.st_mtime_ns
