"""The features of one program with one set of weights, and where the rows are."""

import dataclasses
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np


@dataclasses.dataclass(eq=False)
class Block:
    """Features of rows that were computed or read together.

    Attributes:
        first: place of its first row among all rows of the entry.
        rows: how many.
        memory, disk: leaves [rows, ...] in memory, and mapped from a file; either may be missing.
    """

    first: int
    rows: int
    memory: list[np.ndarray] | None = None
    disk: list[np.ndarray] | None = None

    @property
    def leaves(self) -> list[np.ndarray]:
        return self.disk if self.memory is None else self.memory

    @property
    def nbytes(self) -> int:
        """In memory."""
        return sum(leaf.nbytes for leaf in self.memory or ())


class Entry:
    """All features of one program with one set of weights.

    Attributes:
        places: {digest of a row: its place}.
        blocks: where the features of the rows are, in the order of their places.
        seconds: of computing, for `computed` rows.
        is_shared: whether the key says the same in other processes.
        read_from: the folders whose shards are among the blocks.
        used: when, by the store's count.
    """

    def __init__(self, key: str, is_shared: bool):
        self.key, self.is_shared, self.lock = key, is_shared, threading.RLock()
        self.places: dict[bytes, int] = {}
        self.blocks: list[Block] = []
        self.count, self.computed, self.seconds = 0, 0, 0.0
        self.read_from: set[Path] = set()
        self.used = 0

    @property
    def seconds_per_row(self) -> float:
        return self.seconds / max(1, self.computed)

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self.blocks)

    def add(self, digests: Sequence[bytes], **leaves: list[np.ndarray]) -> Block:
        """A block more."""
        for values in itertools.chain(*leaves.values()):
            values.setflags(write=False)  # whoever asks gets views
        block = Block(self.count, len(digests), **leaves)
        self.blocks.append(block)
        self.places.update(zip(digests, range(self.count, self.count + block.rows), strict=True))
        self.count += block.rows
        return block

    def unwritten(self) -> list[Block]:
        return [block for block in self.blocks if block.disk is None]

    def digests_of(self, blocks: Sequence[Block]) -> np.ndarray:
        """[rows of the blocks, bytes] uint8."""
        names = list(self.places)  # in the order of their places
        chosen = [name for b in blocks for name in names[b.first : b.first + b.rows]]
        return np.frombuffer(b"".join(chosen), np.uint8).reshape(len(chosen), -1)

    def forget(self, blocks: Sequence[Block]) -> None:
        """Drop blocks, whose rows are then computed again."""
        names, remaining = list(self.places), [b for b in self.blocks if b not in blocks]
        self.places, self.blocks, self.count = {}, [], 0
        for block in remaining:
            parts = {"memory": block.memory, "disk": block.disk}
            digests = names[block.first : block.first + block.rows]
            self.add(digests, **{name: part for name, part in parts.items() if part is not None})

    def gather(self, places: np.ndarray) -> list[np.ndarray]:
        """Leaves [len(places), ...]; a view where the rows lie side by side in one block."""
        firsts = np.array([block.first for block in self.blocks])
        number = np.searchsorted(firsts, places, "right") - 1
        if len(places) and (number == number[0]).all() and (np.diff(places) == 1).all():
            start = places[0] - firsts[number[0]]
            return [leaf[start : start + len(places)] for leaf in self.blocks[number[0]].leaves]
        example = self.blocks[0].leaves
        result = [np.empty((len(places), *leaf.shape[1:]), leaf.dtype) for leaf in example]
        for i in np.unique(number):
            rows = np.flatnonzero(number == i)
            for leaf, values in zip(result, self.blocks[i].leaves, strict=True):
                leaf[rows] = values[places[rows] - firsts[i]]
        for leaf in result:
            leaf.setflags(write=False)
        return result
