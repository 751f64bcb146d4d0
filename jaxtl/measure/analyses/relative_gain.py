"""Delta_p: how much better tasks are together than each is alone, relative to what it is alone."""

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxtl.measure.declarations import declared_metrics
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.paths import unknown
from jaxtl.plan import Analysis, Experiment, Metric, Panel, Table, key_parts

MEAN = "mean of tasks"


def relative_gain(alone: Mapping[str, str]) -> Analysis:
    """The mean over tasks of a metric's relative gain over a single-task arm of the same seed.

    Delta_p = 1 / K sum_k s_k (m_k - b_k) / |b_k| with s_k = 1 where larger is better and -1 where
    smaller is. Relative changes of an accuracy and of an error differ much in size: metrics of one
    kind make a mean that speaks for all tasks.

    Args:
        alone: {metric of a task, such as "odd/accuracy": the arm that trains it alone}. The arm may
            be one for all tasks, of a network for each.

    Maninis, Radosavovic & Kokkinos, "Attentive Single-Tasking of Multiple Tasks", CVPR 2019.
    arXiv:1904.08918, Eq. 4.
    """
    return Analysis(
        "relative_gain",
        functools.partial(_measure, list(alone)),
        functools.partial(_panels, dict(alone)),
        check=functools.partial(_problems, dict(alone)),
    )


def delta_p(
    metrics: Mapping[str, np.ndarray], alone: Mapping[str, np.ndarray], signs: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Relative gains [seeds] of tasks, and their mean first.

    Args:
        metrics, alone: {metric: [seeds]} of all tasks together, and of each alone.
        signs: {metric: 1 where larger is better, else -1}.

    Returns:
        NaN where a single-task value is 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = {
            key: signs[key] * (metrics[key] - value) / np.where(value == 0, np.nan, np.abs(value))
            for key, value in alone.items()
        }
    return {MEAN: np.mean(list(gains.values()), axis=0), **gains}


def _measure(keys: Sequence[str], arm: TrainedArm) -> dict[str, np.ndarray]:
    """The tasks' metrics of an arm after its last stage, of those whose head it has."""
    metrics = {}
    for key in keys:
        evaluation, name = key_parts(key)
        if evaluation in arm.at_end:
            metrics[key] = np.where(arm.failed, np.nan, arm.at_end[evaluation].metrics[name])
    return metrics


def _panels(
    alone: Mapping[str, str], arms: Mapping[str, Mapping], comparison: Comparison
) -> dict[str, Panel]:
    if missing := [arm for arm in dict.fromkeys(alone.values()) if arm not in arms]:
        raise ValueError(f"no arm {missing[0]!r} was trained, which gains are relative to")
    declared = {metric.key: metric for metric in (*comparison.declared, comparison.primary)}
    signs = {key: declared[key].sign for key in alone}
    single = {key: np.asarray(arms[arm][key]) for key, arm in alone.items()}
    rows = {
        name: delta_p({key: np.asarray(v) for key, v in measured.items()}, single, signs)
        for name, measured in arms.items()
        if name not in alone.values() and measured.keys() == alone.keys()
    }
    note = (
        "Relative change of each task's metric from the same seed of the arm that trains it alone, "
        "above 0 where it is better; their mean is Delta_p."
    )
    title = "Gain over tasks trained alone"
    return {"relative_gain": Table(title, note, rows, signed=True, printed=True)} if rows else {}


def _problems(alone: Mapping[str, str], experiment: Experiment) -> Iterator[str]:
    """What is wrong with the metrics and arms that were named, a line each."""
    declared: Mapping[str, Metric] = declared_metrics(experiment)
    for key, arm in alone.items():
        if key_parts(key)[0] not in experiment.evals or key not in declared:
            keys = [name for name in declared if key_parts(name)[0] in experiment.evals]
            yield f"relative_gain: {unknown('metric', key, keys)}"
        if arm not in experiment.arms:
            yield f"relative_gain: {unknown('arm', arm, experiment.arms)}"
