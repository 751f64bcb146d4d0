"""Heat maps: a matrix panel as a PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxtl.plan.panel import Matrix
from jaxtl.report.figures.canvas import (
    ARMS,
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


@saved
def matrix(panel: Matrix) -> Figure:
    """A heat map a grid, all with one scale; numbers in the cells where columns are few."""
    grids = list(panel.grids.values())
    rows = [shortened(grid.rows, NAME) for grid in grids]
    columns = [shortened(grid.columns, HEADING) for grid in grids]
    titles = shortened(panel.grids, NAME) if len(grids) > 1 else [""]
    height, width = (max(grid.values.shape[axis] for grid in grids) for axis in (0, 1))
    # As many grids side by side as have room for their numbers, names and titles.
    numbers = width <= MOST_NUMBERS
    cell = 0.08 * (panel.digits + 1 + panel.diverging) + 0.03
    beside = LETTER * _longest(rows) + 0.4
    tile = max(cell * width + beside, 1.2 * LETTER * _longest([titles])) if numbers else WIDTH
    count = max(1, min(len(grids), int((WIDTH - 0.1) / tile)))
    tile = max(tile, (WIDTH - SCALE) / count)
    cell = (tile - beside) / width
    upright = SMALLER * LETTER * _longest(columns) > cell
    below = LETTER * _longest(columns) if upright else 0.2
    row = ROW if numbers or height < width else cell
    size = (tile + SCALE / count, row * height + below + 0.6)
    figure, axes = tiles(len(grids), count, size, panel.title)
    low, high = _limits(panel)
    for ax, title, grid, *names in zip(axes, titles, grids, rows, columns, strict=True):
        image = ax.imshow(
            grid.values, cmap=_shades(panel.diverging), vmin=low, vmax=high, aspect="auto"
        )
        _name_cells(ax, *names, row, cell, upright)
        ax.set_title(title)
        ax.set_xlabel(panel.column)
        ax.set_ylabel(panel.row)
        if numbers:
            _write(ax, image, panel)
        _frame(ax, grid.framed)
    length = min(1.0, 3 / figure.get_figheight())
    figure.colorbar(
        image, ax=axes, label=short(panel.quantity, 30), pad=0.02, shrink=length, anchor=(0, 1)
    )
    return figure


def _limits(panel: Matrix) -> tuple[float, float]:
    """Of the scale of colours: fractions end at 1, what diverges is as wide on both sides of 0."""
    values = np.concatenate([np.ravel(grid.values) for grid in panel.grids.values()])
    values = values[np.isfinite(values)]
    if panel.diverging:
        reach = max(np.abs(panel.limits or values).max(initial=0), 0.05)
        return -reach, reach
    if panel.limits or not values.size:
        return panel.limits or (0.0, 1.0)
    low, high = values.min(), values.max()
    return (np.floor(low * 10) / 10, 1.0) if low >= 0 and high <= 1 else (low, high)


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
        text = f"{value:{'+' if panel.diverging else ''}.{panel.digits}f}"
        if not np.isfinite(value) or (panel.sparse and float(text) == 0):
            continue
        if panel.digits == 2:  # .87, and 1 for what rounds to it
            text = text.replace("0.", ".").replace("1.00", "1")
        # Relative luminance: below 0.18 white has more contrast, above it black.
        light = np.dot(np.power(image.to_rgba(value)[:3], 2.2), (0.21, 0.72, 0.07)) > 0.18
        place = {"ha": "center", "va": "center", "fontsize": 9}
        label = ax.text(column, row, text, color="black" if light else "white", **place)
        label.set_in_layout(False)  # or the layout measures thousands of them


def _frame(ax: Axes, cells: Sequence[tuple[int, int]]) -> None:
    from matplotlib.patches import Rectangle

    for row, column in cells:
        corner = (column - 0.46, row - 0.46)
        look = {"fill": False, "edgecolor": ARMS[1], "linewidth": 1.6}
        ax.add_patch(Rectangle(corner, 0.92, 0.92, **look))


def _longest(names: Sequence[Sequence[str]]) -> int:
    return max((len(name) for each in names for name in each), default=0)
