"""Stages and arms of an experiment: train one, look at its validation, say what it measured."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxtl.plan import Experiment, Params, Stage, State
from jaxtl.report.by_stage import own_stage
from jaxtl.report.evaluate import Evaluator, Measured, features
from jaxtl.report.results import ArmResult
from jaxtl.report.verdict import direction
from jaxtl.train.check import Node
from jaxtl.train.feed import device_limit
from jaxtl.train.identity import Identity
from jaxtl.train.lanes import Lanes
from jaxtl.train.loop import Trained, train_stage
from jaxtl.train.options import RunOptions
from jaxtl.train.progress import Reporter
from jaxtl.train.selection import Look
from jaxtl.train.sharding import replicated, to_host

PLOTTED_EXAMPLES = 400


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
    return Evaluator(experiment.evals, seeds, options.eval_batch, replicated(), limit)


def make_look(
    experiment: Experiment,
    nodes: Mapping[str, Node],
    name: str,
    evaluators: Sequence[Evaluator],
) -> Look | None:
    """The validation of a stage that ends an arm, if the experiment selects by one.

    Args:
        evaluators: one for each point of a sweep whose lanes train together.
    """
    if experiment.select is None or name not in {s[-1].name for s in experiment.arms.values()}:
        return None
    evaluation, _, metric = experiment.select.metric.partition("/")
    if experiment.evals[evaluation].head not in named_heads(nodes, name):
        return None
    stage = nodes[name].setup.stage

    def measure(params: Params, state: State) -> np.ndarray:
        size = len(jax.tree.leaves(params)[0]) // len(evaluators)
        values = []
        for i, evaluator in enumerate(evaluators):
            part = slice(i * size, (i + 1) * size)
            own = jax.tree.map(lambda leaf, part=part: leaf[part], (params, state))
            found = evaluator.measure_one(evaluation, stage.model, stage.method, *own)
            values.append(found.metrics[metric])
        return np.concatenate(values)

    sign = 1 if experiment.select.direction == "max" else -1
    return Look(experiment.select.metric, sign, experiment.select_every, measure)


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
    for name, derive in experiment.derived.items():
        metrics[name] = np.array(
            [
                derive(defaultdict(lambda: math.nan, {k: float(v[i]) for k, v in metrics.items()}))
                for i in range(len(seeds))
            ]
        )
    failed = [seed in failures for seed in seeds]
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
        trainable_parameters=count,
        total_parameters=total,
        failures=failures,
        train_seconds=seconds,
        steps_per_second=rate if math.isfinite(rate) else None,
        step_memory_mb=last.memory_mb if math.isfinite(last.memory_mb) else None,
        curves={stage.name: trained[stage.name].curves for stage in stages},
        confusion={k: m.confusion for k, m in at_end.items() if m.confusion is not None},
        class_names={
            name: experiment.evals[name].dataset.class_names(experiment.evals[name].column)
            for name, m in at_end.items()
            if m.confusion is not None
        },
    )


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

    A source evaluation is one that is not the primary's, whose head the first stage trains, and
    that no later stage is called after.
    """
    if len(stages) < 2:
        return {}
    heads = {head for domain in stages[0].domains if domain.labelled for head in domain.heads}
    primary = experiment.primary.metric.split("/")[0]
    before, after = measured[stages[0].name], measured[stages[-1].name]
    lost = {}
    for name in before.keys() & after.keys():
        later = own_stage(name, [stage.name for stage in stages[1:]])
        if name != primary and experiment.evals[name].head in heads and later is None:
            for metric, value in before[name].metrics.items():
                sign = 1 if direction(metric) == "max" else -1
                lost[f"{name}/{metric}"] = sign * (value - after[name].metrics[metric])
    return dict(sorted(lost.items()))


def by_stage(
    stages: Sequence[Stage],
    experiment: Experiment,
    measured: Mapping[str, Mapping[str, Measured]],
) -> dict[str, dict[str, np.ndarray]]:
    """{stage: {metric: [seeds]}}, the primary kind of metric on each evaluation.

    Of arms with three or more stages, and of those whose stages are called after two evaluations.
    """
    kind, names = experiment.primary.metric.rpartition("/")[2], [stage.name for stage in stages]
    tasks = {own_stage(name, names) for name in experiment.evals} - {None}
    if len(stages) < 3 and len(tasks) < 2:
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


def plotted_features(stage: Stage, trained: Trained, experiment: Experiment) -> dict[str, tuple]:
    """{evaluation: (features, labels)} of the first seed and the first examples, classes only."""
    params, state = jax.tree.map(lambda leaf: leaf[0], to_host((trained.params, trained.state)))
    views = {}
    for name, evaluation in experiment.evals.items():
        if (
            evaluation.head not in stage.model.heads
            or not stage.model.heads[evaluation.head].integer
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
