"""What the figures share: colours, type, paper, and the way to a PNG.

Colours are those of Okabe & Ito and of Paul Tol, which colour-blind readers can tell apart. The
same inputs give the same bytes.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT = "#333333", "#b8b8b8"
ARMS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE = "#555555"
VERDICTS = {"positive": "#009E73", "negative": "#D55E00", "undecided": "#777777"}
CLASSES = (
    *("#332288", "#CC6677", "#117733", "#88CCEE", "#DDCC77", "#882255", "#44AA99", "#AA4499"),
    *("#999933", "#000000"),
)
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "figure.titlesize": 11,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
}


def saved(draw: Callable[..., Figure]) -> Callable[..., Path]:
    """`draw(...) -> Figure` as `(path, ...) -> path` of the PNG, in the style of this file."""

    @functools.wraps(draw)
    def save(path: str | Path, *args: Any) -> Path:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            draw(*args).savefig(path, metadata={"Software": None})
        return Path(path)

    return save


def canvas(rows: int, columns: int, width: float, height: float, title: str):
    """A titled figure of `width` x `height` inches or wider, and its axes [rows, columns]."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    figure = Figure(figsize=(max(width, 6.5), height))
    lines = textwrap.fill(title, int(11 * max(width, 6.5)))
    figure.suptitle(lines, x=0.01, ha="left", fontweight="bold")
    return figure, figure.subplots(rows, columns, squeeze=False)


def styles(arms: Sequence[str], baseline: str) -> dict[str, dict[str, Any]]:
    """{arm: colour and dashes}, the baseline grey; after six arms the colours return dashed."""
    dashes = ("-", "--", ":", "-.")
    looks = {baseline: {"color": BASELINE, "linestyle": "-"}}
    for index, name in enumerate(name for name in arms if name != baseline):
        row, column = divmod(index, len(ARMS))
        looks[name] = {"color": ARMS[column], "linestyle": dashes[row % len(dashes)]}
    return looks
