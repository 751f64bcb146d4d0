"""Everything that can be wrong with an experiment, found before any work starts."""

import dataclasses
import itertools
import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping

import jax

from jaxtl.data import overlap
from jaxtl.data.streamed import is_streamed
from jaxtl.measure.declarations import (
    declaration_problems,
    evaluations_read,
    undeclared,
)
from jaxtl.measure.episodes import learner_of
from jaxtl.paths import unknown
from jaxtl.plan import Data, Evaluation, Experiment, Head, PyTree, Stage
from jaxtl.study.checks.data import check_readings
from jaxtl.study.checks.domains import as_domain, check_domain
from jaxtl.study.checks.measurable import (
    abstract_inputs,
    check_answers,
    check_score,
    derived_reads,
    metric_names,
)
from jaxtl.train.rehearsal import rehearse
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import Setup, resolve

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Node:
    """A stage with its place in the experiment.

    Attributes:
        parent: name of the stage before it, None for a first stage.
    """

    setup: Setup
    parent: str | None


def plan_stages(
    experiment: Experiment,
    arms: Iterable[str],
    seeds: tuple[int, ...],
    *,
    rehearsed: bool = True,
) -> dict[str, Node]:
    """{stage name: Node} of the chosen arms, parents first; a shared stage stands once.

    Args:
        experiment, arms, seeds: what is to be run.
        rehearsed: trace the step of each stage too, which takes about as long as compiling it.

    Raises:
        ValueError: whatever is wrong with the arms, stages, domains and evaluations, all at once.
    """
    problems = [f"arm {arm!r} has no stages" for arm, chain in experiment.arms.items() if not chain]
    nodes: dict[str, Node] = {}
    placed: dict[str, tuple[Stage, str | None]] = {}
    for arm in arms:
        for before, stage in itertools.pairwise((None, *experiment.arms[arm])):
            parent = before.name if before else None
            if stage.name in placed:
                if placed[stage.name] != (stage, parent):
                    problems.append(
                        f"arm {arm!r}: another stage is called {stage.name!r} too, with other "
                        "content or after another stage; share one Stage value or rename it"
                    )
                continue
            placed[stage.name] = (stage, parent)
            parent_node = nodes.get(parent)
            faults = list(_stage_problems(stage, seeds))
            problems += faults
            if faults or (before and not parent_node):
                continue
            try:
                setup = resolve(stage, parent_node.setup if parent_node else None)
                if rehearsed:
                    rehearse(over_seeds(setup, seeds), arm)
                nodes[stage.name] = Node(setup, parent)
            except ValueError as error:
                problems.append(str(error))
    problems += _clashing_folders(placed)
    problems += _evaluation_problems(experiment, nodes, seeds)
    problems += _criterion_problems(experiment, nodes, seeds)
    if not problems:
        problems = [
            *check_readings(experiment, _setups(nodes))[0],
            *_selection_problems(experiment),
        ]
    if problems:
        raise ValueError("\n".join(_lines(problems)))
    return nodes


def _lines(problems: Iterable[str]) -> list[str]:
    """One line a problem; one that several stages or evaluations share, after their names."""
    places: dict[str, list[str]] = {}
    for problem in problems:
        prefixed = re.fullmatch(
            r"((?:arm '[^']*', )?(?:stage|evaluation|criterion) '[^']*'): (.*)", problem, re.DOTALL
        )
        place, fault = prefixed.groups() if prefixed else ("", problem)
        places.setdefault(fault, []).append(place)
    shared = {fault: ", ".join(dict.fromkeys(where)) for fault, where in places.items()}
    return [f"{where}: {fault}" if where else fault for fault, where in shared.items()]


def _clashing_folders(stages: Iterable[str]) -> Iterable[str]:
    """Stages whose folders some file systems take for one."""
    names: dict[str, str] = {}
    for name in stages:
        other = names.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            yield f"stages {other!r} and {name!r} would be one folder where case does not count"


def check_arms(experiment: Experiment, arms: Iterable[str]) -> None:
    """Raises ValueError if an arm, or the baseline, is not one of the experiment's."""
    for arm in arms:
        if arm not in experiment.arms:
            raise ValueError(unknown("arm", arm, experiment.arms))
    if experiment.baseline not in experiment.arms:
        raise ValueError(unknown("baseline arm", experiment.baseline, experiment.arms))


def _stage_problems(stage: Stage, seeds: tuple[int, ...]) -> Iterable[str]:
    name = f"stage {stage.name!r}"
    if stage.name in ("", ".", "..") or "/" in stage.name:
        yield f"{name}: its name must be that of a folder, without /"
    if not stage.domains:
        yield f"{name} has no domains"
    if stage.batch_size < 1:
        yield f"{name}: batch_size must be at least 1, got {stage.batch_size}"
    if stage.num_steps < 0:
        yield f"{name}: num_steps must not be negative, got {stage.num_steps}"
    if stage.num_steps and not stage.method.updates:
        yield f"{name}: {stage.num_steps} steps, but its method has no updates; set num_steps=0"
    reads = set(stage.method.reads)
    for missing in sorted(reads - stage.data.keys()):
        yield (
            f"{name}: its method reads data called {missing!r}, which is no domain of weight 0: "
            f"give the stage data={{{missing!r}: labelled(dataset, head)}}"
        )
    for extra in sorted(stage.data.keys() - reads):
        yield f"{name}: its method does not read data called {extra!r}; it reads {sorted(reads)}"
    if stage.episodes is not None and len(stage.domains) > 1:
        yield (
            f"{name} has {len(stage.domains)} domains; one that draws episodes stands alone: put "
            "the datasets into stages of their own"
        )
    if stage.episodes is not None and stage.method.updates and stage.method.learner is None:
        yield (
            f"{name} draws episodes, which its method does not read: fewshot.episodic(learner, tx) "
            "does; labelled(dataset, head) is for methods that read examples"
        )
    for called, domain in stage.data.items():
        if domain.draw is not None:
            yield f"{name}: data {called!r} are read whole; leave `draw` out"
    for domain in (*stage.domains, *stage.data.values()):
        try:
            check_domain(domain, stage.model.heads, seeds)
        except ValueError as error:
            yield f"{name}: {error}"


def _evaluation_problems(
    experiment: Experiment, nodes: Mapping[str, Node], seeds: tuple[int, ...]
) -> Iterable[str]:
    heads = _last_heads(experiment)
    measured: dict[str, list[str]] = {}
    for name, evaluation in experiment.evals.items():
        head = evaluation.head
        try:
            if head in heads:
                measured[name] = metric_names(evaluation, heads[head])
        except ValueError as error:
            yield f"evaluation {name!r}: its metrics do not fit head {head!r}: {error}"
        try:
            check_domain(as_domain(evaluation), heads, seeds)
            _check_inputs(evaluation, nodes)
            _check_learner(experiment, evaluation, nodes)
        except ValueError as error:
            yield f"evaluation {name!r}: {error}"
    if measured.keys() != experiment.evals.keys():  # what a metric is called is not known
        return
    metrics = {f"{name}/{metric}" for name, names in measured.items() for metric in names}
    for name, derive in experiment.derived.items():
        try:
            for metric in sorted(derived_reads(name, derive, metrics) - metrics):
                yield f"derived metric {name!r}: {unknown('metric', metric, metrics)}"
        except ValueError as error:
            yield str(error)
        metrics.add(name)
    yield from declaration_problems(experiment, measured)
    selectable = {*metrics, *experiment.criteria}
    if experiment.select is not None and experiment.select.key not in selectable:
        yield unknown("metric to select by", experiment.select.key, selectable)
    if experiment.primary.key not in metrics:
        yield unknown("primary metric", experiment.primary.key, metrics)


def _criterion_problems(
    experiment: Experiment, nodes: Mapping[str, Node], seeds: tuple[int, ...]
) -> Iterable[str]:
    heads = _last_heads(experiment)
    primary = experiment.evals.get(experiment.primary.evaluation)
    for name, criterion in experiment.criteria.items():
        try:
            for domain in criterion.domains:
                check_domain(domain, heads, seeds)
                if not (domain.labelled and primary):
                    continue
                if shared := len(overlap(domain.dataset, primary.dataset)):
                    raise ValueError(
                        f"it reads the labels of {shared} examples of {primary.dataset.name}, by "
                        f"which {experiment.primary.key!r} decides"
                    )
            for node in nodes.values():
                if {h for d in criterion.domains for h in d.heads} <= node.setup.model.heads.keys():
                    check_score(criterion, node.setup, seeds[0])
                    break
        except ValueError as error:
            yield f"criterion {name!r}: {error}"


def _last_heads(experiment: Experiment) -> dict[str, Head]:
    """{name: head} of the models that end arms."""
    models = [stages[-1].model for stages in experiment.arms.values() if stages]
    return {name: head for model in models for name, head in model.heads.items()}


def criteria_heads(experiment: Experiment) -> set[str]:
    """The heads that its criteria read."""
    domains = [domain for each in experiment.criteria.values() for domain in each.domains]
    return {head for domain in domains for head in domain.heads}


def _check_inputs(evaluation: Evaluation, nodes: Mapping[str, Node]) -> None:
    """Raises ValueError if a stage's model cannot read the examples of an evaluation."""
    inputs = abstract_inputs(evaluation.dataset)
    for setup in (node.setup for node in nodes.values()):
        if inputs == setup.inputs or evaluation.head not in setup.model.heads:
            continue
        try:
            jax.eval_shape(setup.model.apply, setup.params, setup.state.statistics, inputs)
        except Exception as error:  # whatever a layer makes of inputs that do not fit
            raise ValueError(
                f"the model of stage {setup.stage.name!r} does not read the inputs of dataset "
                f"{evaluation.dataset.name}, {_shapes(inputs)}; it is trained on "
                f"{_shapes(setup.inputs)}"
            ) from error


def _check_learner(
    experiment: Experiment, evaluation: Evaluation, nodes: Mapping[str, Node]
) -> None:
    """Raises ValueError if nobody answers an evaluation on episodes, or somebody cannot."""
    if evaluation.episodes is None:
        return
    ends = dict.fromkeys(chain[-1].name for chain in experiment.arms.values() if chain)
    setups = [nodes[name].setup for name in ends if name in nodes]
    setups = [setup for setup in setups if evaluation.head in setup.model.heads]
    asked = [setup for setup in setups if learner_of(evaluation, setup.stage.method)]
    if setups and not asked:
        raise ValueError(
            "no arm ends with a method that reads episodes, such as fewshot.episodic(learner, tx) "
            "or fewshot.untrained(learner): name the learner here, as in "
            "few_shot(..., learner=fewshot.prototypical())"
        )
    for setup in asked:
        check_answers(evaluation, setup)


def _shapes(inputs: PyTree) -> str:
    return ", ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in jax.tree.leaves(inputs))


def _selection_problems(experiment: Experiment) -> Iterable[str]:
    """Whether parameters are selected by what every arm has, and by data which decide nothing."""
    select = experiment.select
    if (select or experiment.criteria) and experiment.select_every < 1:
        yield f"select_every must be at least 1, got {experiment.select_every}"
    if select is None:
        return
    if select.key in experiment.criteria:
        scored = criteria_heads(experiment) & _last_heads(experiment).keys()
        for arm, stages in experiment.arms.items():
            if missing := sorted(scored - stages[-1].model.heads.keys()):
                yield (
                    f"select {select.key!r}: the model that ends arm {arm!r} has no head "
                    f"{missing[0]!r}, which the criteria read"
                )
        return
    read = evaluations_read(experiment, select)
    for name, evaluation in experiment.evals.items():
        validation = [experiment.evals[each].dataset for each in read if name not in read]
        if shared := sum(len(overlap(each, evaluation.dataset)) for each in validation):
            yield (
                f"select {select.key!r} reads {shared} examples of evaluation "
                f"{name!r} ({evaluation.dataset.name}); select by validation data, such as one "
                "part of target.train.split(0.8)"
            )


def _setups(nodes: Mapping[str, Node]) -> dict[str, tuple[Setup, str | None]]:
    return {name: (node.setup, node.parent) for name, node in nodes.items()}


def warnings(experiment: Experiment, nodes: Mapping[str, Node]) -> list[str]:
    """What is legitimate but should be known, a line each.

    Training data that share labelled examples with an evaluation, images in floats of a range that
    models seldom expect, and metrics that do not say which way they are better.
    """
    readings = check_readings(experiment, _setups(nodes))[1]
    return [*leaks(experiment, nodes), *readings, *undeclared(experiment)]


def leaks(experiment: Experiment, nodes: Mapping[str, Node]) -> list[str]:
    """One line for each labelled training set that shares examples with an evaluation."""
    pairs: dict[tuple[Data, Data], str] = {}
    for domain in (domain for node in nodes.values() for domain in node.setup.stage.domains):
        for name, evaluation in experiment.evals.items() if domain.labelled else ():
            pairs.setdefault((domain.dataset, evaluation.dataset), name)
    lines = []
    for (training, test), name in pairs.items():
        if any(is_streamed(dataset.table().inputs) for dataset in (training, test)):
            logger.info("streamed: %s is not searched for examples of %s", test.name, training.name)
        elif shared := len(overlap(training, test)):
            lines.append(
                f"{shared} examples of evaluation {name!r} ({test.name}) stand in the training "
                f"data {training.name} too"
            )
    return lines
