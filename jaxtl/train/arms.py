"""Stages and arms of an experiment: train one, look at its validation, say what it measured."""

import dataclasses
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxtl.plan import Evaluation, Experiment, Params, Primary, PyTree, Stage, State
from jaxtl.report.evaluate import Evaluator, Measured, features
from jaxtl.report.judge import PREFIX
from jaxtl.report.picks import looks, oracle, picks
from jaxtl.report.results import ArmResult, reason
from jaxtl.train.check import Node, criteria_heads
from jaxtl.train.declarations import directions, labelled_heads, own_stages
from jaxtl.train.domain_gap import domain_gap
from jaxtl.train.feed import device_limit
from jaxtl.train.identity import Identity
from jaxtl.train.lanes import Lanes
from jaxtl.train.loop import Trained, train_stage
from jaxtl.train.options import RunOptions
from jaxtl.train.progress import Reporter
from jaxtl.train.selection import Look
from jaxtl.train.sharding import replicated, to_host

PLOTTED_EXAMPLES = 400

logger = logging.getLogger(__name__)


def train_shown(
    lanes: Lanes,
    source: tuple[Params, State] | None,
    directory: Path,
    identity: Identity,
    options: RunOptions,
    look: Look | None,
    reporter: Reporter,
    title: str = "",
) -> Trained:
    """`train_stage` with its progress on the console, under its name or a title."""
    stage, (count, total) = lanes.setup.stage, lanes.setup.sizes
    notes = [f"{count:,} of {total:,} trained"]
    if stage.weights is not None:
        notes.append(f"from {stage.weights.name}")
    with reporter.stage(title or stage.name, stage.num_steps, notes) as show:
        result = train_stage(lanes, source, directory, identity, options, show, look)
        notes.append(result.note)
    return result


def make_evaluator(
    experiment: Experiment, seeds: tuple[int, ...], options: RunOptions
) -> Evaluator:
    """What measures an experiment's evaluations on the current mesh."""
    limit = device_limit(options)
    return Evaluator(
        experiment.evals, seeds, options.eval_batch, replicated(), limit, experiment.criteria
    )


def make_look(
    experiment: Experiment,
    nodes: Mapping[str, Node],
    name: str,
    evaluators: Sequence[Evaluator],
) -> Look | None:
    """What is looked at while a stage trains that ends an arm: criteria, and what selects.

    With criteria the primary metric is taken down too, to say what they would have picked; it
    decides nothing. A model without the heads of the criteria is not scored by any.

    Args:
        evaluators: one for each point of a sweep whose lanes train together.
    """
    select, ends = experiment.select, {stages[-1].name for stages in experiment.arms.values()}
    if not (select or experiment.criteria) or name not in ends:
        return None
    stage, heads = nodes[name].setup.stage, named_heads(nodes, name)
    scored = bool(experiment.criteria) and criteria_heads(experiment) <= stage.model.heads.keys()
    wanted = [experiment.primary.metric] if scored else []
    chosen = None
    if select is not None and select.metric in experiment.criteria:
        chosen = PREFIX + select.metric if scored else None
    elif select is not None and evaluation_of(select, experiment).head in heads:
        chosen = select.metric
        wanted.append(chosen)
    if not wanted and chosen is None:
        return None
    read = {metric.partition("/")[0] for metric in wanted} & experiment.evals.keys()
    if any(metric in experiment.derived for metric in wanted):
        read = set(experiment.evals)
    read = {evaluation for evaluation in read if experiment.evals[evaluation].head in heads}

    def measure_point(evaluator: Evaluator, *own: PyTree) -> dict[str, np.ndarray]:
        found = {e: evaluator.measure_one(e, stage.model, stage.method, *own) for e in read}
        metrics = flat_metrics(found) | derived_metrics(experiment, flat_metrics(found))
        found = {metric: metrics[metric] for metric in wanted if metric in metrics}
        if scored:
            found |= evaluator.judge.scores(stage.model, stage.method, *own)
        return found

    def measure(params: Params, state: State) -> dict[str, np.ndarray]:
        size = len(jax.tree.leaves(params)[0]) // len(evaluators)
        parts = []
        for i, evaluator in enumerate(evaluators):
            part = slice(i * size, (i + 1) * size)
            own = jax.tree.map(lambda leaf, part=part: leaf[part], (params, state))
            parts.append(measure_point(evaluator, *own))
        return {metric: np.concatenate([part[metric] for part in parts]) for metric in parts[0]}

    sign = -1 if select is not None and select.direction == "min" else 1
    return Look(chosen, sign, experiment.select_every, measure)


def evaluation_of(primary: Primary, experiment: Experiment) -> Evaluation:
    """The evaluation that a metric belongs to."""
    return experiment.evals[primary.metric.partition("/")[0]]


def arm_result(
    arm: str,
    experiment: Experiment,
    trained: Mapping[str, Trained],
    measured: Mapping[str, Mapping[str, Measured]],
    seeds: tuple[int, ...],
) -> ArmResult:
    """What one arm measured, without its features; NaN for a seed that failed in a stage."""
    stages = experiment.arms[arm]
    last = trained[stages[-1].name]
    at_end = measured[stages[-1].name]
    failures = {
        seed: (stage.name, int(step))
        for stage in reversed(stages)
        for seed, step in zip(seeds, trained[stage.name].failed, strict=True)
        if step
    }
    metrics = flat_metrics(at_end)
    metrics |= derived_metrics(experiment, metrics)
    failed = [seed in failures for seed in seeds]
    metrics |= criteria_of(last, experiment)
    primary = experiment.primary
    best = oracle(last.curves, primary.metric, primary.direction)
    lost = forgetting(stages, experiment, measured)
    history = by_stage(stages, experiment, measured)
    metrics, lost, *rows = (
        {name: np.where(failed, np.nan, values) for name, values in table.items()}
        for table in (metrics, lost, *history.values())
    )
    seconds = sum(trained[stage.name].seconds for stage in stages)
    rate = last.steps_per_second
    count, total = last.lanes.setup.sizes
    return ArmResult(
        name=arm,
        stages=tuple(stage.name for stage in stages),
        metrics=metrics,
        forgetting=lost,
        by_stage=dict(zip(history, rows, strict=True)),
        own_stages=own_stages(stages, experiment) if history else {},
        picks={
            rule: np.where(failed, np.nan, values)
            for rule, values in picks(last.curves, primary.metric).items()
        },
        oracle=best if best is None else np.where(failed, np.nan, best),
        trainable_parameters=count,
        total_parameters=total,
        not_finite={name: m.not_finite for name, m in at_end.items() if m.not_finite.any()},
        failures=failures,
        train_seconds=seconds,
        steps_per_second=rate if math.isfinite(rate) else None,
        step_memory_mb=last.memory_mb if math.isfinite(last.memory_mb) else None,
        curves={stage.name: trained[stage.name].curves for stage in stages},
        confusion={k: m.confusion for k, m in at_end.items() if m.confusion is not None},
        class_names={
            name: tuple(
                map(str, experiment.evals[name].dataset.class_names(experiment.evals[name].column))
            )
            for name, m in at_end.items()
            if m.confusion is not None
        },
    )


def criteria_of(last: Trained, experiment: Experiment) -> dict[str, np.ndarray]:
    """{"criteria/<name>": [seeds]} of the parameters that a stage ended with."""
    seen = looks(last.curves, experiment.primary.metric)
    by = PREFIX + experiment.select.metric if experiment.select else None
    scores = {name: values for name, values in seen.items() if name.startswith(PREFIX)}
    if by in scores:
        known = np.where(np.isnan(scores[by]), -np.inf, scores[by]).argmax(0)
        return {k: np.take_along_axis(v, known[None], 0)[0] for k, v in scores.items()}
    if experiment.select:  # at the step of another metric, which was not kept for them
        return {}
    return {name: values[-1] for name, values in scores.items()}


def derived_metrics(
    experiment: Experiment, metrics: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """{metric: [seeds]} of an experiment's derived metrics; a later one may read earlier ones."""
    known = dict(metrics)
    for name, derive in experiment.derived.items() if metrics else ():
        count = len(next(iter(metrics.values())))
        rows = [{k: float(v[i]) for k, v in known.items()} for i in range(count)]
        known[name] = np.array([_derived(derive, row) for row in rows])
    return {name: known[name] for name in experiment.derived if name in known}


def _derived(derive: Callable[[Mapping[str, float]], float], row: Mapping[str, float]) -> float:
    """One derived value; NaN where the arithmetic has none, as in a division by zero."""
    try:
        return derive(defaultdict(lambda: math.nan, row))
    except ArithmeticError:
        return math.nan


def named_heads(nodes: Mapping[str, Node], stage: str | None) -> set[str]:
    """Heads that a domain of the stage, or of one before it, names; the others are random."""
    heads: set[str] = set()
    while stage is not None:
        heads |= {h for domain in nodes[stage].setup.stage.domains for h in domain.heads}
        stage = nodes[stage].parent
    return heads


def flat_metrics(measured: Mapping[str, Measured]) -> dict[str, np.ndarray]:
    """{"<evaluation>/<metric>": [seeds]}."""
    return {f"{name}/{k}": v for name, m in measured.items() for k, v in m.metrics.items()}


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


def with_views(
    result: ArmResult,
    experiment: Experiment,
    trained: Mapping[str, Trained],
    seeds: tuple[int, ...],
) -> ArmResult:
    """The result with what is only looked at: features to draw, and how far domains are apart.

    Where that cannot be computed (for want of memory, say) the result says why: the training is
    done, and its numbers stand.
    """
    stage, views, failures = experiment.arms[result.name][-1], {}, {}
    last = trained[stage.name]
    for name, compute in (
        ("features", lambda: plotted_features(stage, last, experiment)),
        ("domain_gap", lambda: domain_gap(stage, last, experiment, seeds)),
    ):
        try:
            views[name] = compute()
        except Exception as error:
            failures[name.replace("_", " ")] = reason(error)
            logger.info("%s of arm %s", name, result.name, exc_info=error)
    return dataclasses.replace(result, **views, not_drawn=failures)


def plotted_features(stage: Stage, trained: Trained, experiment: Experiment) -> dict[str, tuple]:
    """{evaluation: (features, labels)} of the first seed and the first examples, classes only."""
    params, state = jax.tree.map(lambda leaf: leaf[0], to_host((trained.params, trained.state)))
    views = {}
    for name, evaluation in experiment.evals.items():
        if (
            evaluation.head not in stage.model.heads
            or not stage.model.heads[evaluation.head].integer
            or stage.model.heads[evaluation.head].label_shape
        ):
            continue
        table = evaluation.dataset.table()
        rows = evaluation.dataset.rows(0)[:PLOTTED_EXAMPLES]
        inputs = jax.tree.map(lambda x, rows=rows: x[rows], table.inputs)
        views[name] = (
            features(stage.model, params, state, inputs, PLOTTED_EXAMPLES),
            table.labels[evaluation.column][rows],
        )
    return views
