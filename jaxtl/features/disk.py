"""Features on disk, `<folder>/<key>/<shard>/`: whole or not there, checked before they are used.

A key says which program with which weights made them, a shard holds some rows. Any number of
processes read and write at the same time; whatever lies there may be deleted at any time.
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxtl.files import Damaged, atomically, checksums, read_json

logger = logging.getLogger(__name__)

RECORD, ROWS, PARTIAL, README = "shard.json", "rows.npy", ".partial", "README.txt"
ABANDONED_SECONDS = 24 * 3600
"""When a half-written shard is nobody's any more, if its process is not of this host."""
ABOUT = """\
Features (the outputs of frozen layers) that jaxtl has computed, so that it need not do so again.
One folder for each model with its weights; the longest unused ones are removed when all of them
take more than --run.feature_folder_mb allows. Everything in this folder may be deleted at any time.
"""


class Shard(NamedTuple):
    """Features of some rows, mapped from their files.

    Attributes:
        digests: [m, bytes] uint8, of the rows.
        leaves: [m, ...] arrays.
        seconds_per_row: what they took to compute.
    """

    digests: np.ndarray
    leaves: list[np.ndarray]
    seconds_per_row: float


class Disk:
    """A folder of features.

    Args:
        root: the folder, made when something is written.
        most: bytes that it may hold; keys that nobody used for longest are removed before more is
            written, but never those that this process used.
    """

    def __init__(self, root: Path, most: float):
        self.root, self.most = root, most
        self._used: set[str] = set()
        self._warned = self._is_clean = False

    def read(self, key: str) -> list[Shard]:
        """The whole shards of a key; one that is damaged is removed, with a line."""
        self._used.add(key)
        folder, shards = self.root / key, []
        try:
            places = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as error:
            self._warn(error)
            return []
        with contextlib.suppress(OSError):  # somebody else's folder can be read as well
            os.utime(folder)  # by which the longest unused are known
        for place in places:
            try:
                shards.append(_read(place))
            except (Damaged, FileNotFoundError, NotADirectoryError) as error:
                if place.exists():  # else another process has removed it
                    logger.warning("features in %s are computed again: %s", place, error)
                    self._discard(place)
            except OSError as error:
                self._warn(error)
        return shards

    def write(
        self,
        key: str,
        digests: np.ndarray,
        leaves: Sequence[np.ndarray],
        seconds_per_row: float,
        about: str,
    ) -> list[np.ndarray] | None:
        """The leaves as they now lie on disk; None, with one warning, where they cannot.

        Args:
            digests: [m, bytes] uint8.
            leaves: [m, ...] arrays.
            about: what they are, for people.
        """
        self._used.add(key)
        size = sum(leaf.nbytes for leaf in (digests, *leaves))
        partial = self.root / key / f"{PARTIAL}-{socket.gethostname()}-{os.getpid()}-{_unique()}"
        try:
            self._begin()
            if not self._make_room(size):
                return None
            partial.mkdir(parents=True)
            _save(partial / ROWS, digests)
            for i, leaf in enumerate(leaves):
                _save(partial / f"{i}.npy", leaf)
            sums = dict(checksums(partial, [ROWS, *(f"{i}.npy" for i in range(len(leaves)))]))
            record = {"about": about, "rows": len(digests), "seconds_per_row": seconds_per_row}
            text = json.dumps({**record, "checksums": sums}, indent=1)
            (partial / RECORD).write_text(text + "\n", encoding="utf-8")
            place = partial.with_name(_unique())
            partial.rename(place)
            return _mapped(place, len(leaves))
        except OSError as error:
            self._warn(error)
            return None
        finally:
            if partial.exists():
                shutil.rmtree(partial, ignore_errors=True)

    def _begin(self) -> None:
        """Before the first shard of this process: say what the folder is, and clean it up."""
        if self._is_clean:
            return
        self._is_clean = True
        if not (path := self.root / README).exists():
            with atomically(path) as partial:
                partial.write_text(ABOUT, encoding="utf-8")
        for path in [*self.root.glob(f"{PARTIAL}-*"), *self.root.glob(f"*/{PARTIAL}-*")]:
            if _is_abandoned(path):
                shutil.rmtree(path, ignore_errors=True)

    def _make_room(self, size: int) -> bool:
        """Whether so many bytes may be written, after the longest unused keys were removed."""
        keys = list(self._keys())
        sizes = {path: _size(path) for _, path in keys}
        total = sum(sizes.values()) + size
        idle = sorted(entry for entry in keys if entry[1].name not in self._used)
        if total - sum(sizes[path] for _, path in idle) > self.most:
            self._warn(f"they take more than {self.most / 2**20:.0f} MB")
            return False
        for _, path in idle:
            if total <= self.most:
                break
            logger.info("features in %s are removed: others were used later", path)
            total -= sizes[path]
            self._discard(path)
        return True

    def _keys(self) -> Iterator[tuple[float, Path]]:
        """(when it was used last, folder) of each."""
        with os.scandir(self.root) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.stat().st_mtime, Path(entry.path)

    def _discard(self, path: Path) -> None:
        """Remove a folder at once: what reads it finds all of it or nothing."""
        rubbish = self.root / f"{PARTIAL}-{socket.gethostname()}-{os.getpid()}-{_unique()}"
        with contextlib.suppress(OSError):
            path.rename(rubbish)
            if rubbish.is_dir():
                shutil.rmtree(rubbish, ignore_errors=True)
            else:
                rubbish.unlink()

    def _warn(self, reason: OSError | str) -> None:
        """Once: a full disk is full for all that follows."""
        if not self._warned:
            words = reason if isinstance(reason, str) else reason.strerror or str(reason)
            logger.warning("not all features are kept in %s for later runs: %s", self.root, words)
        self._warned = True


def _save(path: Path, values: np.ndarray) -> None:
    """As `np.save`, which says nothing where a full disk takes a part only."""
    values = np.ascontiguousarray(values)
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(values)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(values.reshape(-1).view(np.uint8))


def _unique() -> str:
    return uuid.uuid4().hex[:12]


def _size(folder: Path) -> int:
    """Bytes of the files below a folder, as long as they are there."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def _read(place: Path) -> Shard:
    """A shard that is as it was written.

    Raises:
        Damaged: it is not.
        OSError: it cannot be read.
    """
    record = read_json(place / RECORD, {"rows": int, "seconds_per_row": float, "checksums": dict})
    if record is None:
        raise Damaged(f"{place / RECORD} is missing")
    count = len(record["checksums"]) - 1
    if record["checksums"].keys() != {ROWS, *(f"{i}.npy" for i in range(count))}:
        raise Damaged(f"{RECORD} names other files")
    for name, sums in checksums(place, record["checksums"]):
        if sums != record["checksums"][name]:
            raise Damaged(f"{name} is not as it was written")
    try:
        arrays = _mapped(place, count)
        digests = np.load(place / ROWS)
    except ValueError as error:
        raise Damaged(str(error)) from error
    if {len(array) for array in (digests, *arrays)} != {record["rows"]}:
        raise Damaged("its arrays differ in length")
    return Shard(digests, arrays, record["seconds_per_row"])


def _mapped(place: Path, count: int) -> list[np.ndarray]:
    return [np.load(place / f"{i}.npy", mmap_mode="r") for i in range(count)]


def _is_abandoned(partial: Path) -> bool:
    """Whether the process that wrote it is gone."""
    host, _, rest = partial.name.removeprefix(f"{PARTIAL}-").rpartition("-")[0].rpartition("-")
    try:
        if host == socket.gethostname() and rest.isdecimal():
            os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    try:
        return time.time() - partial.stat().st_mtime > ABANDONED_SECONDS
    except OSError:
        return False
