"""What an arm unlearns of the task of its first stage."""

from collections.abc import Mapping

import numpy as np

from jaxtl.measure.declarations import declared_metrics, taught_heads
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.plan import Analysis, Table


def forgetting() -> Analysis:
    """How much worse each metric of the first task is at the end than after the first stage."""
    return Analysis("forgetting", measure, panels, in_summary=True)


def measure(arm: TrainedArm) -> dict[str, np.ndarray]:
    """{metric: [seeds]}, above 0 where it is worse at the end than after the first stage.

    Of the evaluations whose task the first stage trains: by its `trains`, or where no stage names
    them by the heads of its labels; not of the primary one, and not of a metric whose direction
    nobody declares.
    """
    first, experiment = arm.stages[0], arm.experiment
    if len(arm.stages) < 2:
        return {}
    taught_in = {task: stage.name for stage in arm.stages for task in stage.trains}
    before, after = arm.measured[first.name], arm.at_end
    tasks = {
        name
        for name in before.keys() & after.keys() - {experiment.primary.evaluation}
        if (
            taught_in[name] == first.name
            if name in taught_in
            else experiment.evals[name].head in taught_heads(first)
        )
    }
    lost = {}
    for key, metric in sorted(declared_metrics(experiment).items()):
        if metric.evaluation in tasks and metric.name in before[metric.evaluation].metrics:
            start, end = (m[metric.evaluation].metrics[metric.name] for m in (before, after))
            lost[key] = metric.sign * (start - end)
    return lost


def panels(arms: Mapping[str, Mapping[str, np.ndarray]], comparison: Comparison) -> dict:
    note = "How much worse each is at the end than right after the first stage; above 0: lost."
    return {"forgetting": Table("Forgetting", note, arms, signed=True)}
