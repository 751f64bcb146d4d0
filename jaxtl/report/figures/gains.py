"""Gain of every arm over the baseline, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl.report import wording
from jaxtl.report.figures.canvas import (
    FAINT,
    INK,
    VERDICTS,
    canvas,
    saved,
    short,
    shortened,
)
from jaxtl.report.summary import primary_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.5  # inches an arm
UNKNOWN = {"mean": None, "ci95": None, "per_seed": []}


@saved
def gains(summary: Mapping[str, Any]) -> Figure:
    """A row an arm: mean, 95% interval, a dot a seed, and the verdict in words."""
    metric, baseline = primary_metric(summary), summary["baseline"]
    arms = wording.compared(summary)
    count = wording.seeds(len(summary["seeds"]))
    title = f"Gain over {baseline} in {metric.key}: mean, 95% interval and each of {count}"
    figure, axes = canvas(1, 1, 0.9 + ROW * len(arms), title)
    ax = axes[0, 0]
    ax.axvline(0, color=INK, linewidth=1.2)
    statistics = [arm["gain"].get(metric.key, UNKNOWN) for arm in arms.values()]
    ax.set_xlim(*_limits(statistics))
    ax.set_ylim(len(arms) - 0.4, -0.6)
    ax.locator_params(axis="x", nbins=5)
    for row, (gain, arm) in enumerate(zip(statistics, arms.values(), strict=True)):
        _draw(ax, row, gain, arm["verdict"])
    ax.set_yticks(range(len(arms)), shortened(arms, 20))
    ax.grid(axis="x")
    name = short(metric.key, 24)
    # Short, as the label is centred below axes that leave room for names and numbers.
    gain = f"gain: lower {name}" if metric.better == "min" else f"gain in {name}"
    ax.set_xlabel(f"worse  ←   {gain}   →  better")
    return figure


def _draw(ax: Axes, row: int, gain: Mapping[str, Any], verdict: str) -> None:
    colour = VERDICTS[verdict]
    low, high = ax.get_xlim()
    dots = sorted(value for value in gain["per_seed"] if value is not None)
    places = row + 0.2 + 0.07 * piles(dots, (high - low) / 60)
    ax.plot(dots, places, ".", color=FAINT, markersize=6, zorder=1)
    if gain["ci95"]:
        start, end = gain["ci95"]
        ax.plot(np.clip([start, end], low, high), [row, row], color=colour, linewidth=2.4)
        if start < low:
            ax.plot(low, row, "<", color=colour, clip_on=False)
        if end > high:
            ax.plot(high, row, ">", color=colour, clip_on=False)
    if gain["mean"] is not None:
        face = "white" if verdict == "undecided" else colour
        ax.plot(gain["mean"], row, "o", color=colour, markerfacecolor=face, markersize=8)
    text = wording.interval(gain, signed=True).replace(" [", f"  {verdict}\n[")
    text = text if "\n" in text else f"{text}  {verdict}"
    place = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 10}
    ax.annotate(text, (1.03, row), color=colour, annotation_clip=False, **place)


def piles(values: Sequence[float], distance: float) -> np.ndarray:
    """How many of the earlier ones each of some ascending values lies too close to."""
    heights: list[int] = []
    for index, value in enumerate(values):
        tied = index and value - values[index - 1] < distance
        heights.append(heights[-1] + 1 if tied else 0)
    return np.array(heights)


def _limits(statistics: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Room for zero, all seeds and all intervals; of very wide intervals only a part."""
    dots = [value for gain in statistics for value in gain["per_seed"] if value is not None]
    ends = [end for gain in statistics for end in gain["ci95"] or ()]
    reach = 2 * max(map(abs, dots), default=0.5) or 0.5
    low, high = (np.clip(pick([0.0, *dots, *ends]), -reach, reach) for pick in (min, max))
    if low == high:
        low, high = -reach, reach
    return low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9
