"""Features that are computed once: of a model's deterministic first blocks, row by row.

Which program, which weights and which rows they are of is decided by digests, never by names. They
are kept in memory as long as there is room and, where computing them takes longer than reading
them, on disk for later processes.
"""

import dataclasses
import itertools
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtl.features.computing import is_split, prepare
from jaxtl.features.digests import combined, kinds, row_digests, weights_digest
from jaxtl.features.disk import Disk
from jaxtl.features.entries import Entry
from jaxtl.features.programs import Program, surroundings, trace
from jaxtl.plan import Model, Params, PyTree, Statistics

MOST_BYTES = 2**31
"""In memory, unless a run says otherwise."""
LEAST_BYTES = 2**26
"""In memory, whatever a run says."""
WRITE_SECONDS, READ_BYTES_PER_SECOND = 0.25, 2e8
"""What is computed faster than it is read from disk, or in less time altogether, is not kept there:
seconds of a shard, and bytes a second."""
SAVE_SECONDS = 20.0
"""Computing of so many seconds is written to disk before more is done, so that it is not lost."""


@dataclasses.dataclass
class Counts:
    """What a store has done.

    Attributes:
        computed: rows whose features were computed.
        from_memory, from_disk: rows whose features were there.
        seconds_computing, seconds_saved: what the former took, and the latter would have taken.
    """

    computed: int = 0
    from_memory: int = 0
    from_disk: int = 0
    seconds_computing: float = 0.0
    seconds_saved: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Counts(*map(sum, pairs))


class FeatureStore:
    """Features by digest, for any number of threads; see `features`.

    Args:
        folder: on disk, shared by processes; None to keep nothing there.
        folder_bytes: that the folder may hold, the longest unused are removed first.
        memory_bytes: that features may take in memory while nobody holds them; at least
            `LEAST_BYTES`. What exceeds it is mapped from disk or computed again.
    """

    def __init__(
        self,
        folder: Path | None = None,
        folder_bytes: float = 10 * 2**30,
        memory_bytes: float = MOST_BYTES,
    ):
        self.counts = Counts()
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._uses = itertools.count(1)
        self.keep_in(folder, folder_bytes, memory_bytes)

    def keep_in(self, folder: Path | None, folder_bytes: float, memory_bytes: float) -> None:
        """Use another folder, and other limits, from now on; what is in memory stays."""
        self.folder, self.folder_bytes, self.memory_bytes = folder, folder_bytes, memory_bytes
        self._disk = None if folder is None else Disk(folder, folder_bytes)

    def features(
        self,
        first: Model,
        params: Params,
        statistics: Statistics,
        inputs: PyTree,
        rows: np.ndarray,
        *,
        train: bool = False,
    ) -> PyTree:
        """What the model puts out as features for some rows, computed for those not asked before.

        The same bits, whatever was asked before and whichever rows are asked for together. Several
        processes of one run compute, read and write each for itself.

        Args:
            first: deterministic first blocks of a model, such as `model.cut(block)[0]`; each row's
                features depend on that row alone.
            params, statistics: of ONE replica; it reads what it needs. `digests.row_of` takes them
                out of a stack so that their digests are remembered.
            inputs: leaves [n, ...] of a table, in memory or streamed; nobody writes to them.
            rows: [m] from 0 to n - 1, in any order.
            train: as in training, where its outputs must be as deterministic.

        Returns:
            Leaves [m, ...], NumPy arrays that nobody may write to; all in memory, or views of
            files: ask for no more rows at a time than there is memory for.

        Raises:
            ValueError: features depend on a random key.
        """
        program = trace(first, params, statistics, inputs, train=train)
        if program.is_random:
            raise ValueError("features that depend on random numbers cannot be computed once")
        leaves = program.leaves_of(params, statistics)
        form = jax.tree.structure(program.features)
        rows = np.asarray(rows, np.int64)
        if not len(rows):
            shapes = [(0, *leaf.shape[1:]) for leaf in jax.tree.leaves(program.features)]
            dtypes = [leaf.dtype for leaf in jax.tree.leaves(program.features)]
            return form.unflatten(map(np.zeros, shapes, dtypes))
        if not program.multiplies:
            return form.unflatten(self._look_up(program, leaves, inputs, rows))
        entry = self._entry(_key(program, leaves, inputs), program.is_shared)
        with entry.lock:
            self._read(entry, program)
            digests = row_digests(inputs, rows)
            # A row that stands twice, or in two tables, is computed once.
            pairs = zip(digests, rows, strict=True)
            missing = {name: row for name, row in pairs if name not in entry.places}
            if missing:
                self._compute(entry, program, leaves, inputs, missing)
            places = np.array([entry.places[name] for name in digests])
            result = entry.gather(places)
            self._count(entry, places[[name not in missing for name in digests]])
        self._make_room()
        return form.unflatten(result)

    def flush(self) -> None:
        """Write to disk what is worth it and is not there yet."""
        for entry in list(self._entries.values()):
            with entry.lock:
                self._write(entry)

    def _look_up(
        self, program: Program, leaves: Sequence[Any], inputs: PyTree, rows: np.ndarray
    ) -> list[np.ndarray]:
        """Features that are computed faster than they are found, such as an embedding's."""
        parts = list(prepare(program, leaves, inputs, rows)())
        with self._lock:
            self.counts.computed += len(rows)
        return [np.concatenate(column)[: len(rows)] for column in zip(*parts, strict=True)]

    def _entry(self, key: str, is_shared: bool) -> Entry:
        with self._lock:
            entry = self._entries.setdefault(key, Entry(key, is_shared))
            entry.used = next(self._uses)
            return entry

    def _read(self, entry: Entry, program: Program) -> None:
        """Add what the folder holds, the first time that it is asked for."""
        if self._disk is None or not entry.is_shared or self.folder in entry.read_from:
            return
        entry.read_from.add(self.folder)
        expected = jax.tree.leaves(program.features)
        for shard in self._disk.read(entry.key):
            pairs = zip(shard.leaves, expected, strict=False)
            leaves = [_typed(values, leaf.dtype) for values, leaf in pairs]
            shapes = [(x.shape[1:], x.dtype) for x in leaves]
            if shapes != [(x.shape[1:], x.dtype) for x in expected]:
                continue  # of another version of ours
            names = [row.tobytes() for row in shard.digests]
            new = np.array([name not in entry.places for name in names], bool)
            if new.all() and len(set(names)) == len(names):
                entry.add(names, disk=leaves)
            elif new.any():  # two processes computed some of the rows at the same time
                chosen = list({name: i for i, name in enumerate(names) if new[i]}.values())
                entry.add([names[i] for i in chosen], disk=[leaf[chosen] for leaf in leaves])
            if not entry.computed:
                entry.computed, entry.seconds = 1, shard.seconds_per_row

    def _compute(
        self,
        entry: Entry,
        program: Program,
        leaves: Sequence[Any],
        inputs: PyTree,
        missing: dict[bytes, int],
    ) -> None:
        """Add the features of rows, block by block: {digest: row}."""
        names, rows = list(missing), np.fromiter(missing.values(), np.int64)
        batches = prepare(program, leaves, inputs, rows)  # compiling is no part of the time
        begun, parts, done, saved = time.perf_counter(), [], 0, 0
        for values in batches():
            parts.append([leaf[: len(rows) - done] for leaf in values])
            done += len(parts[-1][0])
            seconds = time.perf_counter() - begun
            if done < len(rows) and seconds < SAVE_SECONDS:
                continue
            entry.add(names[saved:done], memory=list(map(np.concatenate, zip(*parts, strict=True))))
            entry.computed, entry.seconds = entry.computed + done - saved, entry.seconds + seconds
            with self._lock:
                self.counts.computed += done - saved
                self.counts.seconds_computing += seconds
            if seconds >= SAVE_SECONDS:
                self._write(entry)
            begun, parts, saved = time.perf_counter(), [], done

    def _count(self, entry: Entry, places: np.ndarray) -> None:
        """Rows that were there before."""
        on_disk = [block.memory is None for block in entry.blocks]
        firsts = [block.first for block in entry.blocks]
        from_disk = int(np.array(on_disk)[np.searchsorted(firsts, places, "right") - 1].sum())
        with self._lock:
            self.counts.from_disk += from_disk
            self.counts.from_memory += len(places) - from_disk
            self.counts.seconds_saved += len(places) * entry.seconds_per_row

    def _write(self, entry: Entry) -> None:
        """Write the blocks of an entry that are not on disk, if that is worth it."""
        blocks = entry.unwritten()
        rows, size = sum(block.rows for block in blocks), sum(block.nbytes for block in blocks)
        worth = rows * entry.seconds_per_row > WRITE_SECONDS + size / READ_BYTES_PER_SECOND
        if self.folder not in entry.read_from or not worth:
            return  # it was not asked for since this is the folder
        leaves = list(map(np.concatenate, zip(*(b.memory for b in blocks), strict=True)))
        shapes = ", ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in leaves)
        about = f"{shapes} for each of {rows} rows, by jaxtl on {jax.default_backend()}"
        digests = entry.digests_of(blocks)
        mapped = self._disk.write(entry.key, digests, leaves, entry.seconds_per_row, about)
        if mapped is None:
            return
        mapped = [_typed(values, leaf.dtype) for values, leaf in zip(mapped, leaves, strict=True)]
        start = 0
        for block in blocks:
            block.disk = [values[start : start + block.rows] for values in mapped]
            start += block.rows

    def _make_room(self) -> None:
        """Free memory beyond the limit; what was used least recently goes first."""
        most = max(self.memory_bytes, LEAST_BYTES)
        with self._lock:
            entries = sorted(self._entries.values(), key=lambda entry: entry.used)
        total = sum(entry.nbytes for entry in entries)
        for entry in entries:
            if total <= most:
                return
            if not entry.lock.acquire(blocking=False):
                continue  # another thread is at work there, and comes by later
            try:
                before = entry.nbytes
                self._write(entry)
                entry.forget(entry.unwritten())
                for block in entry.blocks:
                    block.memory = None
                total -= before
            finally:
                entry.lock.release()


def _key(program: Program, leaves: Sequence[Any], inputs: PyTree) -> str:
    """32 hexadecimal digits: equal keys and equal rows, equal bits."""
    devices = [len(leaf.sharding.device_set) for leaf in leaves if is_split(leaf)]
    words = [program.identity, surroundings(), kinds(inputs), str(max(devices, default=1))]
    return combined([*(word.encode() for word in words), *map(weights_digest, leaves)])


def _typed(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """What was read from a file of NumPy, which knows no bfloat16, as what was written."""
    return values.view(dtype) if values.dtype.kind == "V" else values
