"""What is measured while a stage trains: validation and criteria, measured on all its replicas."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxtl.features import cut, trace
from jaxtl.features.digests import OfObjects
from jaxtl.files import digest
from jaxtl.fingerprint import Fingerprint, of_program, of_value
from jaxtl.measure.declarations import evaluations_read, selecting_metric
from jaxtl.measure.evaluate import Evaluator, can_answer
from jaxtl.measure.outcome import derived_metrics, flat_metrics
from jaxtl.plan import CRITERIA, Evaluation, Experiment, Head, Metric, Params, State
from jaxtl.study.checks.domains import as_domain
from jaxtl.study.checks.experiments import Node, criteria_heads
from jaxtl.study.checks.measurable import metric_sums
from jaxtl.train.feed.digest import domain_digests
from jaxtl.train.feed.examples import device_limit
from jaxtl.train.feed.prefix import Prefix, frozen_prefix, predicts_from_features
from jaxtl.train.mesh import on_all_devices
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import take
from jaxtl.train.resolve.stage import Setup
from jaxtl.train.state import Validation


def make_evaluator(
    experiment: Experiment, seeds: tuple[int, ...], options: RunOptions
) -> Evaluator:
    """What measures an experiment's evaluations on the current mesh."""
    limit = device_limit(options)
    return Evaluator(
        experiment.evals, seeds, options.eval_batch, on_all_devices(), limit, experiment.criteria
    )


def frozen_block(setup: Setup, options: RunOptions) -> str | None:
    """The last of the first blocks that a stage leaves as they are; None if there is none.

    Whoever predicts with the stage's weights may start from their outputs, which are asked for
    again: by each validation, by the seeds and arms with equal weights, by later runs.
    """
    prefix = _prefix_of(setup) if options.feature_cache else None
    return prefix.block if prefix and predicts_from_features(setup, prefix) else None


def block_at_end(nodes: Mapping[str, Node], name: str, options: RunOptions) -> str | None:
    """The block up to which the outputs of a finished stage are asked for again.

    By itself or, where it trained them, by the stages that start from it and leave them as they
    are.
    """
    setup = nodes[name].setup
    following = [node.setup for node in nodes.values() if node.parent == name]
    blocks = {frozen_block(each, options) for each in (setup, *following)}
    block = next((b for b in reversed(setup.stage.model.blocks) if b in blocks), None)
    if block is None or not predicts_from_features(setup, _prefix_to(setup, block)):
        return None
    return block


def _prefix_to(setup: Setup, block: str) -> Prefix:
    first, rest = cut(setup.model, block)
    program = trace(first, setup.params, setup.state.statistics, setup.inputs, train=False)
    return Prefix(block, first, rest, program)


def _prefix_of(setup: Setup) -> Prefix | None:
    return _prefixes.get(setup, lambda: frozen_prefix(setup))


_prefixes: OfObjects[Prefix | None] = OfObjects()


class Choice(NamedTuple):
    """What is measured while a stage trains.

    Attributes:
        metric: which of it decides; None keeps the last parameters.
        wanted: the metrics that are taken down, criteria apart.
        scored: whether the criteria are.
        read: the evaluations that are measured for it.
    """

    metric: Metric | None
    wanted: list[Metric]
    scored: bool
    read: set[str]


def _choose(experiment: Experiment, nodes: Mapping[str, Node], name: str) -> Choice | None:
    """What is measured while a stage trains, None if nothing is.

    With criteria the primary metric is taken down too, to say what they would have picked; it
    decides nothing. A model without the heads of the criteria is not scored by any. A stage whose
    domains name no head is scored wherever it stands, and nothing selects its parameters: there is
    no other look at what it learns.
    """
    select = selecting_metric(experiment)
    ends = {stages[-1].name for stages in experiment.arms.values()}
    stage, heads = nodes[name].setup.stage, named_heads(nodes, name)
    if name not in ends:
        select = None
    looked_at = name in ends or not any(domain.heads for domain in stage.domains)
    if not (select or experiment.criteria) or not looked_at or not stage.num_steps:
        return None

    def answered(evaluation: str) -> bool:
        return can_answer(experiment.evals[evaluation], stage.model, stage.method, heads)

    scored = bool(experiment.criteria) and criteria_heads(experiment) <= stage.model.heads.keys()
    wanted = [experiment.primary] if scored else []
    chosen = None
    if select is not None and select.evaluation == CRITERIA:
        chosen = select if scored else None
    elif select is not None and all(map(answered, evaluations_read(experiment, select))):
        chosen = select
        wanted.append(chosen)
    if not wanted and chosen is None:
        return None
    read = set().union(*(evaluations_read(experiment, metric) for metric in wanted))
    read = {evaluation for evaluation in read if answered(evaluation)}
    return Choice(chosen, wanted, scored, read)


def make_validation(
    experiment: Experiment,
    nodes: Mapping[str, Node],
    name: str,
    evaluators: Sequence[Evaluator],
    options: RunOptions,
) -> Validation | None:
    """What is measured while a stage trains that ends an arm: criteria, and what selects.

    Args:
        evaluators: one for each point of a sweep whose replicas train together.
        options: how to run.
    """
    choice = _choose(experiment, nodes, name)
    if choice is None:
        return None
    stage, block = nodes[name].setup.stage, frozen_block(nodes[name].setup, options)

    def measure_point(evaluator: Evaluator, params: Params, state: State) -> dict[str, np.ndarray]:
        what = stage.model, stage.method, params, state, block
        metrics = flat_metrics({name: evaluator.measure_one(name, *what) for name in choice.read})
        metrics |= derived_metrics(experiment, metrics)
        values = {m.key: metrics[m.key] for m in choice.wanted if m.key in metrics}
        return values | (evaluator.scorer.scores(*what) if choice.scored else {})

    def measure(params: Params, state: State) -> dict[str, np.ndarray]:
        parts, begin = [], 0
        for evaluator in evaluators:
            end = begin + len(evaluator.seeds)
            parts.append(measure_point(evaluator, *take((params, state), slice(begin, end))))
            begin = end
        return {metric: np.concatenate([part[metric] for part in parts]) for metric in parts[0]}

    return Validation(choice.metric, experiment.select_every, measure)


def validation_identity(
    points: Sequence[tuple[Experiment, Mapping[str, Node]]], name: str, seeds: Sequence[int]
) -> tuple[dict[str, Any] | None, bool]:
    """What is measured while a stage trains, as JSON for its identity; None if nothing is.

    Args:
        points: (experiment, nodes) of each point of a sweep whose replicas train together.

    Returns:
        (that, whether some of its code cannot be looked into).
    """
    each = [_of_point(experiment, nodes, name, seeds) for experiment, nodes in points]
    first, unreadable = each[0][0], any(unreadable for _, unreadable in each)
    if first is None or all(identity == first for identity, _ in each):
        return first, unreadable
    data = {
        f"point {i}, {key}": value
        for i, (identity, _) in enumerate(each)
        for key, value in identity["data"].items()
    }
    return {**first, "programs": [i["programs"] for i, _ in each], "data": data}, unreadable


def _of_point(
    experiment: Experiment, nodes: Mapping[str, Node], name: str, seeds: Sequence[int]
) -> tuple[dict[str, Any] | None, bool]:
    choice = _choose(experiment, nodes, name)
    if choice is None:
        return None, False
    heads = nodes[name].setup.model.heads
    read = sorted(choice.read)
    parts = [evaluation_identity(experiment.evals[name], heads, seeds) for name in read]
    code = [experiment.derived[m.key] for m in choice.wanted if m.key in experiment.derived]
    data = {f"evaluation {e!r}": part.data for e, part in zip(read, parts, strict=True)}
    if choice.scored:
        code += [criterion.score for criterion in experiment.criteria.values()]
        for key, criterion in experiment.criteria.items():
            for d, domain in enumerate(criterion.domains):
                data[f"criterion {key!r}, domain {d}"] = domain_digests([domain], heads, seeds)
    printed = of_value(code)
    identity = {
        "metric": choice.metric and [choice.metric.key, choice.metric.better],
        "every": experiment.select_every,
        "measured": sorted([*(m.key for m in choice.wanted), *experiment.criteria]),
        "programs": [printed.digest, *(part.program for part in parts)],
        "data": data,
    }
    return identity, bool(printed.opaque) or any(part.opaque for part in parts)


class EvaluationIdentity(NamedTuple):
    """What an evaluation measures, and on which data.

    Attributes:
        sums, results: of what it sums, and of what it makes of the sums.
        data: as `domain_digests`.
    """

    sums: Fingerprint
    results: Fingerprint
    data: dict[str, Any]

    @property
    def program(self) -> str:
        """Digest of what it measures."""
        return digest([self.sums.digest, self.results.digest])

    @property
    def opaque(self) -> bool:
        """Whether some of its code cannot be looked into."""
        return bool(self.sums.opaque or self.results.opaque)


def evaluation_identity(
    evaluation: Evaluation, heads: Mapping[str, Head], seeds: Sequence[int]
) -> EvaluationIdentity:
    """Of an evaluation of some seeds.

    Args:
        heads: of the models, its own among them.
    """
    code = [evaluation.results]
    if evaluation.episodes is not None:
        code += [evaluation.episodes, evaluation.tasks, evaluation.learner]
    return EvaluationIdentity(
        of_program(lambda: metric_sums(evaluation, heads[evaluation.head])),
        of_value(code if len(code) > 1 else code[0]),
        domain_digests([as_domain(evaluation)], heads, seeds),
    )


def evaluation_digests(
    experiment: Experiment, seeds: Sequence[int], experiment_digest: str
) -> dict[str, dict[str, Any]]:
    """{evaluation: {"program": digest of what is measured, "seeds": {seed: of its data}}}.

    Args:
        experiment_digest: of the experiment's file, which stands in for code that cannot be looked
            into.
    """
    stages = [stage for chain in experiment.arms.values() for stage in chain]
    heads = {name: head for stage in stages for name, head in stage.model.heads.items()}
    identities = {
        name: evaluation_identity(evaluation, heads, seeds)
        for name, evaluation in experiment.evals.items()
        if evaluation.head in heads
    }
    return {
        name: {
            "program": digest([each.program, experiment_digest]) if each.opaque else each.program,
            "seeds": each.data["seeds"],
        }
        for name, each in identities.items()
    }


def named_heads(nodes: Mapping[str, Node], stage: str | None) -> set[str]:
    """Heads that a domain of the stage, or of one before it, names; the others are random."""
    heads: set[str] = set()
    while stage is not None:
        heads |= {h for domain in nodes[stage].setup.stage.domains for h in domain.heads}
        stage = nodes[stage].parent
    return heads
