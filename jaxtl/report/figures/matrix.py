"""Heat maps: a matrix panel as a PNG."""

from __future__ import annotations

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

MOST_NUMBERS = 20  # columns with a number in each cell
NAME, HEADING = 20, 14  # letters of the name of a row, of a column
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
    """As many names as there is room for."""
    across = range(0, len(columns), math.ceil(LINE / cell) if upright else 1)
    down = range(0, len(rows), math.ceil(LINE / row))
    ax.set_xticks(across, [columns[place] for place in across], rotation=90 if upright else 0)
    if not upright and LETTER * _longest([columns]) > cell:
        ax.tick_params(axis="x", labelsize=8.5)
    ax.set_yticks(down, [rows[place] for place in down])
    ax.tick_params(length=0)
    ax.grid(False)


def _write(ax: Axes, image: AxesImage, panel: Matrix) -> None:
    """The number of each cell, white on what is dark."""
    for (row, column), value in np.ndenumerate(image.get_array().filled(np.nan)):
        if not (text := _number(value, panel)):
            continue
        # Relative luminance: below 0.18 white has more contrast, above it black.
        light = np.dot(np.power(image.to_rgba(value)[:3], 2.2), (0.21, 0.72, 0.07)) > 0.18
        place = {"ha": "center", "va": "center", "fontsize": 9}
        label = ax.text(column, row, text, color="black" if light else "white", **place)
        label.set_in_layout(False)  # or the layout measures thousands of them


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
