"""Learning curves: training metrics by step, over the chains of all arms."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxtl.measure.results import ArmResult
from jaxtl.plan import CRITERIA, key_parts
from jaxtl.report.figures.canvas import (
    CLASSES,
    canvas,
    legend_columns,
    legend_labels,
    plain_log,
    saved,
    shortened,
    styles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ADVERSARIAL = ("domain_accuracy", "reversal")
MOST_POINTS = 80  # per line and stage; more are averaged in bins


@saved
def learning_curves(arms: Mapping[str, ArmResult], baseline: str) -> Figure:
    """Training metrics by step: first stages of chains on the left, what follows on the right."""
    return _panels(arms, baseline, curve_metrics(arms), "Training")


@saved
def adversaries(arms: Mapping[str, ArmResult], baseline: str) -> Figure:
    """Accuracy of the domain classifiers and coefficient of the gradient reversal by step."""
    shown = {name: arm for name, arm in arms.items() if is_adversarial(arm)}
    title = "Domain classifiers: accuracy (0.5 of two domains: fooled) and gradient reversal"
    found = {m for arm in shown.values() for c in arm.curves.values() for m in c}
    return _panels(shown, baseline, [m for m in ADVERSARIAL if m in found], title)


def is_adversarial(arm: ArmResult) -> bool:
    """Whether a stage of the arm logs the accuracy of a domain classifier."""
    return any(ADVERSARIAL[0] in curves for curves in arm.curves.values())


def _panels(
    arms: Mapping[str, ArmResult], baseline: str, metrics: Sequence[str], title: str
) -> Figure:
    """A row a metric: first stages of chains on the left, what follows on the right."""
    sources, tails = _chains(arms)
    if not any(metric in curves for metric in metrics for _, (curves,) in sources):
        sources = []
    looks = styles(list(arms), baseline)
    source_looks = {
        name: {"color": CLASSES[i % len(CLASSES)]} for i, name in enumerate(dict(sources))
    }
    panels = [("Source stages", sources, source_looks), ("Target stages", tails, looks)]
    panels = [panel for panel in panels if panel[1]]
    width = 3.9 * len(panels) + 1.4
    keys = [legend_labels(name for name, _ in lines) for _, lines, _ in panels]
    columns = [legend_columns(labels, 4.2, 3) for labels in keys]
    entries = max(math.ceil(len(k) / c) for k, c in zip(keys, columns, strict=True))
    height = 0.8 + 2.3 * len(metrics) + 0.17 * entries
    figure, axes = canvas(len(metrics), len(panels), width, height, title)
    bins = 1
    for column, (heading, lines, look) in enumerate(panels):
        for row, metric in enumerate(metrics):
            ax = axes[row, column]
            for (name, stages), label in zip(lines, keys[column], strict=True):
                bins = max(bins, _curve(ax, stages, metric, label, look[name]))
            _finish_curves(ax, metric, heading if row == 0 else "", row == len(metrics) - 1)
            if not ax.has_data():
                ax.set_axis_off()
        handles = {
            label: handle
            for ax in axes[:, column]
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        # Below the axis by a length of type, whatever the height of the axes.
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 4.5}
        axes[-1, column].legend(
            handles.values(), handles.keys(), ncols=columns[column], fontsize=8, **place
        )
    still = [name for name, arm in arms.items() if not any(map(len, arm.curves.values()))]
    note = "line: mean over seeds; band: smallest to largest seed"
    note += f"; points: means of up to {bins} logged steps" if bins > 1 else ""
    still = textwrap.fill(", ".join(shortened(still, 30)), int(13 * width))
    note += f"\nno training steps: {still}" if still else ""
    figure.supxlabel(note, fontsize=8, color="#777777")
    return figure


def _chains(arms: Mapping[str, ArmResult]):
    """([(stage, its curves)] of first stages, [(arm, curves of its other stages)])."""
    sources, tails = {}, []
    for name, arm in arms.items():
        first = arm.stages[:1] if len(arm.stages) > 1 else ()
        sources |= {stage: [arm.curves[stage]] for stage in first if arm.curves.get(stage)}
        rest = [arm.curves[stage] for stage in arm.stages[len(first) :] if arm.curves.get(stage)]
        if rest:
            tails.append((name, rest))
    return list(sources.items()), tails


def curve_metrics(arms: Mapping[str, ArmResult], limit: int = 3) -> list[str]:
    """The metrics that most stages logged, the loss first."""
    count: dict[str, int] = {}
    for curves in {stage: c for arm in arms.values() for stage, c in arm.curves.items()}.values():
        shown = {m for m in curves if key_parts(m)[0] != CRITERIA and m not in ADVERSARIAL}
        for metric in shown - {"step"}:
            count[metric] = count.get(metric, 0) + 1
    return sorted(count, key=lambda metric: (metric != "loss", -count[metric], metric))[:limit]


def _curve(ax: Axes, stages: Sequence[Mapping[str, np.ndarray]], metric: str, label, look) -> int:
    """One line a stage, one after the other; returns how many logged steps a point stands for."""
    offset, longest = 0, 1
    for curves in stages:
        step = np.asarray(curves["step"], np.float64)
        if metric in curves and np.isfinite(curves[metric]).any():
            value = np.asarray(curves[metric], np.float64).reshape(step.size, -1)
            logged = ~np.isnan(value).all(axis=1)
            step, value = step[logged], value[logged]
            size = math.ceil(step.size / MOST_POINTS)
            longest = max(longest, size)
            step, value = _binned(step, size) + offset, _binned(value, size)
            ax.plot(step, value.mean(axis=1), label=label, **look)
            label = None
            if value.shape[1] > 1:
                band = {"color": look["color"], "alpha": 0.14, "linewidth": 0}
                ax.fill_between(step, value.min(axis=1), value.max(axis=1), **band)
        offset += int(curves["step"][-1]) + 1 if len(step) else 0
    return longest


def _binned(values: np.ndarray, size: int) -> np.ma.MaskedArray:
    """Means of `size` consecutive rows; what is not finite is masked."""
    starts = np.arange(0, len(values), size)
    counts = np.diff(np.append(starts, len(values))).reshape(-1, *[1] * (values.ndim - 1))
    with np.errstate(invalid="ignore"):
        return np.ma.masked_invalid(np.add.reduceat(values, starts, axis=0) / counts)


def _finish_curves(ax: Axes, metric: str, title: str, last: bool) -> None:
    ax.set_ylabel(*shortened([metric], 30))
    if title:
        ax.set_title(title)
    if last:
        ax.set_xlabel("step")
    lines = [np.ma.masked_invalid(line.get_ydata()).compressed() for line in ax.get_lines()]
    lines = [values for values in lines if values.size]
    drawn = np.concatenate(lines) if lines else np.array([])
    falls = sum(values[-1] < values[0] for values in lines) > len(lines) / 2
    if falls and drawn.min() > 0 and drawn.max() > 30 * drawn.min():
        ax.set_yscale("log")
        plain_log(ax.yaxis)
