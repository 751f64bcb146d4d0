"""Which rows an episode holds: a pure function of (seed, step), as the order of examples is."""

from collections.abc import Sequence

import numpy as np

from jaxtl.data import Dataset
from jaxtl.plan import Episodes

PADDING = -1
"""Stands in a block of rows where an episode has no example."""


class EpisodeOrder:
    """Episodes drawn anew for each step: classes uniformly, then rows of each class uniformly.

    Neither a class nor a row stands twice in an episode. The episodes of a step are drawn from a
    generator of their own, so that a run that resumes at a step reads on where it stopped.

    Args:
        groups: rows of each class, at least one; the smallest has enough for one episode.
        episodes: their form.
        seed: the run's.
        tasks: episodes of a step.
        use: another number gives other episodes.
    """

    def __init__(
        self,
        groups: Sequence[np.ndarray],
        episodes: Episodes,
        seed: int,
        tasks: int,
        use: int = 0,
    ):
        self._sizes = np.array([len(group) for group in groups])
        self._rows = np.concatenate(groups).astype(np.int32)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._episodes, self._key, self._tasks = episodes, (seed, ord("e"), use), tasks

    @property
    def width(self) -> int:
        """Rows of an episode, padding included."""
        return len(self._episodes.roles)

    def block(self, step: int, num_steps: int) -> np.ndarray:
        """[num_steps, tasks, rows of an episode] int32; `PADDING` where there is none.

        The support stands first, both parts class after class.
        """
        form, tasks, steps = self._episodes, self._tasks, range(step, step + num_steps)
        # What is drawn is a generator's of each step; all else is done for all steps at once.
        rngs = [np.random.default_rng((*self._key, each)) for each in steps]
        ways, shots = (
            np.stack([rng.integers(least, most + 1, tasks) for rng in rngs])
            for least, most in (
                (form.fewest_ways, form.most_ways),
                (form.fewest_shots, form.most_shots),
            )
        )
        classes = distinct(rngs, np.full((num_steps, tasks), len(self._sizes)), form.most_ways)
        count = form.most_shots + form.queries
        # A class that is too small for the most shots gives as many as it has.
        places = distinct(rngs, self._sizes[classes], count)
        rows = self._rows[self._starts[classes][..., None] + places]
        number = np.arange(count) - form.most_shots  # queries from 0 on, the support below
        present = (number >= 0) | (number + form.most_shots < shots[..., None])
        present = present[..., None, :] & (np.arange(form.most_ways) < ways[..., None])[..., None]
        rows = np.where(present, rows, PADDING)
        parts = np.split(rows, [form.most_shots], axis=-1)
        flat = [part.reshape(num_steps, tasks, -1) for part in parts]
        return np.concatenate(flat, axis=-1, dtype=np.int32)


def groups_of(dataset: Dataset, episodes: Episodes, seed: int) -> list[np.ndarray]:
    """The rows of each class that a seed has of a dataset; rows without a class are in none."""
    rows = dataset.rows(seed)
    classes = np.asarray(dataset.table().labels[episodes.groups])[rows]
    order = np.argsort(classes, kind="stable")
    numbers, starts = np.unique(classes[order], return_index=True)
    parts = np.split(rows[order], starts[1:])
    return [part for number, part in zip(numbers, parts, strict=True) if number >= 0]


def distinct(rngs: Sequence[np.random.Generator], sizes: np.ndarray, count: int) -> np.ndarray:
    """[steps, ..., count] integers below each of `sizes`, uniform, none of them twice.

    It takes the same time for large sizes as for small ones.

    Args:
        rngs: of each step.
        sizes: [steps, ...].
    """
    drawn = [
        [rng.integers(0, of_step - i) for i in range(count)]
        for rng, of_step in zip(rngs, sizes, strict=True)
    ]
    chosen = np.moveaxis(np.array(drawn), 1, 0)  # [count, steps, ...]
    earlier = np.empty_like(chosen)  # sorted
    for i, value in enumerate(chosen):
        # The value-th of those that are not chosen yet.
        for each in earlier[:i]:
            value += value >= each
        earlier[i] = value
        earlier[: i + 1].sort(axis=0)
    return np.moveaxis(chosen, 0, -1)
