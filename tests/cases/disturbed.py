"""Launches that are ended from outside, at chosen and at random moments, and then left alone."""

import dataclasses
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from launched import (
    assert_same_run,
    finished_stages,
    half_written,
    logged,
    reported,
    wait_for,
)

MOMENTS = {  # {moment: how long after its event the signal comes, at most}
    "starting": 4.0,  # the interpreter, imports, planning
    "training": 0.3,
    "writing": 0.03,  # a checkpoint
    "between": 0.3,  # a stage has ended: it is measured, the next one is compiled
    "reporting": 0.8,  # summary, figures, page
    "anywhere": 5.0,
}


@dataclasses.dataclass
class Disturber:
    """Launches a command again and again and ends it each time.

    Attributes:
        launch: starts the command: a `subprocess.Popen`, or what looks like one.
        workdir: of the command.
        whole: of a launch that nothing disturbed.
        rng: chooses the moments.
        ended: {moment: launches that were ended there}.
        ends: launches that came to their end before: they are compared, and all begins anew.
        hits: launches that left a half-written checkpoint.
        statuses: of those that were ended.
    """

    launch: Callable[[], Any]
    workdir: Path
    whole: Path
    rng: np.random.Generator
    ended: Counter = dataclasses.field(default_factory=Counter)
    ends: int = 0
    hits: int = 0
    statuses: list[int] = dataclasses.field(default_factory=list)

    def disturb(self, moments: Iterable[str], numbers: Sequence[int] = (signal.SIGKILL,)) -> None:
        """Launches until one was ended at each of the moments, by the signals in turn."""
        for i, moment in enumerate(moments):
            for _ in range(3):
                if self._disturb(moment, numbers[i % len(numbers)]):
                    break

    def _disturb(self, moment: str, number: int) -> bool:
        """Whether a launch was ended before its end."""
        began, lines, seen = time.time(), logged(self.workdir), set()
        stages, writes = finished_stages(self.workdir), self.rng.integers(1, 4)
        late = self.rng.uniform(0, MOMENTS[moment])

        def writing():
            seen.update(half_written(self.workdir, began))
            return len(seen) >= writes

        events = {
            "training": lambda: logged(self.workdir) > lines,
            "writing": writing,
            "between": lambda: finished_stages(self.workdir) > stages,
            "reporting": lambda: reported(self.workdir, began),
        }
        process = self.launch()
        try:
            wait_for(process, events.get(moment, lambda: True))
            time.sleep(late)
            process.send_signal(number)
            process.communicate(timeout=120)
        finally:
            process.kill()
            process.communicate()
        if process.returncode == 0 and finished_stages(self.workdir) == finished_stages(self.whole):
            self.ends += 1
            assert_same_run(self.workdir, self.whole)
            shutil.rmtree(self.workdir)
            return False
        self.ended[moment] += 1
        self.hits += bool(half_written(self.workdir, began))
        self.statuses.append(process.returncode)
        return True

    def leave_alone(self) -> None:
        """A last launch, which must end well, as if nothing had happened before."""
        process = self.launch()
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, f"{output}{errors}"
        assert_same_run(self.workdir, self.whole)

    def __str__(self) -> str:
        moments = ", ".join(f"{count} {moment}" for moment, count in self.ended.items())
        hits = f"{self.hits} within the writing of a checkpoint"
        return f"{self.ended.total()} ended ({moments}), {hits}; {self.ends} came to their end"
