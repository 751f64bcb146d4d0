"""Everything that can be wrong with an experiment, found before any work starts."""

import dataclasses
import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping

import jax

from jaxtl.data import overlap, validate
from jaxtl.data.streamed import is_streamed
from jaxtl.measure.declarations import declaration_problems, undeclared
from jaxtl.models import to_float
from jaxtl.paths import unknown
from jaxtl.plan import Evaluation, Experiment, PyTree, Stage
from jaxtl.study.checks.data import check_labels, check_readings, no_labels
from jaxtl.study.checks.domains import check_domain
from jaxtl.study.checks.measurable import check_score, derived_reads, metric_names
from jaxtl.train.rehearsal import rehearse
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
    empty = [arm for arm, stages in experiment.arms.items() if not stages]
    problems = [f"arm {arm!r} has no stages" for arm in empty]
    nodes: dict[str, Node] = {}
    chains: dict[str, tuple[Stage, str | None]] = {}
    broken: set[str] = set()
    for arm in arms:
        parent = None
        for stage in experiment.arms[arm]:
            seen = chains.setdefault(stage.name, (stage, parent))
            if seen != (stage, parent):
                problems.append(
                    f"arm {arm!r}: another stage is called {stage.name!r} too, with other content "
                    "or after another stage; share one Stage value or rename it"
                )
            elif stage.name not in nodes and stage.name not in broken:
                found = list(_stage_problems(stage, seeds))
                if parent in broken:
                    found.append("")
                try:
                    if not found:
                        above = nodes[parent].setup if parent else None
                        setup = resolve(stage, above)
                        if rehearsed:
                            setup = rehearse(setup, arm, seeds)
                        nodes[stage.name] = Node(setup, parent)
                except ValueError as error:
                    found.append(str(error))
                if found:
                    broken.add(stage.name)
                    problems += [problem for problem in found if problem]
            parent = stage.name
    problems += _twins("stages", chains)
    problems += _evaluation_problems(experiment, nodes, seeds)
    problems += _criterion_problems(experiment, nodes, seeds)
    if not problems:
        problems += check_readings(experiment, _setups(nodes))[0]
    if problems:
        raise ValueError("\n".join(_merged(problems)))
    return nodes


def _merged(problems: Iterable[str]) -> list[str]:
    """One line a problem; one that several stages or evaluations share, after their names."""
    places: dict[str, list[str]] = {}
    for problem in problems:
        prefixed = re.fullmatch(
            r"((?:arm '[^']*', )?(?:stage|evaluation|criterion) '[^']*'): (.*)", problem, re.DOTALL
        )
        place, what = prefixed.groups() if prefixed else ("", problem)
        places.setdefault(what, []).append(place)
    named = {what: ", ".join(dict.fromkeys(where)) for what, where in places.items()}
    return [": ".join(filter(None, (where, what))) for what, where in named.items()]


def _twins(what: str, names: Iterable[str]) -> Iterable[str]:
    """Names of folders that some file systems take for one."""
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            yield f"{what} {other!r} and {name!r} would be one folder where case does not count"


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
    reads, given = set(stage.method.reads), stage.data.keys()
    for read in sorted(reads - given):
        yield (
            f"{name}: its method reads data called {read!r}, which is no domain of weight 0: give "
            f"the stage data={{{read!r}: labelled(dataset, head)}}"
        )
    for extra in sorted(given - reads):
        yield f"{name}: its method does not read data called {extra!r}; it reads {sorted(reads)}"
    for domain in (*stage.domains, *stage.data.values()):
        try:
            check_domain(domain, stage.model.heads, seeds)
        except ValueError as error:
            yield f"{name}: {error}"


def _evaluation_problems(
    experiment: Experiment, nodes: Mapping[str, Node], seeds: tuple[int, ...]
) -> Iterable[str]:
    models = [stages[-1].model for stages in experiment.arms.values() if stages]
    heads = {name: head for model in models for name, head in model.heads.items()}
    measured: dict[str, list[str]] = {}
    complete = True
    for name, evaluation in experiment.evals.items():
        if evaluation.head not in heads:
            yield f"evaluation {name!r}: {unknown('head', evaluation.head, heads)}"
            complete = False
            continue
        dataset, head = evaluation.dataset, heads[evaluation.head]
        try:
            measured[name] = metric_names(evaluation, head)
        except ValueError as error:
            yield f"evaluation {name!r}: its metrics do not fit head {evaluation.head!r}: {error}"
            complete = False
        try:
            validate(dataset)
            blind = check_labels(dataset, evaluation.column, evaluation.head, head, seeds)
            if blind:
                raise ValueError(no_labels(dataset, {evaluation.head: evaluation.column}, blind))
            _check_inputs(evaluation, nodes)
            for seed in seeds:
                if len(dataset.rows(seed)) == 0:
                    raise ValueError(f"dataset {dataset.name} has no examples (seed {seed})")
        except ValueError as error:
            yield f"evaluation {name!r}: {error}"
    if not complete:  # what a metric is called is not known
        return
    metrics = {f"{name}/{metric}" for name, names in measured.items() for metric in names}
    selectable = {*metrics, *experiment.criteria}
    for name, derive in experiment.derived.items():
        try:
            for metric in sorted(derived_reads(name, derive, metrics) - metrics):
                yield f"derived metric {name!r}: {unknown('metric', metric, metrics)}"
        except ValueError as error:
            yield str(error)
        metrics.add(name)
    yield from declaration_problems(experiment, measured)
    if experiment.select is not None and experiment.select.key not in selectable:
        yield unknown("metric to select by", experiment.select.key, selectable)
    if experiment.primary.key not in metrics:
        yield unknown("primary metric", experiment.primary.key, metrics)


def _criterion_problems(
    experiment: Experiment, nodes: Mapping[str, Node], seeds: tuple[int, ...]
) -> Iterable[str]:
    models = [stages[-1].model for stages in experiment.arms.values() if stages]
    heads = {name: head for model in models for name, head in model.heads.items()}
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
    select, read = experiment.select, criteria_heads(experiment)
    for arm, stages in experiment.arms.items():
        if select is None or select.key not in experiment.criteria or not stages:
            continue
        if missing := sorted(read & heads.keys() - stages[-1].model.heads.keys()):
            yield (
                f"select {select.key!r}: the model that ends arm {arm!r} has no head "
                f"{missing[0]!r}, which the criteria read"
            )


def criteria_heads(experiment: Experiment) -> set[str]:
    """The heads that its criteria read."""
    domains = [domain for one in experiment.criteria.values() for domain in one.domains]
    return {head for domain in domains for head in domain.heads}


def _check_inputs(evaluation: Evaluation, nodes: Mapping[str, Node]) -> None:
    """Raises ValueError if a stage's model cannot read the examples of an evaluation."""
    dataset = evaluation.dataset
    inputs = jax.tree.map(lambda leaf: leaf[:1], dataset.table().inputs)
    inputs = jax.eval_shape(to_float, inputs)
    for node in nodes.values():
        setup = node.setup
        if inputs == setup.inputs or evaluation.head not in setup.model.heads:
            continue
        try:
            jax.eval_shape(setup.model.apply, setup.params, setup.state.statistics, inputs)
        except Exception as error:  # whatever a layer makes of inputs that do not fit
            raise ValueError(
                f"the model of stage {setup.stage.name!r} does not read the inputs of dataset "
                f"{dataset.name}, {_shapes(inputs)}; it is trained on {_shapes(setup.inputs)}"
            ) from error


def _shapes(inputs: PyTree) -> str:
    return ", ".join(f"{leaf.dtype}{list(leaf.shape[1:])}" for leaf in jax.tree.leaves(inputs))


def check_selection(experiment: Experiment) -> None:
    """Check that parameters are selected by data which decides nothing else.

    Raises:
        ValueError: the validation shares examples with another evaluation, or is never looked at.
    """
    select = experiment.select
    if select is None and not experiment.criteria:
        return
    if experiment.select_every < 1:
        raise ValueError(f"select_every must be at least 1, got {experiment.select_every}")
    if select is None or select.key in experiment.criteria:
        return
    validation = experiment.evals[select.evaluation]
    for other, evaluation in experiment.evals.items():
        if other == select.evaluation:
            continue
        if shared := len(overlap(validation.dataset, evaluation.dataset)):
            raise ValueError(
                f"select {select.key!r} reads {shared} examples of evaluation "
                f"{other!r} ({evaluation.dataset.name}); select by validation data, such as one "
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
    lines = {}
    for node in nodes.values():
        for domain in node.setup.stage.domains:
            for name, evaluation in experiment.evals.items():
                key = (domain.dataset, evaluation.dataset)
                if domain.labelled and key not in lines:
                    if any(is_streamed(dataset.table().inputs) for dataset in key):
                        names = (evaluation.dataset.name, domain.dataset.name)
                        logger.info("streamed: %s is not searched for examples of %s", *names)
                        lines[key] = ""
                        continue
                    shared = len(overlap(domain.dataset, evaluation.dataset))
                    lines[key] = (
                        f"{shared} examples of evaluation {name!r} ({evaluation.dataset.name}) "
                        f"stand in the training data {domain.dataset.name} too"
                        if shared
                        else ""
                    )
    return [line for line in lines.values() if line]
