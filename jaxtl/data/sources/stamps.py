"""What tells that files were changed."""

import hashlib
import os
import time
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

RESOLUTION = 10_000_000  # ns within which two changes of a file may bear the same time


class Stamps(NamedTuple):
    """Files and folders as they were at some time.

    Attributes:
        paths: [n], absolute.
        numbers: [n, 2] int64, bytes and time of change in ns; -1 where there is nothing.
    """

    paths: list[str]
    numbers: np.ndarray

    def version(self, rows: np.ndarray | None = None) -> bytes:
        """32 bytes that differ once one of these files (of all, if None) does."""
        chosen = range(len(self.paths)) if rows is None else rows
        paths = "\0".join([*(self.paths[i] for i in chosen), ""])
        numbers = self.numbers if rows is None else self.numbers[rows]
        return hashlib.sha256(os.fsencode(paths) + numbers.tobytes()).digest()


def stamps(paths: Iterable[str | os.PathLike]) -> Stamps:
    """The stamps of files and folders as they are now.

    Waits until one more change would show, at most `RESOLUTION`.
    """
    absolute = [os.path.abspath(path) for path in paths]
    numbers = np.array([*map(_size_and_time, absolute)], np.int64).reshape(-1, 2)
    age = time.time_ns() - numbers[:, 1]
    if (young := age[(age >= 0) & (age < RESOLUTION)]).size:
        time.sleep((RESOLUTION - young.min()) / 1e9)
        numbers = np.array([*map(_size_and_time, absolute)], np.int64)
    return Stamps(absolute, numbers)


def has_changed(before: Stamps) -> bool:
    """Whether a file is not as it was."""
    return not np.array_equal(stamps(before.paths).numbers, before.numbers)


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # whoever reads it says so
        return -1, -1
    return status.st_size, status.st_mtime_ns
