"""Gains, sweeps, confusion and per-class scores, each as a PNG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl import metrics
from jaxtl.measure.results import ArmResult
from jaxtl.report import wording
from jaxtl.report.figures.canvas import (
    BASELINE,
    FAINT,
    INK,
    VERDICTS,
    canvas,
    legend_columns,
    legend_labels,
    plain_log,
    saved,
    shortened,
    styles,
)
from jaxtl.report.summary import primary_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ARM, TITLE, METRIC, CLASS = 30, 22, 40, 14  # characters of a name on an axis


@saved
def gains(summary: Mapping[str, Any]) -> Figure:
    """Gain of every arm over the baseline: mean, 95% interval, and a dot a seed."""
    metric, baseline = summary["primary"]["metric"], summary["baseline"]
    arms = wording.compared(summary)
    count = wording.seeds(len(summary["seeds"]))
    title = f"Gain over {baseline} in {metric}: mean, 95% interval and each of {count}"
    labels = shortened(arms, ARM)
    width = 8 + 0.07 * max(0, max(map(len, labels)) - 12)
    figure, axes = canvas(1, 1, width, 1.4 + 0.5 * len(arms), title)
    ax = axes[0, 0]
    ax.axvline(0, color=INK, linewidth=1.2)
    for row, arm in enumerate(arms.values()):
        gain = arm["gain"].get(metric, {"mean": None, "ci95": None, "per_seed": []})
        colour, decided = VERDICTS[arm["verdict"]], arm["verdict"] != "undecided"
        dots = [value for value in gain["per_seed"] if value is not None]
        ax.plot(dots, [row + 0.22] * len(dots), ".", color=FAINT, markersize=6, zorder=1)
        if gain["ci95"]:
            ax.plot(gain["ci95"], [row, row], color=colour, linewidth=2.4)
        if gain["mean"] is not None:
            face = colour if decided else "white"
            ax.plot(gain["mean"], row, "o", color=colour, markerfacecolor=face, markersize=8)
        text = f"{wording.interval(gain, signed=True)}  {arm['verdict']}"
        place = {"xycoords": ("axes fraction", "data"), "va": "center"}
        ax.annotate(text, (1.02, row), color=colour, annotation_clip=False, **place)
    ax.set_yticks(range(len(arms)), labels)
    ax.set_ylim(len(arms) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlim(*_limits([arm["gain"].get(metric) for arm in arms.values()]))
    (metric,), (baseline,) = shortened([metric], METRIC), shortened([baseline], ARM)
    lower = primary_metric(summary).better == "min"
    note = f" (a lower {metric} is a gain)" if lower else ""
    ax.set_xlabel(f"worse  ←   gain in {metric} over {baseline}{note}   →  better")
    return figure


@saved
def confusion(evaluation: str, arms: Mapping[str, ArmResult]) -> Figure:
    """A panel an arm: of each true class (row), the fraction predicted as each class (column)."""
    shown = {name: arm for name, arm in arms.items() if evaluation in arm.confusion}
    names = class_labels(evaluation, shown.values())
    size, titles = len(names), shortened(shown, TITLE)
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    title = f"Confusion on {evaluation}: predictions for each true class, mean over seeds"
    side = 2.9 if size <= 12 else 3.4
    figure, axes = canvas(rows, columns, side * columns + 0.8, side * rows + 0.5, title)
    long = max(map(len, names)) > 3
    every = math.ceil(size / 30)
    for index, ax in enumerate(axes.flat):
        ax.grid(False)
        if index >= len(shown):
            ax.axis("off")
            continue
        arm = list(shown.values())[index]
        rates = mean_rates(arm.confusion[evaluation])
        image = ax.imshow(rates, cmap=_blues(), vmin=0, vmax=1)
        ticks = range(0, len(rates), every)
        labels = [names[tick] for tick in ticks]
        ax.set_xticks(ticks, labels, rotation=90 if long else 0, fontsize=7)
        ax.set_yticks(ticks, labels, fontsize=7)
        ax.tick_params(length=0)
        ax.set_title(titles[index])
        ax.set_xlabel("predicted" if index + columns >= len(shown) else "")
        ax.set_ylabel("true" if index % columns == 0 else "")
        if size <= 12:
            _write_cells(ax, rates, 8 if size <= 6 else 6, below=0.005)
    figure.colorbar(
        image, ax=axes, shrink=0.6, label="fraction of the true class", pad=0.02, panchor=(0.0, 0.5)
    )
    return figure


def class_labels(evaluation: str, arms: Iterable[ArmResult]) -> list[str]:
    """A label for each output that an evaluation counts: its class, or its number without one.

    A head may have more outputs than its data have classes, or fewer.
    """
    largest = max(arms, key=lambda arm: arm.confusion[evaluation].shape[-1])
    size, names = largest.confusion[evaluation].shape[-1], largest.class_names.get(evaluation, ())
    numbers = [f"output {i}" if names else str(i) for i in range(len(names), size)]
    return shortened([*names, *numbers][:size], CLASS)


def _rows(values: Iterable[np.ndarray]) -> np.ndarray:
    """[arms, classes], NaN at the end of an arm whose head has fewer classes."""
    rows = list(values)
    most = max(map(len, rows))
    return np.stack([np.pad(row, (0, most - len(row)), constant_values=np.nan) for row in rows])


def mean_rates(counts: np.ndarray) -> np.ndarray:
    """[seeds, true, predicted] counts -> [true, predicted] rates; NaN where a class is absent."""
    counts = np.asarray(counts, np.float64)
    total = counts.sum(axis=-1, keepdims=True)
    rates = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return np.ma.masked_invalid(rates).mean(axis=0).filled(np.nan)


def class_f1(counts: np.ndarray) -> np.ndarray:
    """[seeds, true, predicted] counts -> [classes] F1, mean over the seeds where it is defined."""
    f1 = np.stack([metrics.per_class(seed)["f1"] for seed in counts])
    return np.ma.masked_invalid(f1).mean(axis=0).filled(np.nan)


@saved
def per_class(evaluation: str, arms: Mapping[str, ArmResult]) -> Figure:
    """F1 of every class (column) and arm (row)."""
    shown = {name: arm for name, arm in arms.items() if evaluation in arm.confusion}
    scores = _rows(class_f1(arm.confusion[evaluation]) for arm in shown.values())
    lowest = np.floor(np.nanmin(scores, initial=0.9) * 10) / 10
    title = f"F1 of each class on {evaluation}, mean over seeds"
    names = class_labels(evaluation, shown.values())
    shades = {"cmap": _blues(), "vmin": lowest, "vmax": 1}
    figure, ax = _by_class(scores, list(shown), names, title, "F1", shades)
    if scores.shape[1] <= 20:
        _write_cells(ax, scores, 8, dark=(1 + lowest) / 2)
    return figure


@saved
def class_gains(evaluation: str, arms: Mapping[str, ArmResult], baseline: str) -> Figure:
    """Recall of every class (column) and arm (row), less that of the baseline."""
    shown = {name: arm for name, arm in arms.items() if evaluation in arm.confusion}
    recalls = _rows(np.diagonal(mean_rates(arm.confusion[evaluation])) for arm in shown.values())
    recalls = dict(zip(shown, recalls, strict=True))
    before = recalls.pop(baseline)
    changes = np.stack(list(recalls.values())) - before
    reach = max(np.nanmax(np.abs(changes), initial=0.0), 0.05)
    title = f"Recall of each class on {evaluation} less that of {baseline}, mean over seeds"
    names = class_labels(evaluation, shown.values())
    shades = {"cmap": _gains_and_losses(), "vmin": -reach, "vmax": reach}
    figure, ax = _by_class(changes, list(recalls), names, title, "gain", shades)
    if changes.shape[1] <= 20:
        for (row, column), value in np.ndenumerate(changes):
            if np.isfinite(value):
                colour = "white" if abs(value) > 0.7 * reach else INK
                text = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
                ax.text(column, row, f"{value:+.2f}".replace("0.", "."), **text)
    return figure


def _by_class(
    values: np.ndarray,
    arms: Sequence[str],
    names: Sequence[str],
    title: str,
    label: str,
    shades: Mapping[str, Any],
) -> tuple[Figure, Axes]:
    """A heat map of values [arms, classes] with a scale of its shades."""
    count = values.shape[1]
    labels = shortened(arms, ARM)
    width = min(14.0, max(6.0, 2.4 + 0.62 * count) + 0.07 * max(0, max(map(len, labels)) - 12))
    figure, axes = canvas(1, 1, width, 1.5 + 0.36 * len(arms), title)
    ax = axes[0, 0]
    ax.grid(False)
    image = ax.imshow(values, aspect="auto", **shades)
    long = max(map(len, names)) > 6
    ticks = range(0, count, math.ceil(count / 40))
    ax.set_xticks(ticks, [names[tick] for tick in ticks], rotation=90 if long else 0)
    ax.set_yticks(range(len(arms)), labels)
    ax.tick_params(length=0)
    figure.colorbar(image, ax=ax, label=label, pad=0.02)
    return figure, ax


def _gains_and_losses():
    """Orange for losses, green for gains, grey where a class has no examples."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = [VERDICTS["negative"], "#ffffff", VERDICTS["positive"]]
    return LinearSegmentedColormap.from_list("gains", ends).with_extremes(bad="#dddddd")


def _blues():
    """Blues with grey where a class has no examples."""
    import matplotlib

    return matplotlib.colormaps["Blues"].with_extremes(bad="#eeeeee")


def _write_cells(ax: Axes, values: np.ndarray, size: float, below=0.0, dark=0.5) -> None:
    """Writes each value that is at least `below` into its cell, white where it is `dark`."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value) and value >= below:
            text = "1" if value > 0.995 else f"{value:.2f}".lstrip("0")
            colour = "white" if value > dark else INK
            ax.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def _limits(found: Sequence[Mapping[str, Any] | None]) -> tuple[float, float]:
    """Room for zero, all seeds and all intervals; of very wide intervals only a part."""
    dots = [value for gain in found if gain for value in gain["per_seed"] if value is not None]
    ends = [end for gain in found if gain for end in gain["ci95"] or ()]
    reach = 2 * max(map(abs, dots), default=0.5) or 0.5
    low, high = (np.clip(pick([0.0, *dots, *ends]), -reach, reach) for pick in (min, max))
    if low == high:
        low, high = -reach, reach
    return low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9


@saved
def sweep(summary: Mapping[str, Any]) -> Figure:
    """The primary metric and the gain over the baseline at each point of the sweep."""
    metric, baseline, points = summary["primary"]["metric"], summary["baseline"], summary["sweep"]
    arms = list(dict.fromkeys(name for point in points for name in point["arms"]))
    places, ticks, label = _axis([point["config"] for point in points])
    looks = styles(list(dict.fromkeys([*summary["arms"], *arms])), baseline)
    labels = legend_labels(arms)
    figure, axes = canvas(1, 2, 9.6, 4.0, f"Sweep over {label}: mean and 95% interval")
    spread = 0.06 if ticks else 0.0  # points on categories are moved apart
    for ax, kind in zip(axes[0], ("metrics", "gain"), strict=True):
        for index, name in enumerate(arms):
            shift = spread * (index - (len(arms) - 1) / 2)
            found = [
                (place + shift, point["arms"][name][kind][metric])
                for place, point in zip(places, points, strict=True)
                if metric in point["arms"].get(name, {}).get(kind, {})
            ]
            _line(ax, sorted(found, key=lambda pair: pair[0]), labels[index], looks[name])
            picked = summary["tuned"].get(name, {}).get("config")
            for place, point in zip(places, points, strict=True):
                value = point["arms"].get(name, {}).get(kind, {}).get(metric, {"mean": None})
                if point["config"] == picked and value["mean"] is not None:
                    star = {"color": looks[name]["color"], "markersize": 13, "zorder": 5}
                    ax.plot(place + shift, value["mean"], "*", markeredgecolor="white", **star)
        if ticks:
            ax.set_xticks(places, ticks, rotation=30 if max(map(len, ticks)) > 8 else 0)
        else:
            if min(places) > 0 and max(places) >= 20 * min(places):
                ax.set_xscale("log")
                plain_log(ax.xaxis)
            if len(places) <= 8:
                ax.set_xticks(places, [f"{place:g}" for place in places])
                ax.minorticks_off()
        ax.set_xlabel(label)
    (metric,), (baseline,) = shortened([metric], ARM), shortened([baseline], ARM)
    axes[0, 0].set_ylabel(metric)
    axes[0, 0].set_title(f"{metric}{' (star: picked by validation)' if summary['tuned'] else ''}")
    axes[0, 1].axhline(0, color=BASELINE, linewidth=1.2)
    axes[0, 1].set_ylabel(f"gain in {metric} (above 0: better)")
    axes[0, 1].set_title(f"Gain over {baseline}, paired by seed")
    columns = legend_columns(labels, 9.6, 6)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns)
    return figure


def _axis(configs: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[str], str]:
    """Places on the x axis, names of the ticks (none for numbers), its label."""
    fields = list(configs[0])
    values = [config[fields[0]] for config in configs]
    numeric = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    if len(fields) == 1 and numeric:
        return [float(value) for value in values], [], fields[0]
    columns = [shortened([str(config[field]) for config in configs], 20) for field in fields]
    names = ["\n".join(values) for values in zip(*columns, strict=True)]
    return [float(index) for index in range(len(names))], names, ", ".join(fields)


def _line(ax: Axes, found: Sequence[tuple[float, Mapping[str, Any]]], name: str, look) -> None:
    """Means joined by a line, with 95% intervals as bars where there are any."""
    found = [(x, value) for x, value in found if value["mean"] is not None]
    means = np.array([value["mean"] for _, value in found])
    ends = np.array([value["ci95"] or [value["mean"]] * 2 for _, value in found]).reshape(-1, 2)
    bars = np.abs(ends.T - means)
    if found:
        ax.errorbar(
            [x for x, _ in found],
            means,
            bars,
            label=name,
            marker="o",
            markersize=4,
            capsize=2,
            elinewidth=1,
            **look,
        )
