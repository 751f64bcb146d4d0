"""Whether two stages, or two evaluations, come to the same numbers: only if it can be shown.

What has equal fingerprints is the same; what cannot be looked into counts as different.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxtl.fingerprint import Fingerprint, combined, of_program, of_value
from jaxtl.measure.declarations import selecting_metric
from jaxtl.models import forward
from jaxtl.plan import Domain, Experiment, PyTree
from jaxtl.study.checks.experiments import Node
from jaxtl.study.validation import EvaluationIdentity, evaluation_identity, validation_identity
from jaxtl.train.feed.digest import data_digests, domain_digests
from jaxtl.train.rehearsal import rehearsed, step_fingerprint
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import Setup, initialise, roles_of
from jaxtl.train.store.identity import nameless

Planned = tuple[Experiment, Mapping[str, Node]]


def _same(a: Fingerprint, b: Fingerprint) -> bool:
    return a == b and not a.opaque


def same_model(a: Setup, b: Setup) -> bool:
    """Whether the models of two stages start from the same values and compute the same."""
    if _same(*(of_value((s.model, s.stage.method.modules)) for s in (a, b))):
        return True
    programs = (model_programs(s, lambda values, s=s: s.stage, {}) for s in (a, b))
    return all(
        _same(of_program(*one), of_program(*other)) for one, other in zip(*programs, strict=True)
    )


def model_programs(setup: Setup, rebuild: Callable, values: PyTree) -> list[tuple]:
    """(program, its abstract arguments, `values` first) of all that a model is asked for.

    Args:
        setup: of a stage with such a model.
        rebuild: values -> the stage.
    """

    def start(values: PyTree, seed: jax.Array) -> PyTree:
        return initialise(rebuild(values), setup.inputs, setup.shape, seed)

    def outputs(values: PyTree, *args: PyTree, **options: Any) -> PyTree:
        model = dataclasses.replace(rebuild(values).model, live=setup.model.live)
        return model.apply(*args, **options)

    def outputs_in_training(values: PyTree, rng: jax.Array, *args: PyTree) -> PyTree:
        return outputs(values, *args, rng=rng, train=True)

    given = setup.params, setup.state.statistics, setup.inputs
    return [
        (start, values, jax.ShapeDtypeStruct((), jnp.int32)),
        (outputs, values, *given),
        (outputs_in_training, values, jax.random.key(0), *given),
    ]


def same_outputs(a: Setup, b: Setup) -> bool:
    """Whether two stages, with the same weights, predict the same of examples that they are shown.

    Host code that only one of them reads counts as different.
    """

    def outputs(setup: Setup) -> Fingerprint:
        predict = forward(setup.model, setup.stage.method.predict)
        pair = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype), setup.inputs
        )
        return of_program(predict, setup.params, setup.state, pair)

    return _same(*(of_value((s.model, s.stage.method.predict)) for s in (a, b))) or _same(
        outputs(a), outputs(b)
    )


def same_training(setup: Setup, others: Sequence[Setup], seeds: tuple[int, ...]) -> bool:
    """Whether other stages, started from the same weights, do the same on the same data.

    They predict the same then, too.
    """
    if any(differs(other, setup, seeds) for other in others):
        return False
    data, code = _data(setup, seeds), _code(setup)
    if any(_data(other, seeds) != data for other in others):
        return False
    rest = [other for other in others if not _same(_code(other), code)]
    program = _step(setup) if rest else None
    return all(
        same_model(other, setup)
        and same_outputs(other, setup)
        and _same(_host_code(other), _host_code(setup))
        and _same(_step(other), program)
        for other in rest
    )


def _data(setup: Setup, seeds: tuple[int, ...]) -> dict[str, Any]:
    """What each seed reads, the weights of examples among it."""
    return nameless(data_digests(over_seeds(setup, seeds)))


def _step(setup: Setup) -> Fingerprint:
    replicas = over_seeds(setup, (0,))
    return combined(step_fingerprint(replicas), [p.names for p in rehearsed(replicas) if p])


def _code(setup: Setup) -> Fingerprint:
    """Of all code that a stage's programs are traced from, and of what it reads."""
    augment = [domain.augment for domain in setup.stage.domains]
    return of_value((setup.model, setup.stage.method, augment, _named_weights(setup)))


def _host_code(setup: Setup) -> Fingerprint:
    """Of what a stage computes before and between its steps, outside of its program."""
    solvers = [adapter.after_loading for adapter in setup.solvers]
    return of_value((setup.stage.method.prepare, solvers, _named_weights(setup)))


def _named_weights(setup: Setup) -> list[tuple]:
    data = setup.stage.data.items()
    return [(name, domain.weight, domain.example_weights) for name, domain in data]


def is_validated(experiment: Experiment, name: str) -> bool:
    """Whether something is measured while a stage trains."""
    measured = selecting_metric(experiment) is not None or bool(experiment.criteria)
    return measured and name in {stages[-1].name for stages in experiment.arms.values()}


def same_selection(a: Planned, b: Planned, name: str, seeds: Sequence[int]) -> bool:
    """Whether two experiments take down the same of a stage while it trains, if anything."""
    (first, unreadable), (second, _) = (validation_identity([x], name, seeds) for x in (a, b))
    return nameless(first) == nameless(second) and not unreadable


def differs(a: Setup, b: Setup, seeds: Sequence[int]) -> bool:
    """Whether two setups differ in anything but the numbers of their methods."""

    def domains(setup: Setup) -> list[Domain]:
        return [*setup.stage.domains, *setup.stage.data.values()]

    def fixed(setup: Setup) -> tuple:
        stage, method = setup.stage, setup.stage.method
        reads = [(dict(domain.heads), domain.labelled) for domain in domains(setup)]
        numbers = (stage.batch_size, stage.num_steps, method.prepare_every, method.fresh_frozen)
        passes = (method.prepare is None, method.remembers, [a.solves for a in setup.solvers])
        shapes = (setup.params, setup.state, setup.inputs)
        patterns = (dict(setup.groups), setup.solved, setup.fresh)
        return (
            patterns,
            stage.weights,
            shapes,
            roles_of(stage),
            list(stage.data),
            reads,
            numbers,
            passes,
        )

    def data(setup: Setup) -> list[dict[str, Any]]:
        """Without the weights of domains and examples, which are numbers."""
        heads = setup.stage.model.heads
        plain = [
            dataclasses.replace(each, weight=1.0, example_weights=None) for each in domains(setup)
        ]
        return [nameless(domain_digests([each], heads, seeds)) for each in plain]

    return fixed(a) != fixed(b) or data(a) != data(b)


def same_evaluations(a: Planned, b: Planned, seeds: Sequence[int]) -> tuple[bool, bool]:
    """Whether two experiments sum the same over the same examples, and make the same of that."""
    first, second = (_evaluations(*x, seeds) for x in (a, b))
    pairs = [(each, second[name]) for name, each in first.items() if name in second]
    alike = len(pairs) == len(first) == len(second)
    shared = alike and all(
        _same(x.sums, y.sums) and nameless(x.data) == nameless(y.data) for x, y in pairs
    )
    return shared, shared and all(_same(x.results, y.results) for x, y in pairs)


def _evaluations(
    experiment: Experiment, nodes: Mapping[str, Node], seeds: Sequence[int]
) -> dict[tuple[str, str], EvaluationIdentity]:
    """{(evaluation, its head): what it measures} of those whose head is trained."""
    models = [node.setup.model for node in nodes.values()]
    heads = {name: head for model in models for name, head in model.heads.items()}
    return {
        (name, evaluation.head): evaluation_identity(evaluation, heads, seeds)
        for name, evaluation in experiment.evals.items()
        if evaluation.head in heads
    }
