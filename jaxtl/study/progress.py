"""Live progress in the terminal: a bar per stage, one line each where there is no terminal."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from jaxtl.train.resolve.replicas import Replicas


class Reporter:
    """Says on a console what a run is doing."""

    def __init__(self, console: Console):
        self.console = console

    @contextlib.contextmanager
    def stage(
        self, name: str, num_steps: int, notes: Sequence[str] = ()
    ) -> Iterator[tuple[Callable, Callable]]:
        """Yields the callbacks of one stage: (finished steps, {metric: [seeds]}), (steps found).

        Args:
            notes: what its line says at the end; may grow until then.
        """
        began, loss, before = time.perf_counter(), "", ""
        with Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}", markup=False),
            console=self.console,
            transient=True,
            disable=not (self.console.is_terminal and num_steps),
        ) as progress:
            task = progress.add_task(name, total=num_steps, loss="compiling")

            def show(step: int, metrics: dict[str, np.ndarray]) -> None:
                nonlocal loss
                if "loss" in metrics:
                    loss = f"loss {np.mean(metrics['loss']):.4g}"
                progress.update(task, completed=step, loss=loss)

            def restored(step: int) -> None:
                nonlocal before
                before = "found finished" if step == num_steps else f"went on from step {step}"
                if step < num_steps:
                    self.say("stage ", (name, "bold"), f" goes on from step {step}")
                progress.update(task, completed=step)

            yield show, restored
        seconds = time.perf_counter() - began
        details = ", ".join(filter(None, (before, f"{num_steps} steps", loss, *notes)))
        self.say("stage ", (name, "bold"), f": {details} ({seconds:.1f} s)")

    @contextlib.contextmanager
    def training(
        self, replicas: Replicas, title: str = ""
    ) -> Iterator[tuple[Callable, Callable, list[str]]]:
        """Yields the callbacks of a stage that trains, under its name or a title, and its notes."""
        stage, (count, total) = replicas.setup.stage, replicas.setup.sizes
        notes = [f"{count:,} of {total:,} trained"]
        if stage.weights is not None:
            notes.append(f"from {stage.weights.name}")
        with self.stage(title or stage.name, stage.num_steps, notes) as (show, restored):
            yield show, restored, notes

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Print one line of texts, taken as they are, or (text, style)."""
        self.console.print(Text.assemble(*parts), highlight=False)
