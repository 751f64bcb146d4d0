"""Whether two stages, or two evaluations, come to the same numbers: only if it can be shown.

What has equal fingerprints is the same; what cannot be looked into counts as different.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data import Dataset
from jaxtl.data.streamed import is_streamed
from jaxtl.measure.declarations import selecting_metric
from jaxtl.models import forward
from jaxtl.plan import Domain, Evaluation, Experiment, Head, PyTree
from jaxtl.study.checks.measurable import metric_sums
from jaxtl.train.feed.examples import host_feed
from jaxtl.train.rehearsal import first_step
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import Setup, initialise, roles_of
from jaxtl.train.store.fingerprint import Fingerprint, of_program, of_value


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
    columns, code = _columns(setup, seeds), _code(setup)
    if not all(_equal(_columns(other, seeds), columns) for other in others):
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


def _columns(setup: Setup, seeds: tuple[int, ...]) -> PyTree:
    """The weights of the examples of each seed."""
    return host_feed(over_seeds(setup, seeds)).per_replica


def _step(setup: Setup) -> Fingerprint:
    step, args = first_step(over_seeds(setup, (0,)))
    return of_program(step, *args)


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


def same_selection(a: Experiment, b: Experiment, name: str, seeds: Sequence[int]) -> bool:
    """Whether two experiments take down the same of a stage while it trains, if anything.

    Whether their evaluations measure the same is another question, see `same_evaluations`.
    """

    def domains(experiment: Experiment) -> list[Domain]:
        return [d for criterion in experiment.criteria.values() for d in criterion.domains]

    def rules(experiment: Experiment) -> tuple:
        heads = [(evaluation, each.head) for evaluation, each in experiment.evals.items()]
        numbers = experiment.select, experiment.select_every, experiment.primary
        views = [(len(c.domains), name) for name, c in experiment.criteria.items()]
        reads = [(dict(domain.heads), domain.labelled) for domain in domains(experiment)]
        return is_validated(experiment, name), numbers, heads, views, reads

    def code(experiment: Experiment) -> Fingerprint:
        scores = [criterion.score for criterion in experiment.criteria.values()]
        return of_value((scores, dict(experiment.derived)))

    if not is_validated(a, name) and not is_validated(b, name):
        return True
    return (
        rules(a) == rules(b)
        and _same(code(a), code(b))
        and all(
            _same_data(first.dataset, second.dataset, seeds)
            for first, second in zip(domains(a), domains(b), strict=True)
        )
    )


def _equal(a: PyTree, b: PyTree) -> bool:
    """Whether two trees have the same form and the same numbers."""
    same = jax.tree.structure(a) == jax.tree.structure(b)
    return same and jax.tree.all(jax.tree.map(np.array_equal, a, b))


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

    return fixed(a) != fixed(b) or not all(
        _same_data(*(domain.dataset for domain in pair), seeds)
        for pair in zip(domains(a), domains(b), strict=True)
    )


def _same_data(a: Dataset, b: Dataset, seeds: Sequence[int]) -> bool:
    """Whether two handles hold the same examples, and draw the same of them for each seed."""
    if a == b:
        return True
    examples = [(data.table().inputs, dict(data.table().labels)) for data in (a, b)]
    if is_streamed(examples):
        return False  # not read for this
    return _equal(*examples) and _equal(*([d.rows(seed) for seed in seeds] for d in (a, b)))


def same_evaluations(
    main: tuple[Experiment, Mapping[str, Head]],
    other: tuple[Experiment, Mapping[str, Head]],
    seeds: Sequence[int],
) -> bool:
    """Whether two experiments measure the same examples by the same sums.

    Args:
        main, other: an experiment and the heads that are measured.
    """

    def measured(experiment: Experiment, heads: Mapping[str, Head]) -> dict[str, tuple]:
        evaluations = experiment.evals.items()
        return {name: (e, heads[e.head]) for name, e in evaluations if e.head in heads}

    def reads(evaluation: Evaluation, head: Head) -> tuple:
        labels = head.size, head.label_shape, head.integer, head.bounds
        return evaluation.head, evaluation.column, labels

    def sums(evaluation: Evaluation, head: Head) -> Fingerprint:
        return of_program(lambda: metric_sums(evaluation, head))

    first, second = measured(*main), measured(*other)
    return first.keys() == second.keys() and all(
        reads(*a) == reads(*b)
        and _same_data(a[0].dataset, b[0].dataset, seeds)
        and (_same(of_value(a[0].sums), of_value(b[0].sums)) or _same(sums(*a), sums(*b)))
        for a, b in ((first[name], second[name]) for name in first)
    )


def same_results(a: Experiment, b: Experiment) -> bool:
    """Whether two experiments make the same metrics of what their evaluations sum."""
    results = ({name: e.results for name, e in each.evals.items()} for each in (a, b))
    return _same(*map(of_value, results))
