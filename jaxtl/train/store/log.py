"""What a stage logs while it trains: metrics.jsonl, and the curves in it."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtl.files import Damaged, NotRead, write_text, writing
from jaxtl.plan import PyTree
from jaxtl.train.mesh import is_primary
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.contract import FAILED
from jaxtl.train.resolve.replicas import Replicas
from jaxtl.train.state import Validation
from jaxtl.train.store.events import Events
from jaxtl.train.store.record import stage_of

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
        lines = [line for line in read_log(directory, len(replicas)) if line["step"] <= step]
        self._tell_lost(lines, step)
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in lines))
        if options.tensorboard:
            self._events = Events(directory, replicas, lines)

    def _tell_lost(self, lines: list[dict[str, Any]], step: int) -> None:
        """Warn of logged steps before a checkpoint that are not in the log any more."""
        steps = [0, *(line["step"] for line in lines)]
        usual = max(np.diff(steps), default=1)
        if step and (len(steps) == 1 or step - steps[-1] > max(usual, self._every)):
            logger.warning("%s lacks the steps %d to %d", self._path, steps[-1] + 1, step)

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
        metrics = {name: x[:, :count] for name, x in jax.device_get(dict(metrics)).items()}
        self._tell_failures(metrics.pop(FAILED)[:, -1], first, count)
        last = {name: values[:, -1] for name, values in metrics.items()}
        steps = np.arange(first + 1, first + count + 1)
        due = (steps % self._every == 0) | (steps == 1) | (steps == self._num_steps)
        due[-1] |= bool(measured)
        if is_primary() and due.any():
            self._append(steps[due], {k: x[:, due] for k, x in metrics.items()}, measured or {})
        return first + count, last

    def _append(
        self, steps: np.ndarray, metrics: PyTree, measured: Mapping[str, np.ndarray]
    ) -> None:
        """Write the lines of some steps, metrics [replicas, steps]; measured after the last."""
        columns = {name: _plain(np.transpose(values)) for name, values in metrics.items()}
        lines = [
            {"step": step, **dict(zip(columns, values, strict=True))}
            for step, *values in zip(steps.tolist(), *columns.values(), strict=True)
        ]
        lines[-1] |= {name: _plain(values) for name, values in measured.items()}
        with writing(self._path), self._path.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
        if self._events:
            self._events.write(lines)

    def _tell_failures(self, failed: np.ndarray, first: int, count: int) -> None:
        """Warn of what failed among these steps; ValueError if nothing is left to train."""
        if (failed < 0).all():
            return
        directory = self._path.parent
        stage = stage_of(directory)
        for replica in np.flatnonzero((first <= failed) & (failed < first + count)).tolist():
            logger.warning(
                "stage %s: the loss of %s is not finite at step %d; it stays at its last good "
                "state",
                *(stage, self._replicas.describe(replica), failed[replica] + 1),
            )
        others = self._replicas.swept or stage != directory.name  # points, or blocks of seeds
        if (failed >= 0).all() and not others:
            raise ValueError(
                f"stage {stage!r}: the loss is not finite in any seed, first at "
                f"step {failed.min() + 1} in {self._replicas.describe(int(failed.argmin()))}; "
                f"lower the learning rate or look at the data ({directory})"
            )


def _plain(values: np.ndarray) -> list:
    """Nested lists of JSON numbers; null where they are not finite."""
    numbers = np.asarray(values, np.float64)
    if np.isfinite(numbers).all():
        return numbers.tolist()
    return np.where(np.isfinite(numbers), numbers, None).tolist()


def read_log(directory: Path, replicas: int | None = None) -> list[dict[str, Any]]:
    """The lines of a stage's metrics.jsonl up to the first that is not as it was written.

    What is lost is said, unless it is the last line of a process that was killed while writing.

    Args:
        replicas: how many numbers stand for a metric; None: as many as in the first line.

    Raises:
        NotRead: the system does not hand the file out.
    """
    lines, problem = _read(directory / "metrics.jsonl", replicas)
    if problem:
        logger.warning(problem)
    return lines


def _read(path: Path, replicas: int | None) -> tuple[list[dict[str, Any]], str]:
    """(the whole lines of a metrics.jsonl, what is wrong with the others)."""
    lines: list[dict[str, Any]] = []
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return [], ""
    except IsADirectoryError:
        return [], f"{path} is damaged: it is a folder, expected a file; the curves are lost"
    except OSError as error:
        raise NotRead(error.errno, error.strerror, str(path)) from error
    *whole, rest = content.split(b"\n")
    for number, text in enumerate(whole, 1):
        line = _parse(text, lines[-1]["step"] if lines else 0, replicas)
        if line is None:
            end = lines[-1]["step"] if lines else 0
            return lines, f"{path} is damaged from line {number} on; the curves end at step {end}"
        lines.append(line)
        replicas = replicas or next((len(v) for k, v in line.items() if k != "step"), None)
    return lines, f"{path} is damaged: it has no whole line" if rest and not lines else ""


def _parse(text: bytes, before: int, replicas: int | None) -> dict[str, Any] | None:
    """A line of metrics.jsonl, None if it is none, or none that follows the step `before`."""
    try:
        line = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int or line["step"] <= before:
        return None
    for name, values in line.items():
        if name != "step" and not (
            isinstance(values, list)
            and len(values) == (replicas or len(values))
            and all(value is None or type(value) in (int, float) for value in values)
        ):
            return None
    return line


def check_validations(
    directory: Path, step: int, num_steps: int, validation: Validation | None
) -> None:
    """Raises Damaged if the log lacks a validation before `step`: numbers are read from them."""
    if validation is None:
        return
    path = directory / "metrics.jsonl"
    logged = {line["step"] for line in _read(path, None)[0]}
    due = {*range(validation.every, step + 1, validation.every), *({step} & {num_steps} - {0})}
    if lost := sorted(due - logged):
        raise Damaged(
            f"{path} is damaged: it lacks the validations after the steps "
            f"{', '.join(map(str, lost))}, which say what criteria pick; put a copy of it back, or "
            f"start over with --overwrite={stage_of(directory)}"
        )


def read_curves(directory: Path, last: int | None = None) -> dict[str, np.ndarray]:
    """{"step": [t], metric: [t, replicas]} of a stage's directory; NaN where nothing was logged.

    Args:
        last: the step that a finished stage ends with; it is said if the log ends before.
    """
    lines = read_log(directory)
    end = lines[-1]["step"] if lines else 0
    if last and end < last:
        path = directory / "metrics.jsonl"
        logger.warning("%s lacks the steps after %d of %d: no curve shows them", path, end, last)
    names = dict.fromkeys(["step", *(name for line in lines for name in line)])
    width = len(next((v for line in lines for k, v in line.items() if k != "step"), ()))
    nothing = [np.nan] * width
    return {
        name: np.asarray([line.get(name, nothing) for line in lines], np.float64) for name in names
    }


def join_curves(
    parts: Sequence[Mapping[str, np.ndarray]], counts: Sequence[int]
) -> dict[str, np.ndarray]:
    """The curves of blocks of a stage side by side; NaN where one has not logged a step.

    Args:
        parts: of each block, as `read_curves` has them.
        counts: replicas of each.
    """
    steps = np.unique(np.concatenate([part.get("step", np.zeros(0)) for part in parts]))
    names = dict.fromkeys(name for part in parts for name in part if name != "step")
    curves = {name: np.full((len(steps), sum(counts)), np.nan) for name in names}
    ends = np.cumsum(counts)
    for part, start, end in zip(parts, ends - counts, ends, strict=True):
        rows = np.searchsorted(steps, part.get("step", np.zeros(0)))
        for name, values in part.items():
            if name != "step":
                curves[name][rows, start:end] = values
    return {"step": steps, **curves} if len(steps) else {}
