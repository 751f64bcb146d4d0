"""Stages and arms of an experiment: train one, look at its validation, say what it measured."""

import dataclasses
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping

import jax
import numpy as np

from jaxtl.measure.declarations import selecting_metric
from jaxtl.measure.domain_gap import domain_gap
from jaxtl.measure.evaluate import Measured
from jaxtl.measure.picks import looks, oracle, picks
from jaxtl.measure.results import ArmResult, reason
from jaxtl.measure.tasks import by_stage, forgetting, own_stages
from jaxtl.models import outputs
from jaxtl.plan import Experiment, Stage
from jaxtl.train.loop import Trained
from jaxtl.train.mesh import to_host

PLOTTED_EXAMPLES = 400

logger = logging.getLogger(__name__)


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
    best = oracle(last.curves, primary)
    lost = forgetting(stages, experiment, measured)
    history = by_stage(stages, experiment, measured)
    metrics, lost, *rows = (
        {name: np.where(failed, np.nan, values) for name, values in table.items()}
        for table in (metrics, lost, *history.values())
    )
    seconds = sum(trained[stage.name].seconds for stage in stages)
    rate = last.steps_per_second
    count, total = last.replicas.setup.sizes
    return ArmResult(
        name=arm,
        stages=tuple(stage.name for stage in stages),
        metrics=metrics,
        forgetting=lost,
        by_stage=dict(zip(history, rows, strict=True)),
        own_stages=own_stages(stages, experiment) if history else {},
        picks={
            rule: np.where(failed, np.nan, values)
            for rule, values in picks(last.curves, primary.key).items()
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
    primary, select = experiment.primary.key, selecting_metric(experiment)
    scores = {key: v for key, v in looks(last.curves, primary).items() if key != primary}
    if select is None:
        return {key: values[-1] for key, values in scores.items()}
    if select.key not in scores:  # the step of another metric, which was not kept for them
        return {}
    known = select.sign * scores[select.key]
    known = np.where(np.isnan(known), -np.inf, known).argmax(0)
    return {k: np.take_along_axis(v, known[None], 0)[0] for k, v in scores.items()}


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


def flat_metrics(measured: Mapping[str, Measured]) -> dict[str, np.ndarray]:
    """{"<evaluation>/<metric>": [seeds]}."""
    return {f"{name}/{k}": v for name, m in measured.items() for k, v in m.metrics.items()}


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
        features = outputs(
            stage.model, params, state, inputs, "features", batch_size=PLOTTED_EXAMPLES
        )
        views[name] = (features, table.labels[evaluation.column][rows])
    return views
