"""Chains of tasks: every evaluation after every stage, what later tasks do to former ones."""

from collections.abc import Mapping

import numpy as np

from jaxtl.measure.declarations import declared_metrics, teaching_stages
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.measure.verdict import estimate
from jaxtl.plan import Analysis, Grid, Matrix, Metric, Panel, Table, key_parts

History = Mapping[str, Mapping[str, np.ndarray]]
"""{stage: {"<evaluation>/<metric>": [seeds]}}, of one metric."""


def by_stage() -> Analysis:
    """The primary kind of metric on each evaluation after each stage of a chain of tasks."""
    return Analysis("by_stage", measure_history, history_panels, in_summary=True)


def own_stages() -> Analysis:
    """The stage that teaches each task, which the matrix of `by_stage` frames."""
    return Analysis("own_stages", measure_own_stages, in_summary=True)


def backward_transfer() -> Analysis:
    """How much better former tasks are at the end than when they had just been trained."""
    return Analysis("backward_transfer", measure_change, change_panels, in_summary=True)


def measure_history(arm: TrainedArm) -> History:
    """Of arms with three or more stages, and of those two of whose stages say what they train."""
    kind = arm.experiment.primary.name
    if len(arm.stages) < 3 and sum(bool(stage.trains) for stage in arm.stages) < 2:
        return {}
    history = {}
    for stage in arm.stages:
        measured = arm.measured[stage.name]
        history[stage.name] = {
            f"{name}/{kind}": measured[name].metrics[kind]
            for name in arm.experiment.evals
            if name in measured and kind in measured[name].metrics
        }
    return history if any(history.values()) else {}


def measure_own_stages(arm: TrainedArm) -> dict[str, np.ndarray]:
    """{evaluation: name of the stage that teaches its task}, where that is known."""
    taught_by = teaching_stages(arm.stages, arm.experiment) if measure_history(arm) else {}
    return {task: np.array(stage) for task, stage in taught_by.items()}


def measure_change(arm: TrainedArm) -> np.ndarray | None:
    history, experiment = measure_history(arm), arm.experiment
    taught_by = teaching_stages(arm.stages, experiment)
    return mean_change(history, taught_by, declared_metrics(experiment)) if history else None


def mean_change(
    history: History, own_stages: Mapping[str, str], declared: Mapping[str, Metric]
) -> np.ndarray | None:
    """How much better former tasks are at the end than when they had just been trained.

    Args:
        history: of all stages, in order.
        own_stages: {evaluation: the stage that teaches its task}, where that is known.
        declared: {key: metric}; one that is not there does not count.

    Returns:
        [seeds], the mean over the evaluations whose own stage is not the last; negative is
        forgetting. None if there is none.

    Lopez-Paz & Ranzato, "Gradient Episodic Memory", NeurIPS 2017. arXiv:1706.08840, Eq. 3.
    """
    *_, last = history
    changes = []
    for key, at_end in history[last].items():
        stage = own_stages.get(key_parts(key)[0], last)
        if key in declared and stage != last and key in history[stage]:
            before = np.asarray(history[stage][key])
            changes.append(declared[key].sign * (np.asarray(at_end) - before))
    return np.mean(changes, axis=0) if changes else None


def history_panels(arms: Mapping[str, History], comparison: Comparison) -> dict[str, Panel]:
    kind, metric = comparison.primary.name, comparison.primary.key
    grids, rows = {}, {}
    for name, history in arms.items():
        tasks = comparison.arms[name].analyses.get("own_stages", {})
        grids[name] = grid(name, history, {task: str(stage) for task, stage in tasks.items()})
        for stage, metrics in history.items():
            rows[f"{name}: {stage}"] = {key_parts(key)[0]: v for key, v in metrics.items()}
    note = f"{kind} after each stage, mean over seeds; framed: the task of the stage."
    look = {"quantity": kind, "row": "after stage", "column": "evaluation", "digits": 3}
    whole = f"{kind} after each stage", "Mean and 95% interval over seeds."
    return {
        "by_stage": Matrix("After each stage", note, grids, **look),
        "stages": Table(*whole, rows, "arm: after stage", metric=metric, folded=True),
    }


def grid(arm: str, history: History, own_stages: Mapping[str, str]) -> Grid:
    """Means over seeds [stages, evaluations], NaN if unknown, the own stage of each framed."""
    keys = list(dict.fromkeys(key for row in history.values() for key in row))
    means = [[estimate(row.get(key, ())).mean for key in keys] for row in history.values()]
    tasks, stages = [key_parts(key)[0] for key in keys], list(history)
    framed = [
        (stages.index(own_stages[task]), column)
        for column, task in enumerate(tasks)
        if own_stages.get(task) in stages
    ]
    rows = [stage.removeprefix(f"{arm}_") for stage in stages]
    return Grid(rows, tasks, np.array(means, np.float64), framed)


def change_panels(arms: Mapping[str, np.ndarray], comparison: Comparison) -> dict[str, Panel]:
    column = f"backward transfer, {comparison.primary.name}"
    note = (
        "Mean over the former tasks of how much better each is at the end than right after it was "
        "trained; below 0: forgotten."
    )
    rows = {name: {column: change} for name, change in arms.items()}
    return {"backward_transfer": Table("Backward transfer", note, rows, signed=True)}
