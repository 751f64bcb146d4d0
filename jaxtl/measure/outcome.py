"""What an arm measured: its metrics at the end, and what is analysed besides."""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from jaxtl.form import describe, is_array
from jaxtl.measure import analyses
from jaxtl.measure.analyses.picks import validations
from jaxtl.measure.declarations import selecting_metric
from jaxtl.measure.evaluate import Measured
from jaxtl.measure.results import ArmResult, TrainedArm, reason
from jaxtl.plan import Analysis, Experiment, PyTree
from jaxtl.timing import phase
from jaxtl.train.store.blocks import Trained

logger = logging.getLogger(__name__)


@phase("evaluate")
def arm_result(
    name: str,
    experiment: Experiment,
    trained: Mapping[str, Trained],
    measured: Mapping[str, Mapping[str, Measured]],
    seeds: tuple[int, ...],
    cuts: Mapping[str, str | None],
    *,
    in_sweep: bool = False,
) -> ArmResult:
    """What one arm measured; NaN for a seed that failed in a stage.

    Args:
        name, experiment, trained, measured, seeds, cuts: as in `TrainedArm`.
        in_sweep: without the analyses of which nothing stands in a sweep's points.
    """
    arm = TrainedArm(name, experiment, trained, measured, seeds, cuts)
    metrics = flat_metrics(arm.at_end)
    metrics |= derived_metrics(experiment, metrics)
    metrics |= criteria_of(arm.last, experiment)
    count, total = arm.last.replicas.setup.sizes
    rate, memory = arm.last.steps_per_second, arm.last.memory_mb
    chosen = asked(experiment)
    if in_sweep:
        chosen = [analysis for analysis in chosen if analysis.in_summary and analysis.in_sweep]
    results, failures = analyse(arm, chosen)
    return ArmResult(
        name=name,
        stages=tuple(stage.name for stage in arm.stages),
        metrics={key: np.where(arm.failed, np.nan, values) for key, values in metrics.items()},
        not_finite={key: m.not_finite for key, m in arm.at_end.items() if m.not_finite.any()},
        failures=arm.failures,
        trainable_parameters=count,
        total_parameters=total,
        train_seconds=sum(trained[stage.name].seconds for stage in arm.stages),
        steps_per_second=rate if math.isfinite(rate) else None,
        step_memory_mb=memory if math.isfinite(memory) else None,
        analyses=results,
        not_computed=failures,
    )


def asked(experiment: Experiment) -> list[Analysis]:
    """The analyses of an experiment."""
    return analyses.default() if experiment.analyses is None else list(experiment.analyses)


def analyse(
    arm: TrainedArm, chosen: Iterable[Analysis]
) -> tuple[dict[str, PyTree], dict[str, str]]:
    """({analysis: what it measured}, {analysis: why it could not}).

    Whatever an analysis raises (for want of memory, say), the training is done, and its numbers
    stand.
    """
    results, failures = {}, {}
    for analysis in chosen:
        try:
            tree = analysis.measure(arm)
            tree = {} if tree is None else _arrays(tree, analysis, arm)
            if not isinstance(tree, Mapping) or tree:
                results[analysis.name] = tree
        except Exception as error:
            failures[analysis.name] = reason(error)
            logger.info("%s of arm %s", analysis.name, arm.name, exc_info=error)
    return results, failures


def _arrays(tree: PyTree, analysis: Analysis, arm: TrainedArm, place: str = "") -> PyTree:
    """The tree with NumPy leaves and without empty branches.

    Raises:
        ValueError: it is no nested dict of arrays, or no leaf [seeds] where it must be.
    """
    if isinstance(tree, Mapping) and all(isinstance(key, str) for key in tree):
        parts = {key: _arrays(x, analysis, arm, f"{place}[{key!r}]") for key, x in tree.items()}
        return {key: x for key, x in parts.items() if not isinstance(x, dict) or x}
    if not isinstance(tree, str) and not is_array(tree):
        raise ValueError(
            f"measured{place} must be a NumPy array or a dict of them by name, got {describe(tree)}"
        )
    leaf = np.asarray(tree)
    if leaf.dtype.kind not in "biufUS":
        raise ValueError(f"measured{place} must hold numbers or texts, got {describe(leaf)}")
    if analysis.in_summary and leaf.dtype.kind in "biuf":
        if leaf.shape != arm.failed.shape:
            raise ValueError(
                f"measured{place} must be an array {list(arm.failed.shape)}, a number for each "
                f"seed, to stand in summary.json, got {describe(leaf)}"
            )
        return np.where(arm.failed, np.nan, leaf)
    return leaf


def criteria_of(last: Trained, experiment: Experiment) -> dict[str, np.ndarray]:
    """{"criteria/<name>": [seeds]} of the parameters that a stage ended with."""
    primary, select = experiment.primary.key, selecting_metric(experiment)
    scores = {key: v for key, v in validations(last.curves, primary).items() if key != primary}
    if select is None:
        return {key: values[-1] for key, values in scores.items()}
    if select.key not in scores:  # the step of another metric, which was not kept for them
        return {}
    score = select.sign * scores[select.key]
    row = np.where(np.isnan(score), -np.inf, score).argmax(0)
    return {key: np.take_along_axis(v, row[None], 0)[0] for key, v in scores.items()}


def derived_metrics(
    experiment: Experiment, metrics: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """{metric: [seeds]} of an experiment's derived metrics; a later one may read earlier ones."""
    values = dict(metrics)
    for name, derive in experiment.derived.items() if metrics else ():
        count = len(next(iter(metrics.values())))
        rows = [{key: float(v[i]) for key, v in values.items()} for i in range(count)]
        values[name] = np.array([_derived(derive, row) for row in rows])
    return {name: values[name] for name in experiment.derived if name in values}


def _derived(derive: Callable[[Mapping[str, float]], float], row: Mapping[str, float]) -> float:
    """One derived value; NaN where the arithmetic has none, as in a division by zero."""
    try:
        return derive(defaultdict(lambda: math.nan, row))
    except ArithmeticError:
        return math.nan


def flat_metrics(measured: Mapping[str, Measured]) -> dict[str, np.ndarray]:
    """{"<evaluation>/<metric>": [seeds]}."""
    return {f"{name}/{k}": v for name, m in measured.items() for k, v in m.metrics.items()}
