"""What the figures share: colours, type, paper, names as labels, and the way to a PNG.

Colours are those of Okabe & Ito and of Paul Tol, which colour-blind readers can tell apart. The
same inputs give the same bytes. Names are drawn as they are: $ starts no formula.
"""

from __future__ import annotations

import functools
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtl.files import replacing

if TYPE_CHECKING:
    from matplotlib.axis import Axis
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
    "text.parse_math": False,
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

        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            # Characters that the font lacks are drawn as boxes; the page has them all.
            warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from font")
            figure = draw(*args)
            with replacing(Path(path)) as partial:
                figure.savefig(partial, format="png", metadata={"Software": None})
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
    dashes = ("-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3)))
    looks = {baseline: {"color": BASELINE, "linestyle": "-"}}
    for index, name in enumerate(name for name in arms if name != baseline):
        row, column = divmod(index, len(ARMS))
        looks[name] = {"color": ARMS[column], "linestyle": dashes[row % len(dashes)]}
    return looks


def shortened(names: Iterable[str], limit: int) -> list[str]:
    """Names as labels: one line as wide as at most `limit` Latin letters, both ends kept.

    Different names that would look the same are numbered.
    """
    whole = list(names)
    lines = [" ".join(name.encode("utf-8", "replace").decode().split()) or "''" for name in whole]
    cut = [_cut(line, limit) for line in lines]
    meant: dict[str, list[str]] = {}
    for name, line in zip(whole, cut, strict=True):
        if name not in meant.setdefault(line, []):
            meant[line].append(name)
    return [
        f"{line} ({meant[line].index(name) + 1})" if len(meant[line]) > 1 else line
        for name, line in zip(whole, cut, strict=True)
    ]


def _cut(line: str, limit: int) -> str:
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in line)
    room = limit * len(line) // (len(line) + wide)
    tail = room // 3
    return line if len(line) <= room else f"{line[: room - tail - 1]}…{line[-tail:]}"


def legend_labels(names: Iterable[str], limit: int = 30) -> list[str]:
    """`shortened` names for a legend, which leaves out what begins with an underscore."""
    return [f" {label}" if label.startswith("_") else label for label in shortened(names, limit)]


def legend_columns(labels: Sequence[str], width: float, most: int) -> int:
    """How many columns of a legend in 8 points fit into a width in inches."""
    widest = 0.5 + 0.075 * max(map(len, labels), default=0)
    return max(1, min(most, len(labels), int(width / widest)))


def plain_log(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers: those of matplotlib are formulas."""
    from matplotlib.ticker import LogFormatter

    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
