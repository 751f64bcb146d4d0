"""Progress where there is no terminal: in one output of a notebook's cell, or nowhere."""

import contextlib
import html
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

from rich.console import Console

from jaxtl.study.progress import DRAWN_A_SECOND, Reporter, TimeLeft

logger = logging.getLogger(__name__)

Said = str | tuple[str, str]
STYLE = "font-family: monospace; font-size: .85em; line-height: 1.5; overflow-wrap: anywhere"


class SilentReporter(Reporter):
    """Says nothing; warnings go to the log."""

    def __init__(self):
        super().__init__(Console(quiet=True, force_interactive=False))

    def say(self, *parts: Said) -> None:
        first, *rest = map(_text, parts)
        if first == "warning: ":
            logger.warning("".join(rest))


class NotebookReporter(Reporter):
    """Says it in one output of a notebook's cell, which is drawn again as the run goes on."""

    def __init__(self):
        super().__init__(Console(quiet=True, force_interactive=False))
        self._lines: list[Sequence[Said]] = []
        self._last = ""  # what is going on, in HTML
        self._handle: Any = None
        self._drawn = 0.0

    def bar(self, name: str, num_steps: int) -> "Bar":
        return Bar(self, name, num_steps)

    @contextlib.contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        self.show(f"{html.escape(doing)} ...")
        try:
            yield
        finally:
            self.show("")

    def say(self, *parts: Said) -> None:
        self._lines.append(parts)
        self.show(self._last)

    def show(self, last: str, often: bool = False) -> None:
        """Draw all lines and a last one, in HTML; one that comes often is not drawn each time."""
        from IPython.display import display

        self._last, now = last, time.monotonic()
        if often and now < self._drawn + 1 / DRAWN_A_SECOND:
            return
        self._drawn = now
        if self._handle is None:
            self._handle = display(self, display_id=True)
        else:
            self._handle.update(self)

    def __repr__(self) -> str:
        return "\n".join("".join(map(_text, parts)) for parts in self._lines)

    def _repr_html_(self) -> str:
        lines = ["".join(map(_in_html, parts)) for parts in self._lines]
        lines += [self._last] if self._last else []
        return f"<div style='{STYLE}'>{'<br>'.join(lines)}</div>"


class Bar:
    """The line of a stage at work, as the one of a terminal is used."""

    task_ids = (0,)

    def __init__(self, reporter: NotebookReporter, name: str, num_steps: int):
        self._reporter, self._name, self._total = reporter, name, num_steps
        self._step, self._loss = 0, "compiling"

    def __enter__(self) -> Self:
        self._show(often=False)
        return self

    def __exit__(self, *error: object) -> None:
        self._reporter.show("")

    def update(self, task: int, completed: int, loss: str | None = None) -> None:
        self._step, self._loss = completed, self._loss if loss is None else loss
        self._show(often=True)

    def _show(self, often: bool) -> None:
        course = self._reporter.course
        place = f"{course.number}/{course.total} " if course.total > 1 else ""
        self._reporter.show(
            f"{place}<b>{html.escape(self._name)}</b> <progress value='{self._step}' "
            f"max='{max(self._total, 1)}'></progress> {self._step:,}/{self._total:,} "
            f"{html.escape(self._loss)} {TimeLeft(course).render(None).plain}",
            often,
        )


def _text(part: Said) -> str:
    return part if isinstance(part, str) else part[0]


def _in_html(part: Said) -> str:
    text = html.escape(_text(part))
    return text if isinstance(part, str) else f"<b>{text}</b>"


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")  # what has not been imported runs nothing
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
