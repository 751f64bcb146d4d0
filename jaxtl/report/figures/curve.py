"""Lines over a common axis: a curve panel as a PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl.plan.panel import Curve, Line
from jaxtl.report.figures.canvas import canvas, colours, legend, plain_log, saved, short, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 80  # of a line; more are averaged in bins
MOST_MARKED = 12  # points of a line that are marked, each


@saved
def curve(panel: Curve, arms: Sequence[str], baseline: str) -> Figure:
    """A row of axes a quantity; lines with the name of an arm look like it in all pictures."""
    quantities, columns, names = (
        list(dict.fromkeys(getattr(line, field) for line in panel.lines))
        for field in ("quantity", "column", "name")
    )
    looks = styles(arms, baseline)
    others = [name for name in names if name not in looks]
    looks |= {name: {"color": shade, "marker": "o"} for name, shade in colours(others).items()}
    size = 0.5 + 2.0 * len(quantities), 3.3 * len(columns)
    figure, axes = canvas(len(quantities), len(columns), size[0], panel.title, size[1])
    handles: dict[str, Any] = {}
    for column, heading in enumerate(columns):
        filled = []
        for ax, quantity in zip(axes[:, column], quantities, strict=True):
            lines = [
                line for line in panel.lines if (line.quantity, line.column) == (quantity, heading)
            ]
            for line in lines:
                handles[line.name] = _draw(ax, line, looks[line.name])
            if lines:
                filled.append(ax)
                ax.set_ylabel(short(quantity, 30))
                _scale(ax, panel)
                ax.grid(True)
            else:
                ax.set_axis_off()
        filled[0].set_title(heading)
        filled[-1].set_xlabel(panel.x_label)
    legend(figure, {name: handles[name] for name in names}, title=_explanation(panel.lines))
    return figure


def _draw(ax: Axes, line: Line, look: Mapping[str, Any]) -> Any:
    """The mean over seeds in a band from the smallest seed to the largest; returns the line."""
    values = np.asarray(line.values, np.float64)
    rows = ~np.isnan(values).all(axis=1)
    size = _bin(line)
    x, values = (_averages(part[rows], size) for part in (np.asarray(line.x, float), values))
    look = {**look, "marker": look["marker"] if len(x) <= MOST_MARKED else "", "markersize": 4}
    (drawn,) = ax.plot(x, values.mean(axis=1), **look)
    if values.shape[1] > 1:
        ends = values.min(axis=1), values.max(axis=1)
        ax.fill_between(x, *ends, color=look["color"], alpha=0.14, linewidth=0)
    return drawn


def _bin(line: Line) -> int:
    """How many measured points a drawn one stands for."""
    return max(1, math.ceil((~np.isnan(line.values).all(axis=1)).sum() / MOST_POINTS))


def _averages(values: np.ndarray, size: int) -> np.ma.MaskedArray:
    """Means of `size` consecutive rows; what is not finite is masked."""
    starts = np.arange(0, len(values), size)
    counts = np.diff(np.append(starts, len(values))).reshape(-1, *[1] * (values.ndim - 1))
    with np.errstate(invalid="ignore"):
        return np.ma.masked_invalid(np.add.reduceat(values, starts, axis=0) / counts)


def _scale(ax: Axes, panel: Curve) -> None:
    """Logarithmic where most lines fall and stay above 0, over more than a factor of 30."""
    if panel.log_x:
        ax.set_xscale("log")
        plain_log(ax.xaxis)
    if panel.limits is not None:
        ax.set_ylim(*panel.limits)
        return
    lines = [np.ma.masked_invalid(line.get_ydata()).compressed() for line in ax.get_lines()]
    lines = [values for values in lines if values.size]
    values = np.concatenate(lines) if lines else np.array([0.0])
    falling = sum(values[-1] < values[0] for values in lines) > len(lines) / 2
    if falling and values.min() > 0 and values.max() > 30 * values.min():
        ax.set_yscale("log")
        plain_log(ax.yaxis)


def _explanation(lines: Sequence[Line]) -> str:
    parts = []
    if any(line.values.shape[1] > 1 for line in lines):
        parts.append("line: mean over seeds; band: smallest to largest seed")
    if (size := max(map(_bin, lines))) > 1:
        parts.append(f"points: means of up to {size} measured")
    return "; ".join(parts)
