"""Which stages of a sweep can share a compiled program, asked of the traced program itself."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core as jex
from jax.interpreters import partial_eval

from jaxtl.data import Dataset
from jaxtl.data.streamed import is_streamed
from jaxtl.plan import Domain, Evaluation, Experiment, Head, PyTree, Stage
from jaxtl.study.checks.experiments import Node
from jaxtl.study.checks.measurable import metric_sums
from jaxtl.train.feed.examples import host_feed
from jaxtl.train.rehearsal import abstract_values, first_step
from jaxtl.train.resolve.replicas import Replicas, over_seeds
from jaxtl.train.resolve.stage import Setup, roles_of

Values = Mapping[str, Any]


class Sweep(NamedTuple):
    """What is swept.

    Attributes:
        points: {field: value} of each point.
        configs: the whole config of each point, JSON values.
        build: {field: value} -> Experiment; the values may be traced.
    """

    points: Sequence[Values]
    configs: Sequence[Mapping[str, Any]]
    build: Callable[[Values], Experiment]


class Point(NamedTuple):
    """One point that is not the experiment itself."""

    values: Values
    experiment: Experiment
    nodes: Mapping[str, Node]


def group_points(
    name: str, points: Sequence[Point], sweep: Sweep, seeds: tuple[int, ...]
) -> tuple[list[list[int]], str]:
    """The points of a stage that can share a program, and why not all of them can."""
    reasons = {field: _untraceable(name, field, points, sweep) for field in points[0].values}
    fixed = [field for field, reason in reasons.items() if reason]
    members: dict[str, list[int]] = {}
    for i, point in enumerate(points):
        members.setdefault(repr([point.values[field] for field in fixed]), []).append(i)
    result = []
    for group in members.values():
        first = points[group[0]].nodes[name].setup
        if any(_differs(points[i].nodes[name].setup, first, seeds) for i in group):
            result += [[i] for i in group]
            reasons["data"] = "its data, shapes or patterns differ"
        else:
            result.append(group)
    return result, "; ".join(filter(None, reasons.values()))


def group_replicas(
    name: str, points: Sequence[Point], sweep: Sweep, seeds: tuple[int, ...]
) -> Replicas:
    """The replicas of a group; what all its points have in common stays a number of the program."""
    if len(points) == 1:
        return dataclasses.replace(over_seeds(points[0].nodes[name].setup, seeds), swept=True)
    columns = {field: [point.values[field] for point in points] for field in points[0].values}
    numbers = {
        field: np.repeat(np.float32(column), len(seeds))
        for field, column in columns.items()
        if any(value != column[0] for value in column)
    }
    return Replicas(
        seeds * len(points),
        tuple(point.nodes[name].setup for point in points for _ in seeds),
        numbers,
        _rebuild(name, points[0], sweep),
        swept=True,
        points=len(points),
    )


def _rebuild(name: str, point: Point, sweep: Sweep) -> Callable[[Values], Stage]:
    """{field: value}, which may be traced -> the stage of a point with these values instead."""

    def rebuild(values: Values) -> Stage:
        arms = sweep.build({**point.values, **values}).arms
        return next(stage for chain in arms.values() for stage in chain if stage.name == name)

    return rebuild


def _untraceable(name: str, field: str, points: Sequence[Point], sweep: Sweep) -> str:
    """Why a field cannot be an array in the program of a stage; empty if it can."""
    if not all(isinstance(point.values[field], float) for point in points):
        return f"{field} is not a float"
    setup = points[0].nodes[name].setup
    numbers = {field: np.float32([points[0].values[field]])}
    replicas = Replicas((0,), (setup,), numbers, _rebuild(name, points[0], sweep))
    try:
        jaxpr = _trace(*_outputs(replicas)).jaxpr
        if partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1][0]:
            return f"the model reads {field}"
        _trace(*first_step(replicas))
    except Exception as error:  # whatever build, Optax or a loss makes of a traced number
        return f"{field} cannot be traced ({type(error).__name__})"
    return ""


def same_training(setup: Setup, others: Sequence[Setup], seeds: tuple[int, ...]) -> bool:
    """Whether other stages, started from the same weights, run this one's program on its data."""
    prepares = setup.stage.method.prepare is not None or setup.solvers
    if prepares or any(_differs(other, setup, seeds) for other in others):
        return False
    replicas = over_seeds(setup, seeds)
    columns, program = host_feed(replicas).per_replica, _trace(*first_step(replicas))
    return all(
        _equal(host_feed(other).per_replica, columns)
        and _same_program(_trace(*first_step(other)), program)
        for other in (over_seeds(o, seeds) for o in others)
    )


def _same_program(a: jex.ClosedJaxpr, b: jex.ClosedJaxpr) -> bool:
    """Whether two traced programs read alike, but for addresses in memory."""
    texts = {re.sub("0x[0-9a-f]+", "", str(program.jaxpr)) for program in (a, b)}
    return len(texts) == 1 and _equal(a.consts, b.consts)


def _trace(function: Callable, args: tuple) -> jex.ClosedJaxpr:
    return jax.make_jaxpr(function)(*args)


def _equal(a: PyTree, b: PyTree) -> bool:
    """Whether two trees have the same form and the same numbers."""
    same = jax.tree.structure(a) == jax.tree.structure(b)
    return same and jax.tree.all(jax.tree.map(np.array_equal, a, b))


def _outputs(replicas: Replicas) -> tuple[Callable, tuple]:
    """(values, ...) -> what the model says while it trains; with abstract arguments."""

    def outputs(values, params, statistics, inputs, rng):
        return replicas.rebuild(values).model.apply(params, statistics, inputs, rng=rng, train=True)

    setup = replicas.setup
    args = (setup.params, setup.state.statistics, setup.inputs, jax.random.key(0))
    return outputs, (abstract_values(replicas), *args)


def _differs(a: Setup, b: Setup, seeds: Sequence[int]) -> bool:
    """Whether two setups differ in anything but the numbers of their methods."""

    def domains(setup: Setup) -> list[Domain]:
        return [*setup.stage.domains, *setup.stage.data.values()]

    def fixed(setup: Setup) -> tuple:
        stage, method = setup.stage, setup.stage.method
        reads = [(dict(domain.heads), domain.labelled) for domain in domains(setup)]
        numbers = (stage.batch_size, stage.num_steps, method.prepare_every, method.fresh_frozen)
        shapes = (setup.params, setup.state, setup.inputs)
        patterns = (dict(setup.groups), setup.solved, setup.fresh)
        return patterns, stage.weights, shapes, roles_of(stage), list(stage.data), reads, numbers

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
    main: Experiment, other: Experiment, heads: Mapping[str, Head], seeds: Sequence[int]
) -> bool:
    """Whether two experiments measure the same examples by the same sums.

    Args:
        heads: those that are measured.
    """

    def measured(experiment: Experiment) -> dict[str, Evaluation]:
        return {name: e for name, e in experiment.evals.items() if e.head in heads}

    def program(evaluation: Evaluation) -> jex.ClosedJaxpr:
        return jax.make_jaxpr(lambda: metric_sums(evaluation, heads[evaluation.head]))()

    first, second = measured(main), measured(other)
    return first.keys() == second.keys() and all(
        (a.head, a.column) == (b.head, b.column)
        and _same_data(a.dataset, b.dataset, seeds)
        and _same_program(program(a), program(b))
        for a, b in ((first[name], second[name]) for name in first)
    )
