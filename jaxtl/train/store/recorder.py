"""What a stage leaves on disk while it trains."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxtl.files import write_json
from jaxtl.train.feed.pace import Dispatch
from jaxtl.train.resolve.replicas import Replicas
from jaxtl.train.state import TrainState, without_constants
from jaxtl.train.store.checkpoints import Checkpoints
from jaxtl.train.store.log import Log

Progress = Callable[[int, dict[str, np.ndarray]], None]


@dataclasses.dataclass
class Recorder:
    """Log, checkpoints and stage.json of a stage, and its clock.

    Attributes:
        record: the content of stage.json; its times go on from earlier processes.
        counted: seconds up to here are in the record.
        steady: (step, time) after the first dispatch, which compiles.
    """

    replicas: Replicas
    directory: Path
    record: dict
    checkpoints: Checkpoints
    log: Log
    progress: Progress
    counted: float = dataclasses.field(default_factory=time.perf_counter)
    steady: tuple[int, float] | None = None

    def write(self, dispatch: Dispatch, measured: Mapping[str, np.ndarray] | None = None) -> None:
        """Log a dispatch that is done.

        Args:
            measured: as `Log.write` takes it.
        """
        step, last = self.log.write(dispatch.first, dispatch.count, dispatch.metrics, measured)
        self.progress(step, last)
        now = time.perf_counter()
        if self.steady is None:
            self.steady = (step, now)
        else:
            self.record["steps_per_second"] = (step - self.steady[0]) / (now - self.steady[1])

    def save(self, step: int, train: TrainState, finished: bool) -> float:
        """Save asynchronously, or to the end if `finished` or asked to stop after this.

        Returns:
            Seconds that it held the training up.
        """
        now = time.perf_counter()
        self.record["train_seconds"] += now - self.counted
        self.counted = now
        self.checkpoints.save(step, without_constants(self.replicas, train))
        if finished:
            self.checkpoints.wait()
        self.record["finished"] = finished
        write_json(self.directory / "stage.json", self.record)
        return time.perf_counter() - now
