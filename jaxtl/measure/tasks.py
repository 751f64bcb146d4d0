"""Chains of stages: which task each teaches, what later ones do to earlier ones."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxtl.measure.declarations import directions
from jaxtl.measure.evaluate import Measured
from jaxtl.plan import Direction, Experiment, Stage


def own_stages(stages: Sequence[Stage], experiment: Experiment) -> dict[str, str]:
    """{evaluation: the stage of an arm that teaches its task}, of those for which that is known.

    The last one whose `trains` names the evaluation. Where none does and no other evaluation reads
    its head, the last one with labels for that head.
    """
    heads = [evaluation.head for evaluation in experiment.evals.values()]
    own = {}
    for name, evaluation in experiment.evals.items():
        teaching = [stage.name for stage in stages if name in stage.trains]
        if not teaching and heads.count(evaluation.head) == 1:
            teaching = [stage.name for stage in stages if evaluation.head in labelled_heads(stage)]
        if teaching:
            own[name] = teaching[-1]
    return own


def labelled_heads(stage: Stage) -> set[str]:
    """The heads that the labels of a stage train."""
    domains = [domain for domain in stage.domains if domain.labelled and domain.weight > 0]
    return {head for domain in domains for head in domain.heads}


def forgetting(
    stages: Sequence[Stage],
    experiment: Experiment,
    measured: Mapping[str, Mapping[str, Measured]],
) -> dict[str, np.ndarray]:
    """{metric: [seeds]}, how much worse each is at the end of an arm than after its first stage.

    Of the evaluations whose task the first stage trains: by its `trains`, or where no stage names
    them by the heads of its labels; not of the primary one, and not of a metric whose direction
    nobody declares.
    """
    if len(stages) < 2:
        return {}
    heads, better = labelled_heads(stages[0]), directions(experiment)
    taught_in = {name: stage.name for stage in stages for name in stage.trains}
    primary = experiment.primary.metric.split("/")[0]
    before, after = measured[stages[0].name], measured[stages[-1].name]
    lost = {}
    for name in before.keys() & after.keys() - {primary}:
        trained = (
            taught_in[name] == stages[0].name
            if name in taught_in
            else experiment.evals[name].head in heads
        )
        for metric, value in before[name].metrics.items() if trained else ():
            if (direction := better.get(f"{name}/{metric}")) is not None:
                change = value - after[name].metrics[metric]
                lost[f"{name}/{metric}"] = change if direction == "max" else -change
    return dict(sorted(lost.items()))


def by_stage(
    stages: Sequence[Stage],
    experiment: Experiment,
    measured: Mapping[str, Mapping[str, Measured]],
) -> dict[str, dict[str, np.ndarray]]:
    """{stage: {metric: [seeds]}}, the primary kind of metric on each evaluation.

    Of arms with three or more stages, and of those two of whose stages say what they train.
    """
    kind, names = experiment.primary.metric.rpartition("/")[2], [stage.name for stage in stages]
    if len(stages) < 3 and sum(bool(stage.trains) for stage in stages) < 2:
        return {}
    history = {
        stage: {
            f"{name}/{kind}": measured[stage][name].metrics[kind]
            for name in experiment.evals
            if name in measured[stage] and kind in measured[stage][name].metrics
        }
        for stage in names
    }
    return history if any(history.values()) else {}


def backward_transfer(
    by_stage: Mapping[str, Mapping[str, np.ndarray]],
    own_stages: Mapping[str, str],
    directions: Mapping[str, Direction],
) -> np.ndarray | None:
    """How much better former tasks are at the end than when they had just been trained.

    Args:
        by_stage: {stage: {"<evaluation>/<metric>": [seeds]}}, of one metric.
        own_stages: {evaluation: the stage that teaches its task}, where that is known.
        directions: {metric: which way is better}; one that is not there does not count.

    Returns:
        [seeds], the mean over the evaluations whose own stage is not the last; negative is
        forgetting. None if there is none.

    Lopez-Paz & Ranzato, "Gradient Episodic Memory", NeurIPS 2017. arXiv:1706.08840, Eq. 3.
    """
    *_, last = by_stage
    changes = []
    for metric, at_end in by_stage[last].items():
        own = own_stages.get(metric.partition("/")[0], last)
        if own != last and metric in by_stage[own] and metric in directions:
            change = np.asarray(at_end) - np.asarray(by_stage[own][metric])
            changes.append(change if directions[metric] == "max" else -change)
    return np.mean(changes, axis=0) if changes else None
