"""What a stage logs while it trains: metrics.jsonl, TensorBoard events, and the curves in them."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxtl.files import write_text, writing
from jaxtl.plan import PyTree
from jaxtl.train.mesh import is_primary
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.contract import FAILED
from jaxtl.train.resolve.replicas import Replicas

logger = logging.getLogger(__name__)


class Log:
    """metrics.jsonl of a stage: the metrics of every k-th step, of the first and of the last."""

    def __init__(
        self, directory: Path, options: RunOptions, num_steps: int, replicas: Replicas, step: int
    ):
        self._path = directory / "metrics.jsonl"
        self._num_steps, self._replicas = num_steps, replicas
        self._every = options.log_every or max(1, num_steps // 500)
        self._events = None
        if not is_primary():
            return
        lines = [line for line in read_log(directory) if line["step"] <= step]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in lines))
        if options.tensorboard:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(directory), purge_step=step + 1)

    def write(
        self,
        first: int,
        count: int,
        metrics: PyTree,
        measured: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[int, dict[str, np.ndarray]]:
        """Append the steps of one dispatch; returns the number of finished steps and the last.

        Args:
            measured: {metric: [replicas]} on validation data after the last of these steps.

        Raises:
            ValueError: no seed is left whose losses and gradients are finite.
            NotWritten: metrics.jsonl cannot be; what it lacks is logged again by the next process.
        """
        metrics = {name: np.asarray(values)[:, :count] for name, values in metrics.items()}
        self._tell_failures(metrics.pop(FAILED)[:, -1], first, count)
        last = {name: values[:, -1] for name, values in metrics.items()}
        if not is_primary():
            return first + count, last
        with writing(self._path), self._path.open("a") as file:
            for i in range(count):
                step, values = first + i + 1, {name: x[:, i] for name, x in metrics.items()}
                validated = measured if measured and i == count - 1 else {}
                values |= validated
                if step % self._every == 0 or step in (1, self._num_steps) or validated:
                    line = {name: _plain(x) for name, x in values.items()}
                    file.write(json.dumps({"step": step, **line}) + "\n")
                    for name, x in values.items() if self._events else ():
                        self._events.add_scalar(name, np.mean(x), step)
        return first + count, last

    def _tell_failures(self, failed: np.ndarray, first: int, count: int) -> None:
        """Warn of what failed among these steps; ValueError if nothing is left to train."""
        stage, directory = self._path.parent.name, self._path.parent
        for replica, step in enumerate(failed):
            if first <= step < first + count:
                logger.warning(
                    "stage %s: the loss of %s is not finite at step %d; it stays at its last good "
                    "state",
                    stage,
                    self._replicas.describe(replica),
                    step + 1,
                )
        if (failed >= 0).all() and not self._replicas.swept:
            raise ValueError(
                f"stage {stage!r}: the loss is not finite in any seed, first at "
                f"step {failed.min() + 1} in {self._replicas.describe(int(failed.argmin()))}; "
                f"lower the learning rate or look at the data ({directory})"
            )


def _plain(values: np.ndarray) -> list[float | None]:
    """JSON numbers; null where they are not finite."""
    return [float(value) if np.isfinite(value) else None for value in values]


def read_log(directory: Path) -> list[dict]:
    """The whole lines of a stage's metrics.jsonl."""
    path, lines = directory / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:  # the last line of a process that was killed while writing
            break
    return lines


def read_curves(directory: Path) -> dict[str, np.ndarray]:
    """{"step": [t], metric: [t, replicas]} of a stage's directory; NaN where nothing was logged."""
    lines = read_log(directory)
    names = dict.fromkeys(["step", *(name for line in lines for name in line)])
    width = len(next((v for line in lines for k, v in line.items() if k != "step"), ()))
    nothing = [np.nan] * width
    return {
        name: np.asarray([line.get(name, nothing) for line in lines], np.float64) for name in names
    }
