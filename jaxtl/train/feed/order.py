"""The order of the examples: a pure function of (seed, domain, position)."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxtl.train.feed.episodes import EpisodeOrder

ALIGNMENT = 64
FEW = 8
"""Epochs below which NumPy's own constructors are faster than seeding all of them at once."""


class Stream:
    """Endless reshuffled epochs over the rows of one domain, addressed by position.

    Position p is element p % n of the permutation of epoch p // n, which is
    `np.random.default_rng((seed, domain, epoch)).permutation(rows)`: a batch may span epochs, and a
    run that resumes at a step reads on exactly where it stopped. Threads may share it.

    Args:
        rows: [n] int, the examples of this seed; n > 0.
        seed: the run's seed, below 2**32.
        domain: position of the domain in its stage.
    """

    def __init__(self, rows: np.ndarray, seed: int, domain: int):
        self._rows = np.asarray(rows, np.int32)
        self._key = (seed, domain)
        self._latest = (-1, self._rows)  # one value: threads may read different epochs

    def _permutation(self, epoch: int) -> np.ndarray:
        latest, permuted = self._latest
        if epoch != latest:
            permuted = np.random.default_rng((*self._key, epoch)).permutation(self._rows)
            self._latest = epoch, permuted
        return permuted

    def read(self, start: int, count: int) -> np.ndarray:
        """[count] int32: the rows at positions start ... start + count - 1."""
        n, result = len(self._rows), np.empty(count, np.int32)
        epoch, offset = divmod(start, n)
        head = min(n - offset, count)
        whole, tail = divmod(count - head, n)
        result[:head] = self._permutation(epoch)[offset : offset + head]
        middle = result[head : count - tail].reshape(whole, n)
        middle[:] = self._rows
        for permuted, rng in zip(middle, generators(*self._key, epoch + 1, whole), strict=True):
            rng.shuffle(permuted)
        if tail:
            result[count - tail :] = self._permutation(epoch + 1 + whole)[:tail]
        return result


def index_block(
    streams: Sequence[Sequence[Stream] | EpisodeOrder],
    step: int,
    num_steps: int,
    batch_size: int,
    length: int | None = None,
) -> np.ndarray:
    """Rows of the batches of `num_steps` steps, for all seeds and domains.

    Args:
        streams: [seeds][domains], or the episodes of each seed; replicas of one seed share them.
        step: the first step.
        length: of the block, at least `num_steps`; what lies beyond them is 0.

    Returns:
        [seeds, length, batch_size, domains] int32; [seeds, length, tasks, rows] of episodes.
    """
    start, count = step * batch_size, num_steps * batch_size
    first = streams[0]
    width = first.width if isinstance(first, EpisodeOrder) else len(first)
    shape = (len(streams), length or num_steps, batch_size, width)
    block, places = _zeros(shape), {}
    for i, domains in enumerate(streams):
        same = places.setdefault(id(domains), i)
        if same < i:
            block[i, :num_steps] = block[same, :num_steps]
            continue
        if isinstance(domains, EpisodeOrder):
            block[i, :num_steps] = domains.block(step, num_steps)
            continue
        for d, stream in enumerate(domains):
            rows = stream.read(start, count)
            block[i, :num_steps, :, d] = rows.reshape(num_steps, batch_size)
    return block


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
    """int32 zeros that a CPU device takes as they lie: XLA copies what is not aligned.

    Memory that nobody touches is not even there, so a long block costs what is filled of it.
    """
    memory = np.zeros(math.prod(shape) * 4 + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + math.prod(shape) * 4].view(np.int32).reshape(shape)


def generators(seed: int, domain: int, epoch: int, count: int) -> Iterator[np.random.Generator]:
    """`np.random.default_rng((seed, domain, e))` for e = epoch ... epoch + count - 1, in turn.

    One object serves for all: constructing each takes longer than shuffling a few hundred rows.
    """
    if count < FEW:
        for e in range(epoch, epoch + count):
            yield np.random.default_rng((seed, domain, e))
        return
    bits = np.random.PCG64(0)
    rng = np.random.Generator(bits)
    for high, low, inc_high, inc_low in _seed_words(seed, domain, epoch, count).tolist():
        # O'Neill's seeding of PCG64: a step, the seed added, another step.
        increment = ((inc_high << 64 | inc_low) << 1 | 1) & MASK
        state = ((increment + (high << 64 | low)) * MULTIPLIER + increment) & MASK
        bits.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": increment},
            "has_uint32": 0,
            "uinteger": 0,
        }
        yield rng


MASK = 2**128 - 1
MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
POOL, WORDS = 4, 8


def _seed_words(seed: int, domain: int, epoch: int, count: int) -> np.ndarray:
    """[count, 4] uint64, `np.random.SeedSequence((seed, domain, e)).generate_state(4, "uint64")`.

    Its hash (O'Neill's seed_seq_fe, whose results NumPy promises to keep) for all epochs at once.
    """
    entropy = np.zeros((POOL, count), np.uint32)
    entropy[0], entropy[1], entropy[2] = seed, domain, np.arange(epoch, epoch + count)
    scramble = _hash(0x43B0D7E5, 0x931E8875)
    pool = [scramble(word) for word in entropy]
    for source in range(POOL):
        for target in sorted(set(range(POOL)) - {source}):
            mixed = np.uint32(0xCA01F9DD) * pool[target]
            mixed -= np.uint32(0x4973F715) * scramble(pool[source])
            pool[target] = mixed ^ mixed >> np.uint32(16)
    scramble = _hash(0x8B51F9DD, 0x58F38DED)
    words = [scramble(pool[i % POOL]).astype(np.uint64) for i in range(WORDS)]
    pairs = zip(words[::2], words[1::2], strict=True)
    return np.stack([low | high << np.uint64(32) for low, high in pairs], axis=1)


def _hash(constant: int, factor: int) -> Callable[[np.ndarray], np.ndarray]:
    """A hash of uint32 numbers that is another one at each call."""

    def scramble(word: np.ndarray) -> np.ndarray:
        nonlocal constant
        word = word ^ np.uint32(constant)
        constant = constant * factor % 2**32
        word *= np.uint32(constant)
        return word ^ word >> np.uint32(16)

    return scramble
