"""Which steps each dispatch takes, and when the state is saved.

Many small steps go into one call, so that nothing is done in Python at each of them. How many is
measured while a stage runs: the compiled program takes the number as an argument, so it is compiled
once, and what it computes depends on it in no bit.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax

from jaxtl.plan import PyTree, Stage
from jaxtl.train.mesh import from_primary
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.stage import lead_of

SECONDS = 0.05
"""How long a dispatch should take. A signal waits for two, which are under way when it comes."""
SHARE = 10
"""Saving by time holds the training up for at most about one part in so many."""
BLOCK_BYTES = 2**22
"""Most bytes of the indices and metrics of a dispatch."""
FEWEST, MOST = 16, 2**14
"""Least and most steps that there is room for in a dispatch."""
METRICS = 8
"""About how many numbers a step logs."""


class Dispatch(NamedTuple):
    """Some steps that the device has been given.

    Attributes:
        first, count: the first step, and how many.
        metrics: {metric: [replicas, steps]}, of which those beyond `count` mean nothing.
        launched: when, in seconds of the clock of its `Pace`.
    """

    first: int
    count: int
    metrics: PyTree
    launched: float


def room(stage: Stage, replicas: int) -> int:
    """How many steps a dispatch of a stage has room for, a power of two."""
    step_bytes = 4 * replicas * (math.prod(lead_of(stage)) + METRICS)
    steps = min(MOST, max(1, BLOCK_BYTES // step_bytes))
    return max(FEWEST, min(_power(steps, math.floor), _power(stage.num_steps, math.ceil)))


def _power(number: int, rounded: Callable[[float], int]) -> int:
    return 2 ** rounded(math.log2(max(1, number)))


def dispatches(
    step: int, stop: int, periods: Sequence[int], steps: Callable[[], int]
) -> Iterator[tuple[int, int]]:
    """(first step, first step of the next one) of each dispatch from `step` to `stop`.

    Args:
        periods: a dispatch ends at each multiple of these, where something is due; 0 for nothing.
        steps: -> the most steps of the next dispatch, asked when that is asked for.
    """
    while step < stop:
        ends = [(step // period + 1) * period for period in periods if period]
        first, step = step, min(step + steps(), stop, *ends)
        yield first, step


class Pace:
    """How many steps dispatches have, by the time that earlier ones took, and when saving is due.

    A stage begins with one step, and twice as many each time until they take `SECONDS`: steps of
    any length show their first loss at once, and no hiccup makes a dispatch that lasts for minutes.

    Attributes:
        steps: most steps of the next dispatch, the same in all processes.
    """

    def __init__(
        self,
        most: int,
        options: RunOptions,
        adapts: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """
        Args:
            most: steps of a dispatch.
            adapts: False where each dispatch has `most`.
        """
        self.steps = self._fitting = 1 if adapts else most
        self._most, self._adapts, self._clock = most, adapts, clock
        self._between_saves = options.checkpoint_minutes * 60 or math.inf
        self._ready, self._next_save = -math.inf, math.inf

    def launch(self, first: int, count: int, metrics: PyTree) -> Dispatch:
        """A dispatch that begins now, or as soon as the device is free."""
        return Dispatch(first, count, metrics, self._clock())

    def wait(self, dispatch: Dispatch) -> None:
        """Wait for a dispatch, and learn from how long it took."""
        jax.block_until_ready(dispatch.metrics)
        now = self._clock()
        if self._ready == -math.inf:  # the first one also warms up
            self._next_save = now + self._between_saves
        elif self._adapts:
            seconds = now - max(dispatch.launched, self._ready)
            fitting = dispatch.count * SECONDS / max(seconds, 1e-9)
            self._fitting = int(max(1, min(fitting, 2 * self._fitting, self._most)))
        self._ready = now

    def agree(self) -> bool:
        """Whether it is time to save; `steps` is up to date from then on.

        All processes call this once for each dispatch, and hear what the primary one measured.
        """
        self.steps, due = self._fitting, self._clock() >= self._next_save
        if jax.process_count() > 1 and (self._adapts or self._between_saves < math.inf):
            self.steps, due = map(int, from_primary(f"{self.steps} {due:d}").split())
        return bool(due)

    def saved(self, seconds: float) -> None:
        """The state was saved, which held the training up for some seconds."""
        self._next_save = self._clock() + max(self._between_saves, SHARE * seconds)
