"""The points of a sweep by the fields that vary: a line over one, grids over two or three."""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtl.plan import Matrix
from jaxtl.plan.panel import Grid
from jaxtl.report import wording
from jaxtl.report.held_out import AS_TRAINED
from jaxtl.report.summary import primary_metric

MOST_GRIDS = 36
"""Heat maps in a picture; more are no picture but a table."""
MOST_ANSWERS = 5
"""Points that are answered in a sentence each."""
WIDEST = 10
"""Times the usual size of a number; the scale of colours ends below: what diverged is none."""


@dataclasses.dataclass(frozen=True)
class Points:
    """Those points of a summary that vary the same fields.

    Attributes:
        name: of its picture.
        points: in the order of the sweep.
        arms: names, the baseline first.
    """

    name: str
    points: Sequence[Mapping[str, Any]]
    arms: Sequence[str]

    @property
    def axes(self) -> dict[str, list[Any]]:
        """{field: its values} of those with more than one; numbers ascend, names stay in order."""
        fields = self.points[0]["config"]
        axes = {field: _ordered([p["config"][field] for p in self.points]) for field in fields}
        return {field: values for field, values in axes.items() if len(values) > 1}

    @property
    def labels(self) -> dict[str, list[str]]:
        """{field: a text a point} of the axes; of all fields for a single point."""
        fields = self.axes or self.points[0]["config"]
        return {field: [str(p["config"][field]) for p in self.points] for field in fields}

    @property
    def title(self) -> str:
        """`similarity and noise at steps=20`: what varies, and what does not."""
        fixed = {f: v for f, v in self.points[0]["config"].items() if f not in self.axes}
        place = f"{' at ' if self.axes else ''}{wording.point(fixed)}" if fixed else ""
        return wording.enumeration(list(self.axes)) + place


def points_of(summary: Mapping[str, Any]) -> list[Points]:
    """The points of a summary, apart where runs in its directory swept different fields."""
    groups: dict[frozenset[str], list[Mapping[str, Any]]] = {}
    for point in summary.get("sweep", ()):
        groups.setdefault(frozenset(point["config"]), []).append(point)
    result = []
    for index, points in enumerate(groups.values()):
        arms = dict.fromkeys(name for point in points for name in point["arms"])
        ranked = sorted(arms, key=lambda name: name != summary["baseline"])
        result.append(Points(f"sweep_{index + 1}" if index else "sweep", points, ranked))
    return result


def as_it_is(summary: Mapping[str, Any]) -> dict[str, Any]:
    """{field: value} of the swept fields in the experiment as it is; empty without a sweep."""
    fields = dict.fromkeys(field for each in summary.get("sweep", ()) for field in each["config"])
    result = {}
    for field in fields:
        value: Any = summary["config"]
        for part in field.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        result[field] = value
    return result


def is_as_it_is(summary: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a point of the sweep is the experiment as it is."""
    values = as_it_is(summary)
    return all(values[field] == value for field, value in config.items())


def answers(summary: Mapping[str, Any]) -> list[str]:
    """`At shift=inverted: No: ...`, the answer at each other point of a sweep over few names.

    A name stands for a question of its own, a number for a setting of the same one.
    """
    if "held_out" in summary:
        return [
            f"Over the domains held out{f' ({rule})' if rule != AS_TRAINED else ''}: "
            + wording.answer({**summary, "arms": arms})
            for rule, arms in itertools.islice(summary["held_out"]["rules"].items(), 1)
        ]
    points = [p for p in summary.get("sweep", ()) if not is_as_it_is(summary, p["config"])]
    values = [value for point in points for value in point["config"].values()]
    if len(points) > MOST_ANSWERS or not all(isinstance(value, str) for value in values):
        return []
    return [
        f"At {wording.point(point['config'])}: {wording.answer({**summary, 'arms': point['arms']})}"
        for point in points
    ]


def among_points(summary: Mapping[str, Any]) -> str:
    """` as it is (similarity=0.9, no point of the sweep)`; empty without a sweep."""
    if not summary.get("sweep"):
        return ""
    among = any(is_as_it_is(summary, each["config"]) for each in summary["sweep"])
    what = "a point of the sweep" if among else "no point of the sweep"
    return f" as it is ({wording.point(as_it_is(summary))}, {what})"


def at_points(summary: Mapping[str, Any], brief: bool = False) -> str:
    """What stands in the cells of a table of points.

    Args:
        brief: a mean with a mark only.
    """
    metric, baseline = summary["primary"]["metric"], summary["baseline"]
    picked = "; * picked by validation" if summary.get("tuned") else ""
    if brief:
        return f"mean {metric} (+ better than {baseline}, - worse, ? undecided{picked})"
    return f"{metric}, mean [95% interval], and gain over {baseline} (? undecided{picked})"


def matrices(summary: Mapping[str, Any], points: Points) -> dict[str, Matrix]:
    """{name: matrix} of points over two fields, or a few values of a third: metric, and gain.

    A grid an arm, its rows the values of the first field. NaN where no point is, or no number.
    """
    axes, metric = points.axes, primary_metric(summary)
    if len(axes) < 2:
        return {}
    (row, rows), (column, columns), *others = axes.items()
    slices = list(itertools.product(*(values for _, values in others)))
    if len(slices) * len(points.arms) > MOST_GRIDS:
        return {}

    def grids(kind: str, arms: Sequence[str]) -> dict[str, Grid]:
        result = {}
        for arm, values in itertools.product(arms, slices):
            fixed = dict(zip((field for field, _ in others), values, strict=True))
            cells, framed = np.full((len(rows), len(columns)), np.nan), []
            for point in points.points:
                config, entry = point["config"], point["arms"].get(arm, {})
                if any(config[field] != value for field, value in fixed.items()):
                    continue
                place = rows.index(config[row]), columns.index(config[column])
                mean = entry.get(kind, {}).get(metric.key, {"mean": None})["mean"]
                cells[place] = math.nan if mean is None else mean
                if is_framed(arm, kind, config, entry):
                    framed.append(place)
            title = ", ".join(filter(None, [arm, wording.point(fixed)]))
            result[title] = Grid([*map(str, rows)], [*map(str, columns)], cells, framed)
        return result

    def is_framed(arm: str, kind: str, config: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
        if kind == "gain":
            return entry.get("verdict") in ("positive", "negative")
        if summary["tuned"]:
            return summary["tuned"].get(arm, {}).get("config") == config
        return is_as_it_is(summary, config)

    better = "lower" if metric.better == "min" else "higher"
    title = f"Sweep over {points.title}"
    shared = {"note": "", "row": row, "column": column}
    made = grids("metrics", points.arms)
    framing = "picked by validation" if summary["tuned"] else "the experiment as it is"
    legend = f" (framed: {framing})" if any(grid.framed for grid in made.values()) else ""
    numbers = _finite(made)
    digits = _digits(numbers)
    result = {
        points.name: Matrix(
            f"{title}: mean {metric.key}, {better} is better{legend}",
            grids=made,
            quantity=metric.key,
            limits=None if wording.limits(metric.key) else _limits(numbers),
            digits=digits,
            **shared,
        )
    }
    compared = [arm for arm in points.arms if arm != summary["baseline"]]
    if compared:
        made = grids("gain", compared)
        result[f"{points.name}_gain"] = Matrix(
            f"{title}: gain over {summary['baseline']}, above 0 is better (framed: decided)",
            grids=made,
            quantity=f"gain in {metric.key}",
            limits=_limits(_finite(made)),
            digits=digits,
            diverging=True,
            **shared,
        )
    return result


def _finite(grids: Mapping[str, Grid]) -> np.ndarray:
    values = np.concatenate([np.ravel(grid.values) for grid in grids.values()])
    return values[np.isfinite(values)]


def _digits(values: np.ndarray) -> int:
    """As many decimals as give a usual number three digits."""
    sizes = np.abs(values[values != 0])
    return int(np.clip(2 - np.floor(np.log10(np.median(sizes))), 2, 5)) if sizes.size else 2


def _limits(values: np.ndarray) -> tuple[float, float] | None:
    """Of a scale that shows differences between the usual numbers; None without different ones."""
    if not values.size or values.min() == values.max():
        return None
    usual = values[np.abs(values) <= (WIDEST * np.median(np.abs(values)) or np.inf)]
    return float(usual.min()), float(usual.max())


def _ordered(values: Sequence[Any]) -> list[Any]:
    different = list({json.dumps(value): value for value in values}.values())
    numbers = all(type(value) in (int, float) for value in different)
    return sorted(different) if numbers else different
