"""What is measured while a stage trains: validation and criteria, measured on all its replicas."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jaxtl.measure.declarations import selecting_metric
from jaxtl.measure.evaluate import Evaluator
from jaxtl.measure.outcome import derived_metrics, flat_metrics
from jaxtl.plan import Experiment, Params, State
from jaxtl.study.checks.experiments import Node, criteria_heads
from jaxtl.train.feed.examples import device_limit
from jaxtl.train.mesh import on_all_devices
from jaxtl.train.options import RunOptions
from jaxtl.train.state import Validation


def make_evaluator(
    experiment: Experiment, seeds: tuple[int, ...], options: RunOptions
) -> Evaluator:
    """What measures an experiment's evaluations on the current mesh."""
    limit = device_limit(options)
    return Evaluator(
        experiment.evals, seeds, options.eval_batch, on_all_devices(), limit, experiment.criteria
    )


def make_validation(
    experiment: Experiment,
    nodes: Mapping[str, Node],
    name: str,
    evaluators: Sequence[Evaluator],
) -> Validation | None:
    """What is measured while a stage trains that ends an arm: criteria, and what selects.

    With criteria the primary metric is taken down too, to say what they would have picked; it
    decides nothing. A model without the heads of the criteria is not scored by any.

    Args:
        evaluators: one for each point of a sweep whose replicas train together.
    """
    select = selecting_metric(experiment)
    ends = {stages[-1].name for stages in experiment.arms.values()}
    if not (select or experiment.criteria) or name not in ends:
        return None
    stage, heads = nodes[name].setup.stage, named_heads(nodes, name)
    scored = bool(experiment.criteria) and criteria_heads(experiment) <= stage.model.heads.keys()
    wanted = [experiment.primary] if scored else []
    chosen = None
    if select is not None and select.evaluation not in experiment.evals:  # a criterion
        chosen = select if scored else None
    elif select is not None and experiment.evals[select.evaluation].head in heads:
        chosen = select
        wanted.append(chosen)
    if not wanted and chosen is None:
        return None
    read = {metric.evaluation for metric in wanted} & experiment.evals.keys()
    if any(metric.key in experiment.derived for metric in wanted):
        read = set(experiment.evals)
    read = {evaluation for evaluation in read if experiment.evals[evaluation].head in heads}

    def measure_point(evaluator: Evaluator, params: Params, state: State) -> dict[str, np.ndarray]:
        what = stage.model, stage.method, params, state
        metrics = flat_metrics({name: evaluator.measure_one(name, *what) for name in read})
        metrics |= derived_metrics(experiment, metrics)
        values = {metric.key: metrics[metric.key] for metric in wanted if metric.key in metrics}
        return values | (evaluator.scorer.scores(*what) if scored else {})

    def measure(params: Params, state: State) -> dict[str, np.ndarray]:
        size = len(jax.tree.leaves(params)[0]) // len(evaluators)
        parts = []
        for i, evaluator in enumerate(evaluators):
            part = slice(i * size, (i + 1) * size)
            weights = jax.tree.map(lambda leaf, part=part: leaf[part], (params, state))
            parts.append(measure_point(evaluator, *weights))
        return {metric: np.concatenate([part[metric] for part in parts]) for metric in parts[0]}

    return Validation(chosen, experiment.select_every, measure)


def named_heads(nodes: Mapping[str, Node], stage: str | None) -> set[str]:
    """Heads that a domain of the stage, or of one before it, names; the others are random."""
    heads: set[str] = set()
    while stage is not None:
        heads |= {h for domain in nodes[stage].setup.stage.domains for h in domain.heads}
        stage = nodes[stage].parent
    return heads
