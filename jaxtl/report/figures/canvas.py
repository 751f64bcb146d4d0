"""What the figures share: colours, paper, names as labels, and the way to a PNG.

Colours are those of Okabe & Ito and of Paul Tol, which colour-blind readers can tell apart. The
same inputs give the same bytes, whatever matplotlibrc is about. Names are drawn as they are: $
starts no formula.
"""

from __future__ import annotations

import functools
import math
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl.files import replacing

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("figure.mplstyle")
WIDTH = 6.6  # inches; what is wider is hard to read on a phone
LETTER = 0.075  # inches of an average letter of a label
INK, FAINT = "#333333", "#b8b8b8"
ARMS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3)))
ARM_MARKERS = "osDPX*"  # no triangles: those say that an interval goes on
MARKERS = "o^sDvPX*"
BASELINE = "#555555"
VERDICTS = {"positive": "#009E73", "negative": "#D55E00", "undecided": "#777777"}
CLASSES = (
    *("#332288", "#CC6677", "#117733", "#88CCEE", "#DDCC77", "#882255", "#44AA99", "#AA4499"),
    *("#999933", "#000000"),
)


def saved(draw: Callable[..., Figure]) -> Callable[..., Path]:
    """`draw(...) -> Figure` as `(path, ...) -> path` of the PNG, in the style of the house."""

    @functools.wraps(draw)
    def save(path: str | Path, *args: Any) -> Path:
        import matplotlib

        with matplotlib.rc_context(fname=STYLE), warnings.catch_warnings():
            # Characters that the font lacks are drawn as boxes; the page has them all.
            warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from font")
            figure = draw(*args)
            with replacing(Path(path)) as partial:
                _write(figure, partial)
        return Path(path)

    return save


def _write(figure: Figure, path: Path) -> None:
    """As `savefig` does, which draws twice and keeps that nothing is transparent."""
    from PIL import Image

    for ax in figure.axes:  # the layout need not measure what its axes clip, nor their edges
        for artist in (*ax.lines, *ax.collections, *ax.images, *ax.spines.values()):
            artist.set_in_layout(artist.get_in_layout() and not artist.get_clip_on())
    figure.canvas.draw()
    pixels = figure.canvas.buffer_rgba()
    height, width, _ = np.shape(pixels)
    picture = Image.frombuffer("RGBA", (width, height), pixels, "raw", "RGBA", 0, 1)
    picture.convert("RGB").save(path, "png", compress_level=3, dpi=(figure.dpi, figure.dpi))


def canvas(
    rows: int, columns: int, height: float, title: str, width: float = WIDTH
) -> tuple[Figure, Any]:
    """A titled figure, at least `WIDTH` wide and `height` high below its title, in inches.

    Returns:
        the figure and its axes [rows, columns].
    """
    # Without pyplot: no window, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = max(width, WIDTH)
    letters = int(width / (1.4 * LETTER)) // (2 if _count_wide(title) else 1)
    lines = textwrap.wrap(title, letters)
    figure = Figure(figsize=(width, height + 0.22 * len(lines)))
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(lines), x=0.01, ha="left")
    return figure, figure.subplots(rows, columns, squeeze=False)


def tiles(count: int, columns: int, size: tuple[float, float], title: str):
    """A titled figure and its `count` axes, each of a size in inches with its labels."""
    rows = math.ceil(count / columns)
    figure, axes = canvas(rows, columns, rows * size[1], title, columns * size[0])
    for ax in axes.flat[count:]:
        ax.axis("off")
    return figure, list(axes.flat[:count])


def styles(arms: Iterable[str], baseline: str) -> dict[str, dict[str, Any]]:
    """{arm: colour, dashes, marker}, the baseline grey; after six arms the colours return."""
    looks = {baseline: {"color": BASELINE, "linestyle": "-", "marker": "o"}}
    for index, name in enumerate(name for name in arms if name != baseline):
        row, column = divmod(index, len(ARMS))
        dashes, marker = DASHES[row % len(DASHES)], ARM_MARKERS[row % len(ARM_MARKERS)]
        looks[name] = {"color": ARMS[column], "linestyle": dashes, "marker": marker}
    return looks


def shortened(names: Iterable[str], limit: int) -> list[str]:
    """Names as labels: one line as wide as at most `limit` Latin letters, both ends kept.

    Different names that would look the same are numbered.
    """
    names = list(names)
    lines = [" ".join(name.encode("utf-8", "replace").decode().split()) or "''" for name in names]
    cut = [_cut(line, limit) for line in lines]
    names_of: dict[str, list[str]] = {}
    for name, line in zip(names, cut, strict=True):
        if name not in names_of.setdefault(line, []):
            names_of[line].append(name)
    return [
        f"{line} ({names_of[line].index(name) + 1})" if len(names_of[line]) > 1 else line
        for name, line in zip(names, cut, strict=True)
    ]


def _cut(line: str, limit: int) -> str:
    room = limit * len(line) // (len(line) + _count_wide(line))
    tail = room // 3
    return line if len(line) <= room else f"{line[: room - tail - 1]}…{line[-tail:]}"


def _count_wide(line: str) -> int:
    """How many letters are as wide as two Latin ones."""
    return sum(unicodedata.east_asian_width(letter) in "WF" for letter in line)


def short(name: str, limit: int) -> str:
    """One name `shortened`."""
    return shortened([name], limit)[0]


def legend(figure: Figure, handles: Mapping[str, Any], limit: int = 30, title: str = "") -> None:
    """Below all axes: {name: what is drawn for it}, the names shortened."""
    labels = shortened(handles, limit)
    # matplotlib leaves out what begins with an underscore
    labels = [f" {label}" if label.startswith("_") else label for label in labels]
    widest = 0.6 + LETTER * max(map(len, labels), default=0)
    columns = max(1, min(len(labels), int(figure.get_figwidth() / widest)))
    rows = math.ceil(len(labels) / columns) + bool(title)
    figure.set_figheight(figure.get_figheight() + 0.21 * rows)
    place = {"loc": "outside lower center", "ncols": columns}
    figure.legend(handles.values(), labels, title=title, title_fontsize=10, **place)


def plain_log(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers: those of matplotlib are formulas."""
    from matplotlib.ticker import LogFormatter

    class PlainNumbers(LogFormatter):
        def _num_to_string(self, x: float, vmin: float, vmax: float) -> str:
            return f"{x:g}"

    axis.set_major_formatter(PlainNumbers())
    axis.set_minor_formatter(PlainNumbers(minor_thresholds=(1, 0.4)))


def colours(names: Sequence[str]) -> dict[str, Any]:
    """{name: colour} of what is no arm; shades of a rainbow where there are many."""
    import matplotlib

    rainbow = matplotlib.colormaps["turbo"](np.linspace(0, 1, len(names)))
    return dict(zip(names, CLASSES if len(names) <= len(CLASSES) else rainbow, strict=False))
