"""Heat maps: a matrix panel as a PNG."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxtl.plan.panel import Matrix
from jaxtl.report.figures.canvas import (
    ARMS,
    INK,
    LETTER,
    VERDICTS,
    WIDTH,
    saved,
    short,
    shortened,
    tiles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.path import Path
    from matplotlib.text import Text

MOST_NUMBERS = 20  # columns with a number in each cell
NAME, HEADING = 20, 14  # letters of the name of a row, of a column
TYPE, GAP = 10, 3.5  # typographical points: size of names, from the axes to them
SMALLER = 0.85  # type of headings that fit so without being turned
LINE = 0.18  # inches from one name to the next below it
ROW, SCALE = 0.28, 0.9  # inches: height of a row of numbers, width of the scale of colours
TALLEST, SMALL_CELL = 45, 0.12  # inches: of all rows with numbers, of a cell without


@saved
def matrix(panel: Matrix) -> Figure:
    """A heat map a grid, all with one scale; numbers in the cells where columns are few."""
    grids = list(panel.grids.values())
    rows = [shortened(grid.rows, NAME) for grid in grids]
    columns = [shortened(grid.columns, HEADING) for grid in grids]
    titles = shortened(panel.grids, NAME) if len(grids) > 1 else [""]
    row_label = short(panel.row, 30) if panel.row else ""
    height, width = (max(grid.values.shape[axis] for grid in grids) for axis in (0, 1))
    # As many grids side by side as have room for their numbers, names and titles.
    letters = [len(_number(value, panel)) for grid in grids for value in np.ravel(grid.values)]
    cell = 0.08 * max([panel.digits + 1 + panel.diverging, *letters]) + 0.03
    beside = LETTER * _longest(rows) + 0.4
    heading = 1.2 * LETTER * _longest([titles]) + 0.3 * beside
    tile = max(cell * width + beside, heading)
    count = _beside(tile, len(grids))
    numbers = width <= MOST_NUMBERS and ROW * height * math.ceil(len(grids) / count) <= TALLEST
    if not numbers:
        tile = WIDTH if width > MOST_NUMBERS else max(SMALL_CELL * width + beside, heading)
        count = _beside(tile, len(grids))
    tile = max(tile, (WIDTH - SCALE) / count)
    cell = (tile - beside) / width
    upright = SMALLER * LETTER * _longest(columns) > cell
    below = LETTER * _longest(columns) if upright else 0.2
    row = max(ROW if numbers or height < width else cell, LETTER * len(row_label) / height)
    size = (tile + SCALE / count, row * height + below + 0.6)
    quantity = short(panel.quantity, 30)
    # A scale beside few rows is too short for a long name, which goes to the title then.
    named = LETTER * len(quantity) <= min(3.0, math.ceil(len(grids) / count) * size[1] - 0.4)
    title = panel.title if named else f"{panel.title}: {quantity}"
    figure, axes = tiles(len(grids), count, size, title)
    low, high = _limits(panel)
    for ax, heading_of, grid, *names in zip(axes, titles, grids, rows, columns, strict=True):
        image = ax.imshow(
            grid.values, cmap=_shades(panel.diverging), vmin=low, vmax=high, aspect="auto"
        )
        _name_cells(ax, *names, row, cell, upright)
        # What is longer than its axes begins above the names of the rows.
        ax.set_title(
            heading_of, x=-np.clip((heading - tile) / beside + 1, 0, 0.7) * beside / (tile - beside)
        )
        ax.set_xlabel(panel.column)
        ax.set_ylabel(row_label)
        if numbers:
            _write(ax, image, panel)
        _frame(ax, grid.framed, (INK, 0.9) if panel.diverging else (ARMS[1], 1.6))
    length = min(1.0, 3 / figure.get_figheight())
    place = {"pad": 0.02, "shrink": length, "anchor": (0, 1)}
    values = _finite(panel)
    beyond = (values < low).any() + 2 * (values > high).any()
    ends = ("neither", "min", "max", "both")[beyond]
    figure.colorbar(image, ax=axes, label=quantity if named else "", extend=ends, **place)
    return figure


def _beside(tile: float, grids: int) -> int:
    """How many grids stand side by side."""
    return max(1, min(grids, int((WIDTH - 0.1) / tile)))


def _finite(panel: Matrix) -> np.ndarray:
    values = np.concatenate([np.ravel(grid.values) for grid in panel.grids.values()])
    return values[np.isfinite(values)]


def _limits(panel: Matrix) -> tuple[float, float]:
    """Of the scale of colours: fractions end at 1, what diverges is as wide on both sides of 0."""
    values = _finite(panel)
    if panel.diverging:
        reach = max(np.abs(panel.limits or values).max(initial=0), 0.05)
        return -reach, reach
    if panel.limits or not values.size:
        return panel.limits or (0.0, 1.0)
    low, high = values.min(), values.max()
    return (min(np.floor(low * 10) / 10, 0.9), 1.0) if low >= 0 and high <= 1 else (low, high)


def _shades(diverging: bool) -> Colormap:
    """Blues, or orange for losses and green for gains; grey where nothing is known."""
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    ends = [VERDICTS["negative"], "#ffffff", VERDICTS["positive"]]
    gains = LinearSegmentedColormap.from_list("gains", ends)
    return (gains if diverging else matplotlib.colormaps["Blues"]).with_extremes(bad="#dddddd")


def _name_cells(ax: Axes, rows: Sequence[str], columns: Sequence[str], row, cell, upright) -> None:
    """As many names as there is room for: texts, as ticks take several times as long."""
    from matplotlib.transforms import offset_copy

    ax.set(xticks=[], yticks=[])
    beside, below = (
        offset_copy(transform, ax.figure, *shift, units="points")
        for transform, shift in (
            (ax.get_yaxis_transform(), (-GAP, 0)),
            (ax.get_xaxis_transform(), (0, -GAP)),
        )
    )
    look = {"transform": beside, "ha": "right", "va": "center_baseline", "fontsize": TYPE}
    down = range(0, len(rows), math.ceil(LINE / row))
    names = [ax.text(0, place, rows[place], **look) for place in down]
    look = {"transform": below, "ha": "center", "va": "top", "rotation": 90 if upright else 0}
    look["fontsize"] = TYPE if upright or LETTER * _longest([columns]) <= cell else SMALLER * TYPE
    across = range(0, len(columns), math.ceil(LINE / cell) if upright else 1)
    headings = [ax.text(place, 0, columns[place], **look) for place in across]
    ax.yaxis.labelpad += GAP + _largest(names, "width")
    ax.xaxis.labelpad += GAP + _largest(headings, "height")


def _largest(texts: Sequence[Text], side: str) -> float:
    """In typographical points; the layout need not measure the others."""
    renderer = texts[0].figure.canvas.get_renderer()
    sizes = [getattr(text.get_window_extent(renderer), side) for text in texts]
    for place, text in enumerate(texts):
        text.set_in_layout(place in (0, np.argmax(sizes), len(texts) - 1))
    return max(sizes) * 72 / texts[0].figure.dpi


def _write(ax: Axes, image: AxesImage, panel: Matrix) -> None:
    """The number of each cell, white on what is dark."""
    from matplotlib.collections import PathCollection
    from matplotlib.transforms import Affine2D

    values = image.get_array().filled(np.nan)
    # Relative luminance: below 0.18 white has more contrast, above it black.
    light = image.to_rgba(values)[..., :3] ** 2.2 @ (0.21, 0.72, 0.07) > 0.18
    texts = {cell: _number(value, panel) for cell, value in np.ndenumerate(values)}
    cells = [cell for cell, text in texts.items() if text]
    # One artist: a text each would take most of the time in which a report is drawn.
    numbers = PathCollection(
        [_outline(texts[cell]) for cell in cells],
        offsets=np.reshape(cells, (-1, 2))[:, ::-1],
        offset_transform=ax.transData,
        facecolors=["black" if light[cell] else "white" for cell in cells],
        linewidths=0,
    )
    numbers.set_transform(Affine2D().scale(1 / 72) + ax.figure.dpi_scale_trans)
    numbers.set_in_layout(False)  # or the layout measures thousands of them
    ax.add_collection(numbers, autolim=False)


@functools.cache
def _outline(text: str) -> Path:
    """A number as a path in typographical points, its middle at the origin."""
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    path = TextPath((0, 0), text, size=9)
    corners = path.vertices[path.codes != path.CLOSEPOLY]
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    return path.transformed(Affine2D().translate(*-middle))


def _number(value: float, panel: Matrix) -> str:
    """`.87`, `1` for what rounds to it, `12.3`, `1.2e+06`; nothing where nothing is known."""
    if not np.isfinite(value):
        return ""
    size = math.floor(math.log10(abs(value))) if value else 0
    style = f".{max(0, panel.digits - max(0, size))}f" if size < 5 else ".1e"
    text = f"{value:{'+' if panel.diverging else ''}{style}}"
    if panel.sparse and float(text) == 0:
        return ""
    if abs(float(text)) == 1:
        return text.partition(".")[0]
    return re.sub(r"^([+-]?)0\.", r"\1.", text)


def _frame(ax: Axes, cells: Sequence[tuple[int, int]], pen: tuple[str, float]) -> None:
    from matplotlib.patches import Rectangle

    for row, column in cells:
        corner = (column - 0.46, row - 0.46)
        look = {"fill": False, "edgecolor": pen[0], "linewidth": pen[1]}
        ax.add_patch(Rectangle(corner, 0.92, 0.92, **look))


def _longest(names: Sequence[Sequence[str]]) -> int:
    return max((len(name) for each in names for name in each), default=0)
