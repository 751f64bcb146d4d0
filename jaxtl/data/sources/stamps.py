"""What tells that files were changed, so that a handle made afterwards reads them again."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np


def stamp(path: str | os.PathLike) -> tuple[tuple[str, int, int], ...]:
    """(name, size, time of change) of a file, or of a folder and of what stands in it directly."""
    place = Path(path)
    try:
        places = [place, *sorted(place.iterdir())] if place.is_dir() else [place]
        stats = [(entry.name, entry.stat()) for entry in places if entry.exists()]
    except OSError:  # whoever reads it says so
        return ()
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in stats)


class Stamps(NamedTuple):
    """What tells that files were changed.

    Attributes:
        paths: [n], absolute.
        numbers: [n, 2] int64, bytes and time of change in ns; -1 where no file can be looked at.
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
    """The stamps of files and folders as they are now."""
    absolute = [os.path.abspath(path) for path in paths]
    numbers = []
    for path in absolute:
        try:
            status = os.stat(path)
        except OSError:  # whoever reads it says so
            numbers.append((-1, -1))
        else:
            numbers.append((status.st_size, status.st_mtime_ns))
    return Stamps(absolute, np.array(numbers, np.int64).reshape(-1, 2))
