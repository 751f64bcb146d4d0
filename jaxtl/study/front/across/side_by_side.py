"""What a comparison gives: how it is printed, shown in a notebook, drawn and written."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxtl.files import replacing, user_path, write_text
from jaxtl.report.across import comparison
from jaxtl.report.across.comparison import Facts
from jaxtl.study.front.result import frame_of, width

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from rich.console import Console

MOST_SENTENCES = 10
"""In the terminal; of more arms only those that are decided have one, the page has all."""
PAGE, PICTURE = "comparison.html", "comparison.png"


class RunComparison:
    """Finished runs side by side, each compared with the first one.

    Printed it is a table with its sentences; in a notebook it is that with its picture.

    Attributes:
        facts: all of it as values: the runs, a row an arm and run, and what should be known.
    """

    def __init__(self, facts: Facts):
        self.facts = facts

    def __repr__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        self.print(Console(file=text, width=width(), color_system=None, force_jupyter=False))
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).rstrip()

    def _repr_html_(self) -> str:
        from jaxtl.report.across.comparison_page import comparison_fragment

        return comparison_fragment(self.facts, self._png())

    def to_frame(self) -> pandas.DataFrame:
        """A pandas DataFrame: a row an arm, run and seed, with the metric of that seed.

        Raises:
            ValueError: pandas is not installed.
        """
        seeds = {side.label: side for side in self.facts.sides}
        rows = [
            {
                "run": row.run,
                "experiment": seeds[row.run].experiment,
                "arm": row.arm,
                "seed": seed,
                self.facts.metric.key: np.nan if value is None else value,
                "verdict": row.verdict,
            }
            for row in self.facts.rows
            for seed, value in zip(seeds[row.run].seeds, row.measured["per_seed"], strict=True)
        ]
        return frame_of(rows)

    def figure(self) -> Figure:
        """The picture as a matplotlib figure."""
        import matplotlib

        from jaxtl.report.figures.canvas import STYLE
        from jaxtl.report.figures.runs import draw_runs

        with matplotlib.rc_context(fname=STYLE):
            return draw_runs(self.facts)

    def print(self, console: Console | None = None) -> None:
        """Prints the tables, the answer for each run and a sentence an arm."""
        from rich.console import Console

        from jaxtl.report.terminal import LOOKS, plain, print_widest

        console = console or Console()
        print_widest(console, comparison.of_rows(self.facts))
        for line in comparison.answers(self.facts):
            console.print(plain(line, "bold"))
        for outcome, sentence in comparison.sentences(self.facts, MOST_SENTENCES):
            console.print(plain(sentence, LOOKS[outcome]))
        for line in comparison.cautions(self.facts):
            console.print(plain(line, "yellow"))
        console.print()
        print_widest(console, comparison.of_sides(self.facts))

    def write(self, folder: str | os.PathLike) -> Path:
        """Writes comparison.html and comparison.png into a folder, which is made.

        Returns:
            the page.

        Raises:
            NotWritten: the folder cannot be written.
        """
        from jaxtl.report.across.comparison_page import comparison_page

        folder, png = Path(user_path(folder)), self._png()
        with replacing(folder / PICTURE) as partial:
            partial.write_bytes(png)
        write_text(folder / PAGE, comparison_page(self.facts, png))
        return folder / PAGE

    def _png(self) -> bytes:
        from jaxtl.report.figures.runs import png_of_runs

        return png_of_runs(self.facts)
