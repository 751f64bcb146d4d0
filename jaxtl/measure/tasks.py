"""Chains of stages: which task each teaches, what later ones do to earlier ones."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxtl.measure.declarations import declared_metrics
from jaxtl.measure.evaluate import Measured
from jaxtl.plan import Experiment, Metric, Stage


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
    heads = labelled_heads(stages[0])
    taught_in = {name: stage.name for stage in stages for name in stage.trains}
    before, after = measured[stages[0].name], measured[stages[-1].name]
    trained = {
        name
        for name in before.keys() & after.keys() - {experiment.primary.evaluation}
        if (
            taught_in[name] == stages[0].name
            if name in taught_in
            else experiment.evals[name].head in heads
        )
    }
    lost = {}
    for key, metric in sorted(declared_metrics(experiment).items()):
        if metric.evaluation in trained and metric.name in before[metric.evaluation].metrics:
            first, last = (m[metric.evaluation].metrics[metric.name] for m in (before, after))
            lost[key] = metric.sign * (first - last)
    return lost


def by_stage(
    stages: Sequence[Stage],
    experiment: Experiment,
    measured: Mapping[str, Mapping[str, Measured]],
) -> dict[str, dict[str, np.ndarray]]:
    """{stage: {metric: [seeds]}}, the primary kind of metric on each evaluation.

    Of arms with three or more stages, and of those two of whose stages say what they train.
    """
    kind, names = experiment.primary.name, [stage.name for stage in stages]
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
    declared: Mapping[str, Metric],
) -> np.ndarray | None:
    """How much better former tasks are at the end than when they had just been trained.

    Args:
        by_stage: {stage: {"<evaluation>/<metric>": [seeds]}}, of one metric.
        own_stages: {evaluation: the stage that teaches its task}, where that is known.
        declared: {key: metric}; one that is not there does not count.

    Returns:
        [seeds], the mean over the evaluations whose own stage is not the last; negative is
        forgetting. None if there is none.

    Lopez-Paz & Ranzato, "Gradient Episodic Memory", NeurIPS 2017. arXiv:1706.08840, Eq. 3.
    """
    *_, last = by_stage
    changes = []
    for key, at_end in by_stage[last].items():
        if key not in declared:
            continue
        metric = declared[key]
        own = own_stages.get(metric.evaluation, last)
        if own != last and key in by_stage[own]:
            changes.append(metric.sign * (np.asarray(at_end) - np.asarray(by_stage[own][key])))
    return np.mean(changes, axis=0) if changes else None
