"""The primary metric at each point of a sweep over one field, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl.report import wording
from jaxtl.report.figures.canvas import (
    BASELINE,
    LETTER,
    canvas,
    legend,
    plain_log,
    saved,
    short,
    shortened,
    styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jaxtl.report.sweeps import Points

ROOM = 380  # typographical points along the axis


@saved
def sweep(summary: Mapping[str, Any], of: Points) -> Figure:
    """The metric above, its gain over the baseline below: mean and 95% interval of every arm."""
    metric, baseline = summary["primary"]["metric"], summary["baseline"]
    points, arms = of.points, of.arms
    looks = styles(dict.fromkeys([*summary["arms"], *arms]), baseline)
    title = f"Sweep over {of.title}: mean and 95% interval"
    figure, axes = canvas(2, 1, 6.0, title)
    gap = min(6.0, 0.7 * ROOM / (len(points) * len(arms)))  # between arms at one point
    handles = {}
    for ax, kind in zip(axes[:, 0], ("metrics", "gain"), strict=True):
        places, ordered = _axis(ax, of)
        limits = wording.limits(metric) if kind == "metrics" else None
        for index, name in enumerate(arms):
            statistics = [each["arms"].get(name, {}).get(kind, {}).get(metric) for each in points]
            picked = summary["tuned"].get(name, {}).get("config")
            stars = [point["config"] == picked for point in points]
            shift = gap * (index - (len(arms) - 1) / 2)
            look = looks[name] if ordered else {**looks[name], "linestyle": ""}
            measured = [
                point
                for point in zip(places, statistics, stars, strict=True)
                if point[1] and point[1]["mean"] is not None
            ]
            if measured:
                measured.sort(key=lambda point: point[0])
                handles[name] = _draw(ax, measured, shift, look, limits)
        ax.grid(True)
        ax.autoscale_view(scalex=False)
        if ordered:
            _fit(ax, places, gap * len(arms) / 2 + 6)
    upper, lower = axes[:, 0]
    name = short(metric, 30)
    upper.set_title(f"{name}{' (star: picked by validation)' if summary['tuned'] else ''}")
    lower.set_title(f"Gain in {name} over {short(baseline, 30)}, paired by seed; above 0: better")
    lower.axhline(0, color=BASELINE, linewidth=1.2)
    legend(figure, handles)
    return figure


def _fit(ax: Axes, places: Sequence[float], room: float) -> None:
    """Limits of an axis of numbers with `room`, typographical points, beside the outer places."""
    ends = ax.transScale.transform([(min(places), 1), (max(places), 1)])[:, 0]
    margin = np.ptp(ends) * room / (ROOM - 2 * room)
    if margin:
        limits = [(ends[0] - margin, 0), (ends[1] + margin, 0)]
        ax.set_xlim(ax.transScale.inverted().transform(limits)[:, 0])


def _draw(
    ax: Axes,
    points: Sequence[tuple[float, Mapping[str, Any], bool]],
    shift: float,
    look: Mapping[str, Any],
    limits: tuple[float, float] | None,
) -> Any:
    """Means with intervals, `shift` points of type beside their places; returns the line.

    Args:
        points: (place, statistics, whether it was picked).
        limits: where intervals end, with an arrow.
    """
    from matplotlib.transforms import offset_copy

    beside = offset_copy(ax.transData, ax.figure, x=shift, units="points")
    style = {"color": look["color"], "transform": beside}
    places, means = zip(*((place, entry["mean"]) for place, entry, _ in points), strict=True)
    (line,) = ax.plot(places, means, markersize=4, **look, transform=beside)
    low, high = limits or (-np.inf, np.inf)
    for place, entry, picked in points:
        ends = entry["ci95"] or [entry["mean"]] * 2
        bar = np.clip(ends, low, high)
        ax.plot([place] * 2, bar, linewidth=1, **style)
        ax.update_datalim([(place, bar[0]), (place, bar[1])])  # what is shifted is not counted
        if ends[0] < low:
            ax.plot(place, low, "v", markersize=4, clip_on=False, **style)
        if ends[1] > high:
            ax.plot(place, high, "^", markersize=4, clip_on=False, **style)
        if picked:
            ax.plot(place, entry["mean"], "*", markersize=13, markeredgecolor="white", **style)
    return line


def _axis(ax: Axes, of: Points) -> tuple[list[float], bool]:
    """Names the points along the axis; returns their places, and whether they are numbers."""
    fields = list(of.labels)
    values = [point["config"][fields[0]] for point in of.points]
    ax.set_xlabel(", ".join(fields))
    if len(fields) == 1 and all(type(value) in (int, float) for value in values):
        if min(values) > 0 and max(values) >= 20 * min(values):
            ax.set_xscale("log")
            plain_log(ax.xaxis)
        if len(values) <= 8:
            ax.set_xticks(values, [f"{value:g}" for value in values])
            ax.minorticks_off()
        return list(map(float, values)), True
    columns = [shortened(texts, 20) for texts in of.labels.values()]
    names = ["\n".join(parts) for parts in zip(*columns, strict=True)]
    longest = max(len(name) for column in columns for name in column)
    upright = longest * LETTER * 72 > ROOM / len(names)
    ax.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
    ax.set_xlim(-0.5, len(names) - 0.5)
    return list(range(len(names))), False
