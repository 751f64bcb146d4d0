"""The order of the examples: a pure function of (seed, domain, position)."""

import numpy as np


class Stream:
    """Endless reshuffled epochs over the rows of one domain, addressed by position.

    Position p is element p % n of the permutation of epoch p // n, so a batch may span epochs and
    a run that resumes at a step reads on exactly where it stopped. Threads may share it.

    Args:
        rows: [n] int, the examples of this seed; n > 0.
        seed: the run's seed.
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
        n, parts, position = len(self._rows), [], start
        while position < start + count:
            epoch, offset = divmod(position, n)
            part = self._permutation(epoch)[offset : offset + start + count - position]
            parts.append(part)
            position += len(part)
        return np.concatenate(parts)


def index_block(
    streams: list[list[Stream]], step: int, num_steps: int, batch_size: int
) -> np.ndarray:
    """Rows of the batches of `num_steps` steps, for all seeds and domains.

    Args:
        streams: [seeds][domains].
        step: the first step.

    Returns:
        [seeds, num_steps, batch_size, domains] int32.
    """
    start, count = step * batch_size, num_steps * batch_size
    block = np.stack([[s.read(start, count) for s in domains] for domains in streams])
    block = block.reshape(*block.shape[:2], num_steps, batch_size)
    return np.ascontiguousarray(block.transpose(0, 2, 3, 1))
