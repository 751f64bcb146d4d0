"""Arms of several runs: what they measured, and how they differ from the first run, as a PNG."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl.report import wording
from jaxtl.report.across.comparison import Facts, Row
from jaxtl.report.figures.canvas import BASELINE, FAINT, INK, VERDICTS, canvas, saved, short
from jaxtl.report.figures.canvas import shortened as shorten
from jaxtl.report.figures.gains import piles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = 0.27  # inches a run of an arm, and the arm's name above its runs
NAME = 22  # letters of a label


def draw_runs(facts: Facts) -> Figure:
    """On the left the metric, on the right the difference: mean, interval and a dot a seed."""
    key = facts.metric.key
    title = (
        f"{key}, and by how much it is better than in {facts.reference}: mean, 95% interval and a "
        "dot a seed"
    )
    outer = wording.limits(key)
    labels = dict(zip([s.label for s in facts.sides], _names(facts), strict=True))
    places, headings = {}, {}
    for row in facts.rows:  # an arm's name has a line of its own
        if row.arm not in headings:
            headings[row.arm] = len(places) + len(headings)
        places[row.arm, row.run] = len(places) + len(headings)
    count = len(places) + len(headings)
    figure, axes = canvas(1, 2, 0.9 + LINE * count, title)
    left, right = axes[0]
    right.axvline(0, color=INK, linewidth=1.2)
    left.set_xlim(*_limits([row.measured for row in facts.rows], outer))
    differences = [row.difference for row in facts.rows if row.difference]
    right.set_xlim(*_limits([*differences, {"mean": 0.0, "ci95": None, "per_seed": []}]))
    for row in facts.rows:
        place, colour = places[row.arm, row.run], VERDICTS.get(row.verdict or "", BASELINE)
        _draw(left, place, row.measured, BASELINE, row, outer)
        if row.difference is not None and row.verdict:
            _draw(right, place, row.difference, colour, row)
    ticks = [*headings.values(), *places.values()]
    names = [*shorten(headings, NAME), *(labels[run] for _, run in places)]
    left.set_yticks(ticks, names)
    for text in left.get_yticklabels()[: len(headings)]:
        text.set_fontweight("bold")
    right.set_yticks([])
    for ax in (left, right):
        ax.set_ylim(count - 0.4, -0.6)
        ax.grid(axis="x")
        ax.locator_params(axis="x", nbins=4)
        ax.tick_params(axis="y", length=0)
        for place in headings.values():
            if place:
                ax.axhline(place - 0.5, color=FAINT, linewidth=0.8)
    better = "low" if facts.metric.better == "min" else "high"
    left.set_xlabel(f"{short(key, 20)} (better {better})")
    right.set_xlabel("worse  ←   →  better")
    return figure


def png_of_runs(facts: Facts) -> bytes:
    """The picture as the bytes of a PNG."""
    with tempfile.TemporaryDirectory() as folder:
        return saved(draw_runs)(Path(folder, "runs.png"), facts).read_bytes()


def _names(facts: Facts) -> list[str]:
    return shorten([side.label for side in facts.sides], NAME)


def _draw(
    ax: Axes,
    place: int,
    statistics: Mapping[str, Any],
    colour: str,
    row: Row,
    outer: tuple[float, float] | None = None,
) -> None:
    """Mean, interval and seeds; an arrow where the interval leaves the axis, or lies `outer`."""
    left, right = ax.get_xlim()
    dots = sorted(value for value in statistics["per_seed"] if value is not None)
    heights = 0.18 + 0.13 * np.minimum(piles(dots, (right - left) / 60), 2)
    ax.plot(dots, place + heights, ".", color=FAINT, markersize=5, zorder=1)
    low, high = (max(left, outer[0]), min(right, outer[1])) if outer else (left, right)
    if statistics["mean"] is None:
        ax.annotate("no number", (0.5, place), xycoords=("axes fraction", "data"), va="center")
        return
    if statistics["ci95"]:
        start, end = statistics["ci95"]
        ax.plot(np.clip([start, end], low, high), [place] * 2, color=colour, linewidth=2.2)
        for beyond, edge, mark in ((start < low, low, "<"), (end > high, high, ">")):
            if beyond:
                ax.plot(edge, place, mark, color=colour, markersize=5, clip_on=False)
    face = "white" if row.verdict == "undecided" and colour != BASELINE else colour
    ax.plot(statistics["mean"], place, "o", color=colour, markerfacecolor=face, markersize=6)


def _limits(
    statistics: Sequence[Mapping[str, Any]], outer: tuple[float, float] | None = None
) -> tuple[float, float]:
    """Room for all seeds, means and intervals, of very wide intervals a part.

    Args:
        outer: ends beyond which the metric has no values.
    """
    dots = [value for each in statistics for value in each["per_seed"] if value is not None]
    dots += [each["mean"] for each in statistics if each["mean"] is not None]
    dots += [end for each in statistics if not each["per_seed"] for end in each["ci95"] or ()]
    ends = [end for each in statistics for end in each["ci95"] or ()]
    if not dots:
        return 0.0, 1.0
    width = max(dots) - min(dots) or abs(dots[0]) or 1.0
    low = max(min([*dots, *ends]), min(dots) - width)
    high = min(max([*dots, *ends]), max(dots) + width)
    if outer:  # but a value that lies beyond is shown where it lies
        low, high = max(low, min(outer[0], *dots)), min(high, max(outer[1], *dots))
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin
