"""What a chain of stages measured after each of its stages, and what later tasks did to earlier."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl.plan import key_parts
from jaxtl.report.figures.canvas import ARMS, INK, canvas, saved, shortened
from jaxtl.report.summary import primary_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@saved
def matrices(summary: Mapping[str, Any]) -> Figure:
    """A panel an arm: each evaluation (column) after each stage (row), means over seeds."""
    arms = {name: arm for name, arm in summary["arms"].items() if "by_stage" in arm}
    tables = {name: table(arm) for name, arm in arms.items()}
    kind = primary_metric(summary).name
    numbers = np.concatenate([values.ravel() for _, _, values in tables.values()])
    finite = numbers[np.isfinite(numbers)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = np.floor(low * 10) / 10, 1.0
    columns = min(3, len(tables))
    rows = math.ceil(len(tables) / columns)
    widest, tallest = (max(values.shape[i] for *_, values in tables.values()) for i in (1, 0))
    size = (columns * (1.3 + 0.46 * widest) + 0.8, rows * (1.0 + 0.36 * tallest) + 0.6)
    title = f"{kind} after each stage, mean over seeds; framed: the task of the stage"
    figure, axes = canvas(rows, columns, *size, title)
    image = None
    for ax, (name, (stages, evaluations, values)) in zip(axes.flat, tables.items(), strict=False):
        ax.grid(False)
        image = ax.imshow(values, cmap=_greens(), vmin=low, vmax=high, aspect="auto")
        labels = shortened(evaluations, 16)
        long = max(map(len, labels)) > 7
        ax.set_xticks(range(len(labels)), labels, rotation=90 if long else 0, fontsize=7)
        short = shortened((stage.removeprefix(f"{name}_") for stage in stages), 16)
        ax.set_yticks(range(len(stages)), short, fontsize=7)
        ax.tick_params(length=0)
        ax.set_title(*shortened([name], 24))
        ax.set_ylabel("after stage")
        _write(ax, values, (low + high) / 2)
        _frame(ax, stages, evaluations, arms[name].get("own_stages", {}))
    for ax in list(axes.flat)[len(tables) :]:
        ax.axis("off")
    (label,) = shortened([kind], 30)
    figure.colorbar(image, ax=axes, shrink=0.7, label=label, pad=0.02)
    return figure


def table(arm: Mapping[str, Any]) -> tuple[list[str], list[str], np.ndarray]:
    """(stages, evaluations, means [stages, evaluations]) of an arm of a summary; NaN if unknown."""
    found = arm["by_stage"]
    metrics = list(dict.fromkeys(metric for row in found.values() for metric in row))
    nothing = {"mean": None}
    means = [[row.get(metric, nothing)["mean"] for metric in metrics] for row in found.values()]
    evaluations = [key_parts(metric)[0] for metric in metrics]
    return list(found), evaluations, np.array(means, np.float64)  # None becomes NaN


def _greens():
    """Greens with grey where nothing was measured."""
    import matplotlib

    return matplotlib.colormaps["YlGn"].with_extremes(bad="#eeeeee")


def _write(ax: Axes, values: np.ndarray, dark: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value > dark else INK
            text = {"ha": "center", "va": "center", "fontsize": 7, "color": colour}
            ax.text(column, row, f"{value:.3f}" if abs(value) < 1 else f"{value:.3g}", **text)


def _frame(
    ax: Axes, stages: Sequence[str], evaluations: Sequence[str], own_stages: Mapping[str, str]
) -> None:
    from matplotlib.patches import Rectangle

    for column, evaluation in enumerate(evaluations):
        own = own_stages.get(evaluation)
        if own in stages:
            corner = (column - 0.46, stages.index(own) - 0.46)
            ax.add_patch(
                Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=ARMS[1], linewidth=1.6)
            )
