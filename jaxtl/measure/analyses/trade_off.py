"""What one task gives for another: arms in the plane of two metrics, beside fixed weights."""

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxtl.form import checked
from jaxtl.measure.declarations import declared_metrics
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.paths import unknown
from jaxtl.plan import Analysis, Cloud, Experiment, Metric, Panel, PyTree, Scatter, Table

BEHIND = "behind"
FIXED, FRONT, KNOWN = "fixed weights", "fixed weights' front", "known front"


@checked
def trade_off(
    first: Metric,
    second: Metric,
    *,
    swept: Sequence[str] = (),
    front: np.ndarray | None = None,
) -> Analysis:
    """Two metrics of each arm and seed, and the front of some arms.

    These are points, their means over seeds. The front is what is not dominated: no other arm of
    `swept` is better in one of the metrics and no worse in the other. A table says of every arm
    which of these dominate it, by the means.

    Args:
        first: along x.
        second: along y.
        swept: arms whose losses have fixed weights.
        front: [n, 2], values of both metrics that are known to be the best possible, in order.

    Raises:
        ValueError: (of the panel) no arm has a metric of that name.
    """
    compute = functools.partial(_panels, first, second, tuple(swept), front)
    check = functools.partial(_problems, (first, second), tuple(swept))
    return Analysis("trade_off", _measure, compute, check=check)


def _problems(
    metrics: Sequence[Metric], swept: Sequence[str], experiment: Experiment
) -> Iterator[str]:
    """A line for each name that is none of the experiment's."""
    declared = declared_metrics(experiment)
    for metric in metrics:
        evaluation = experiment.evals.get(metric.evaluation)
        silent = evaluation is not None and not evaluation.directions
        if metric.key not in declared and not silent:
            yield f"analysis 'trade_off': {unknown('metric', metric.key, declared)}"
    for name in swept:
        if name not in experiment.arms:
            yield f"analysis 'trade_off': swept: {unknown('arm', name, experiment.arms)}"


def _measure(arm: TrainedArm) -> np.ndarray:
    """Which seeds there are: the metrics of an arm are those that are compared."""
    return np.array(arm.seeds)


def _panels(
    first: Metric,
    second: Metric,
    swept: Sequence[str],
    front: np.ndarray | None,
    arms: Mapping[str, PyTree],
    comparison: Comparison,
) -> dict[str, Panel]:
    measured = {key: None for name in arms for key in comparison.arms[name].metrics}
    for metric in (first, second):
        if metric.key not in measured:
            raise ValueError(unknown("metric", metric.key, measured))
    points, rows = {}, {}
    for name in arms:
        metrics = comparison.arms[name].metrics
        values = [metrics.get(metric.key, np.array([np.nan])) for metric in (first, second)]
        rows[name] = dict(zip((first.key, second.key), values, strict=True))
        if all(np.isfinite(each).any() for each in values):
            points[name] = np.array([np.nanmean(each) for each in values])
    if not points:
        return {}
    signs = np.array([first.sign, second.sign])
    fixed = {name: point for name, point in points.items() if name in swept}
    if fixed:
        for name, point in points.items():
            better = [other for other in fixed if dominates(fixed[other], point, signs)]
            rows[name][BEHIND] = ", ".join(better) or "none"
    note = f"A point a seed; {_better(first)} and {_better(second)} are better."
    clouds = [] if front is None else [Cloud(KNOWN, np.asarray(front, float), joined=True)]
    if len(fixed) > 1:
        note += " Fixed weights are means over seeds."
        clouds += [
            Cloud(FRONT, undominated(np.stack(list(fixed.values())), signs), joined=True),
            Cloud(FIXED, np.stack(list(fixed.values()))),
        ]
    clouds += [
        Cloud(name, np.stack([rows[name][first.key], rows[name][second.key]], axis=1))
        for name in points
        if len(fixed) < 2 or name not in fixed
    ]
    title = f"{first.key} against {second.key}"
    known = " No arm can be beyond the known front." if front is not None else ""
    told = f" `{BEHIND}`: the fixed weights that are better in one and no worse in the other."
    return {
        "trade_off": Scatter(title, note + known, {"": clouds}, {"": (first.key, second.key)}),
        "trade_offs": Table(title, note + (told if fixed else ""), rows, folded=True),
    }


def _better(metric: Metric) -> str:
    return f"{'larger' if metric.sign > 0 else 'smaller'} {metric.key}"


def dominates(point: np.ndarray, other: np.ndarray, signs: np.ndarray) -> bool:
    """Whether a point [2] is better than another in one number and no worse in both."""
    gaps = signs * (point - other)
    return bool((gaps >= 0).all() and (gaps > 0).any())


def undominated(points: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Those of [n, 2] that no other dominates, by their first number."""
    chosen = [p for p in points if not any(dominates(other, p, signs) for other in points)]
    return np.array(sorted(map(tuple, chosen)))
