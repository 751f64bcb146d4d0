"""The order of examples whose groups are drawn: a pure function of (seed, domain, position)."""

import threading

import numpy as np

from jaxtl.plan import Domain
from jaxtl.train.feed.order import Stream

BLOCK = 2**14
"""Positions whose groups are drawn by one generator."""


class TemperedStream:
    """Groups drawn at random, and the next row of each, addressed by position as in `Stream`.

    The groups of positions k * BLOCK ... are drawn by a generator of (seed, domain, k). How often
    each was drawn before is counted once and remembered, so that a run that resumes at a step
    reads on where it stopped. Threads may share it.

    Args:
        groups: rows of each, at least one row.
        temperature: probabilities are proportional to size^(1 / temperature).
        seed, domain: as in `Stream`, whose key has the group's number besides.
    """

    def __init__(self, groups: list[np.ndarray], temperature: float, seed: int, domain: int):
        self._streams = [
            Stream(rows, seed, domain + (number + 1 << 16)) for number, rows in enumerate(groups)
        ]
        self.probabilities = proportions([len(rows) for rows in groups], temperature)
        self._ends, self._key = np.cumsum(self.probabilities)[:-1], (seed, domain)
        self._counts = [np.zeros(len(groups), np.int64)]  # before each block
        self._lock = threading.Lock()

    def groups(self, block: int) -> np.ndarray:
        """[BLOCK] int: which group each position of a block is drawn from."""
        rng = np.random.default_rng((*self._key, ord("g"), block))
        return np.searchsorted(self._ends, rng.random(BLOCK), side="right")

    def _count(self, drawn: np.ndarray) -> np.ndarray:
        return np.bincount(drawn, minlength=len(self._streams))

    def _drawn_before(self, block: int) -> np.ndarray:
        """[groups]: how often each is drawn in the blocks before."""
        with self._lock:
            while len(self._counts) <= block:
                drawn = self.groups(len(self._counts) - 1)
                self._counts.append(self._counts[-1] + self._count(drawn))
            return self._counts[block]

    def read(self, start: int, count: int) -> np.ndarray:
        """[count] int32: the rows at positions start ... start + count - 1."""
        result = np.empty(count, np.int32)
        if not count:
            return result
        first, offset = divmod(start, BLOCK)
        blocks = range(first, (start + count - 1) // BLOCK + 1)
        drawn = np.concatenate([self.groups(block) for block in blocks])
        before = self._drawn_before(first) + self._count(drawn[:offset])
        drawn = drawn[offset : offset + count]
        for number, stream in enumerate(self._streams):
            places = np.flatnonzero(drawn == number)
            if len(places):
                result[places] = stream.read(int(before[number]), len(places))
        return result


def proportions(sizes: list[int], temperature: float) -> np.ndarray:
    """[groups] float64, proportional to size^(1 / temperature)."""
    powers = np.asarray(sizes, np.float64) ** (1 / temperature)
    return powers / powers.sum()


def stream_of(
    domain: Domain, seed: int, number: int, places: np.ndarray | None = None
) -> Stream | TemperedStream:
    """The order of the rows of one seed of a domain.

    Args:
        number: of the domain in its stage.
        places: what stands for each of these rows; the rows if None.
    """
    rows = domain.dataset.rows(seed)
    places = rows if places is None else places
    if domain.draw is None:
        return Stream(places, seed, number)
    labels = domain.dataset.table().column(domain.draw.groups)[rows]
    groups = [places[labels == group] for group in np.unique(labels)]
    return TemperedStream(groups, domain.draw.temperature, seed, number)
