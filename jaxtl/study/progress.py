"""Live progress in the terminal: a bar per stage, one line each where there is no terminal."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

from jaxtl.study.run import Run
from jaxtl.timing import phase
from jaxtl.train.resolve.replicas import Replicas
from jaxtl.train.store.blocks import spans

BESIDE_NAME = 62
"""Columns of a line of progress that are not for the name and the bar."""
NO_BAR, NO_LOSS = 52, 76
"""Columns of a terminal below which a line of progress goes without them."""
DRAWN_A_SECOND = 4
"""How often a bar is drawn, by a thread that takes the interpreter from the training."""


class Course:
    """How far a run is, and how long the rest of its training takes.

    A stage takes some time whatever its length, until its first steps are reported (compiling), and
    some for each unit of its work, an example in a replica. Both are taken from the stages before;
    the second from the stage itself once it tells.

    Attributes:
        total: stages of the run; 0 as long as nobody says.
        number: of the stage at work, from 1.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.total, self.number = 0, 0
        self._clock, self._ended = clock, clock()
        self._ahead: dict[str, int | None] = {}
        self._starts: list[float] = []  # seconds of each stage until its first report
        self._paced = np.zeros(2)  # (seconds, units) after it, of all stages
        self._units = self._resumed = 0  # of the stage at work
        self._reports: list[tuple[float, int]] = []  # its first and last: (time, units done)

    def expect(self, work: Mapping[str, int | None]) -> None:
        """What lies ahead: {stage: units; None if it is only read}."""
        self._ahead, self.total, self._ended = dict(work), len(work), self._clock()

    def begin(self, name: str, units: int) -> None:
        """A stage begins."""
        self._ahead.pop(name, None)
        self._units, self._resumed, self._reports = units, 0, []
        self.number += 1

    def resume(self, units: int) -> None:
        """So many units of the stage were done before."""
        self._resumed = units

    def report(self, units: int) -> None:
        """So many units of the stage are done."""
        self._reports = [*self._reports[:1], (self._clock(), units)]

    def end(self, worked: bool) -> None:
        """The stage has ended; `worked` unless it was only read."""
        now = self._clock()
        if worked:
            first = self._reports[0][0] if self._reports else now
            self._starts.append(first - self._ended)
            self._paced += self._steady()
        self._ended, self._units, self._resumed, self._reports = now, 0, 0, []

    def left(self) -> tuple[float, float] | None:
        """Seconds until the stage and until the last stage ends; None as long as nothing tells."""
        steady, now = self._steady(), self._clock()
        seconds, units = self._paced + steady
        starts = self._starts + ([self._reports[0][0] - self._ended] if self._reports else [])
        if not starts or not (units or self._starts):
            return None
        pace, stage = seconds / units if units else 0.0, 0.0
        start = float(np.mean(starts[1:] or starts))  # the first one loads data and starts JAX
        if self._reports:
            at, done = self._reports[-1]
            own_pace = steady[0] / steady[1] if steady[1] else pace
            stage = max(0.0, own_pace * (self._units - done) - (now - at))
        elif self._units > self._resumed:
            waited = now - self._ended
            stage = max(0.0, start - waited) + pace * (self._units - self._resumed)
        later = [start + pace * units for units in self._ahead.values() if units is not None]
        return stage, stage + sum(later)

    def _steady(self) -> np.ndarray:
        """(seconds, units) between the first and the last report of the stage at work."""
        return np.subtract(self._reports[-1], self._reports[0]) if self._reports else np.zeros(2)


def duration(seconds: float) -> str:
    """`8 s`, `2 min 10 s`, `25 min`, `3 h 20 min`: as exact as an estimate is."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 595:
        minutes, seconds = divmod(round(seconds / 10) * 10, 60)
        return f"{minutes} min" + (f" {seconds} s" if seconds else "")
    hours, minutes = divmod(round(seconds / 60), 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0)
    return " ".join(parts)


class TimeLeft(ProgressColumn):
    """The time that a stage and the run have left, as far as it can be told."""

    def __init__(self, course: Course):
        super().__init__(Column(no_wrap=True))
        self._course = course

    def render(self, task: object) -> Text:
        if (left := self._course.left()) is None:
            return Text()
        stage, run = map(duration, left)
        last = self._course.number >= self._course.total
        return Text(f"{stage} left" if last else f"{stage} left, run {run}", "cyan")


class Reporter:
    """Says on a console what a run is doing.

    Attributes:
        course: how far it is.
    """

    def __init__(self, console: Console):
        self.console, self.course = console, Course()

    def begin(self, run: Run, arms: Sequence[str], work: Mapping[str, int | None]) -> None:
        """Says what a run consists of.

        Args:
            arms: their names.
            work: as for `Course.expect`.
        """
        self.course.expect(work)
        finished = sum(units is None for units in work.values())
        before = f" ({finished} finished before)" if finished else ""
        devices = jax.devices()
        self.say(
            (run.name, "bold"),
            f": {_count(len(arms), 'arm')}, {_count(len(work), 'stage')}{before}, "
            f"seed{'s' if len(run.seeds) > 1 else ''} {spans(run.seeds)}, "
            f"on {_count(len(devices), f'{devices[0].device_kind} device')}; to {run.directory}",
        )

    @contextlib.contextmanager
    def stage(
        self, name: str, num_steps: int, notes: Sequence[str] = (), size: int = 1
    ) -> Iterator[tuple[Callable, Callable]]:
        """Yields the callbacks of one stage: (finished steps, {metric: [seeds]}), (steps found).

        Args:
            notes: what its line says at the end; may grow until then.
            size: units of work of a step.
        """
        began, loss, before, course = time.perf_counter(), "", "", self.course
        shown = -math.inf
        course.begin(name, num_steps * size)
        with self.bar(name, num_steps) as progress:

            def show(step: int, metrics: dict[str, np.ndarray]) -> None:
                nonlocal loss, shown
                if "loss" in metrics:
                    loss = f"loss {np.mean(metrics['loss']):.4g}"
                course.report(step * size)
                if step == num_steps or time.perf_counter() - shown > 1 / DRAWN_A_SECOND:
                    shown = time.perf_counter()
                    for task in progress.task_ids:
                        progress.update(task, completed=step, loss=loss)

            def restored(step: int) -> None:
                nonlocal before
                before = "found finished" if step == num_steps else f"went on from step {step}"
                if step < num_steps:
                    self.say("stage ", (name, "bold"), f" goes on from step {step}")
                course.resume(step * size)
                for task in progress.task_ids:
                    progress.update(task, completed=step)

            yield show, restored
        course.end(worked=before != "found finished")
        seconds = time.perf_counter() - began
        details = ", ".join(filter(None, (before, f"{num_steps} steps", loss, *notes)))
        self.say("stage ", (name, "bold"), f": {details} ({seconds:.1f} s{self._place()})")

    def _place(self) -> str:
        """`; stage 3 of 6, about 20 s left`, as far as it can be told."""
        course = self.course
        if course.total < 2:
            return ""
        left = course.left() if course.number < course.total else None
        rest = f", about {duration(left[1])} left" if left and left[1] >= 0.5 else ""
        return f"; stage {course.number} of {course.total}{rest}"

    def bar(self, name: str, num_steps: int) -> Progress:
        """A line of progress as wide as the terminal; without a task where nobody sees it."""
        width, course = self.console.width, self.course
        widest = max(10, width - BESIDE_NAME)
        shown = f"{set_cell_size(name, widest - 2)}.." if cell_len(name) > widest else name
        bar_width = min(40, max(6, width - BESIDE_NAME - cell_len(shown)))
        columns: list[ProgressColumn] = [_text("{task.fields[place]}"), _text("{task.description}")]
        if width >= NO_BAR:
            columns += [BarColumn(bar_width), MofNCompleteColumn(table_column=Column(no_wrap=True))]
        else:
            columns.append(_text("{task.percentage:>3.0f}%"))
        columns += [_text("{task.fields[loss]}")] if width >= NO_LOSS else []
        progress = Progress(
            *columns,
            TimeLeft(course),
            console=self.console,
            transient=True,
            refresh_per_second=DRAWN_A_SECOND,
            disable=not (self.console.is_interactive and num_steps),
        )
        if not progress.disable:
            place = f"{course.number}/{course.total}" if course.total > 1 else ""
            progress.add_task(shown, total=num_steps, loss="compiling", place=place)
        return progress

    @contextlib.contextmanager
    def training(
        self, replicas: Replicas, title: str = ""
    ) -> Iterator[tuple[Callable, Callable, list[str]]]:
        """Yields the callbacks of a stage that trains, under its name or a title, and its notes."""
        stage, (count, total) = replicas.setup.stage, replicas.setup.sizes
        notes = [f"{count:,} of {total:,} parameters"] * (count < total)
        if stage.weights is not None:
            notes.append(f"from {stage.weights.name}")
        size = stage.batch_size * len(replicas)
        named = title or stage.name
        with phase("train"), self.stage(named, stage.num_steps, notes, size) as (show, restored):
            yield show, restored, notes

    @contextlib.contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Shows what is being done as long as it is, where there is a terminal."""
        if not self.console.is_interactive:
            yield
            return
        with Live(Text(f"{doing} ..."), console=self.console, transient=True, auto_refresh=False):
            yield

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Print one line of texts, taken as they are, or (text, style); folded on a terminal."""
        folded = self.console.is_interactive
        self.console.print(Text.assemble(*parts), highlight=False, soft_wrap=not folded)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _text(template: str) -> TextColumn:
    """A column of a line of progress, which is cut off rather than folded."""
    return TextColumn(template, markup=False, table_column=Column(no_wrap=True, overflow="crop"))
