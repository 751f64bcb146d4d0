"""What an experiment declares: which way a metric is better, which stage teaches which task."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import get_args

from jaxtl.measure.criteria import criterion_metric
from jaxtl.metrics import Derived
from jaxtl.paths import unknown
from jaxtl.plan import CRITERIA, Direction, Experiment, Metric, Stage, key_parts

RESERVED = {
    *("metrics", "gain", "difference", "verdict", "not_finite", "failed_seeds", "config", ""),
    *("trainable_parameters", "total_parameters"),
    *("train_seconds", "steps_per_second", "step_memory_mb"),
}
"""What an arm's entry of summary.json holds besides what analyses measure."""


def declared_metrics(experiment: Experiment) -> dict[str, Metric]:
    """{key: metric} of those that say which way they are better, and of the primary one."""
    metrics = [Metric(*names, better) for _, names, better in _declarations(experiment)]
    return {metric.key: metric for metric in (*metrics, experiment.primary)}


def selecting_metric(experiment: Experiment) -> Metric | None:
    """What an experiment selects by, a criterion by the key under which it is logged."""
    select = experiment.select
    if select is not None and select.key in experiment.criteria:
        return dataclasses.replace(select, evaluation=CRITERIA)
    return select


def evaluations_read(experiment: Experiment, metric: Metric) -> set[str]:
    """The evaluations that a metric is made of: its own, or those that a derived one looks up.

    All of them for a derived metric that goes through whatever there is; none for a criterion.
    """
    if metric.evaluation in experiment.evals and metric.key not in experiment.derived:
        return {metric.evaluation}
    if metric.key not in experiment.derived:
        return set()
    metrics = _LookedUp()
    try:
        experiment.derived[metric.key](metrics)
    except ArithmeticError:
        pass
    except Exception:  # it takes more than look-ups
        metrics.all = True
    if metrics.all:
        return set(experiment.evals)
    read = [Metric.read(key, metric.better) for key in metrics if key != metric.key]
    return set().union(*(evaluations_read(experiment, each) for each in read))


class _LookedUp(dict):
    """Metrics of value 1 that take down which of them are asked for, one by one or all at once."""

    all = False

    def __missing__(self, key: str) -> float:
        return self.setdefault(key, 1.0)

    def get(self, key: str, default: float | None = None) -> float:
        return self[key]

    def items(self):
        self.all = True
        return super().items()

    def values(self):
        self.all = True
        return super().values()

    def keys(self):
        self.all = True
        return super().keys()

    def __contains__(self, key: object) -> bool:
        self.all = True
        return super().__contains__(key)


def taught_heads(stage: Stage) -> set[str]:
    """The heads that the labels of a stage train."""
    domains = [domain for domain in stage.domains if domain.labelled and domain.weight > 0]
    return {head for domain in domains for head in domain.heads}


def teaching_stages(stages: Sequence[Stage], experiment: Experiment) -> dict[str, str]:
    """{evaluation: the stage of an arm that teaches its task}, of those for which that is known.

    The last one whose `trains` names the evaluation. Where none does and no other evaluation reads
    its head, the last one with labels for that head.
    """
    heads = [evaluation.head for evaluation in experiment.evals.values()]
    taught_by = {}
    for name, evaluation in experiment.evals.items():
        teaching = [stage.name for stage in stages if name in stage.trains]
        if not teaching and heads.count(evaluation.head) == 1:
            teaching = [stage.name for stage in stages if evaluation.head in taught_heads(stage)]
        if teaching:
            taught_by[name] = teaching[-1]
    return taught_by


def undeclared(experiment: Experiment) -> list[str]:
    """One line for each evaluation and derived metric that does not say which way is better."""
    consequence = "no gain and no forgetting is shown for {}, except as the primary metric"
    lines = [
        f"evaluation {name!r} declares no directions: " + consequence.format("its metrics")
        for name, evaluation in experiment.evals.items()
        if not evaluation.directions
    ]
    for name, derive in experiment.derived.items():
        if not isinstance(derive, Derived) and name != experiment.primary.key:
            line = f"derived metric {name!r} is no Derived(function, direction): "
            lines.append(line + consequence.format("it"))
    return lines


def _declarations(
    experiment: Experiment,
) -> Iterator[tuple[str, tuple[str | None, str], Direction]]:
    """(what it is, (evaluation, name), which way it is better) as those say who make a metric."""
    for name, evaluation in experiment.evals.items():
        for metric, better in evaluation.directions.items():
            yield f"evaluation {name!r}: metric {metric!r}", (name, metric), better
    for name, derive in experiment.derived.items():
        if isinstance(derive, Derived):
            yield f"derived metric {name!r}", key_parts(name), derive.direction
    for name in experiment.criteria:
        metric = criterion_metric(name)
        yield f"criterion {name!r}", (metric.evaluation, metric.name), metric.better


def declaration_problems(
    experiment: Experiment, measured: Mapping[str, Collection[str]]
) -> Iterator[str]:
    """What is wrong with the declared directions, tasks and analyses, a line each.

    Args:
        experiment: any.
        measured: {evaluation: names of its metrics}.
    """
    for name, evaluation in experiment.evals.items():
        for metric in evaluation.directions:
            if metric not in (names := measured[name]):
                yield f"evaluation {name!r}: directions: {unknown('metric', metric, names)}"
    declared = {}
    for what, names, better in _declarations(experiment):
        if better in get_args(Direction):
            declared[names] = better
        else:
            yield f"{what} is better at 'max' or 'min', not {better!r}"
    primary, select = experiment.primary, experiment.select
    for role, written, logged in (
        ("primary", primary, primary),
        ("select", select, selecting_metric(experiment)),
    ):
        better = logged and declared.get((logged.evaluation, logged.name))
        if better and better != logged.better:
            size = {"max": "larger", "min": "smaller"}[better]
            right = dataclasses.replace(written, better=better)
            yield f"{role} metric {written.key!r} is better when {size}: {role}={right!r}"
    names = [analysis.name for analysis in experiment.analyses or ()]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"analyses: {names.count(name)} are called {name!r}; each needs its own name"
        if name in RESERVED:
            yield f"analyses: none can be called {name!r}, which summary.json means otherwise"
    for analysis in experiment.analyses or ():
        yield from analysis.check(experiment)
    stages = {stage.name: stage for chain in experiment.arms.values() for stage in chain}
    for name, stage in stages.items():
        weighted = [d.dataset.name for d in stage.domains if d.example_weights is not None]
        if stage.method.unweighted and weighted:
            yield (
                f"stage {name!r}: its method counts all examples alike, but {', '.join(weighted)} "
                "has example_weights; leave them out or take another method"
            )
        if isinstance(stage.trains, str):
            yield f"stage {name!r}: trains is a list of evaluations, such as [{stage.trains!r}]"
            continue
        for task in stage.trains:
            if task not in experiment.evals:
                yield f"stage {name!r}: trains: {unknown('evaluation', task, experiment.evals)}"
