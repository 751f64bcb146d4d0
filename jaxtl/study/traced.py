"""Which points of a sweep can share a compiled program, asked of the traced program itself."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core as jex
from jax.interpreters import partial_eval

from jaxtl.files import digest
from jaxtl.fingerprint import of_jaxpr, of_program
from jaxtl.plan import Experiment, Stage
from jaxtl.study.checks.experiments import Node
from jaxtl.study.same import (
    differs,
    is_validated,
    model_programs,
    same_model,
    same_outputs,
    same_selection,
)
from jaxtl.train.rehearsal import abstract_values, first_step, rehearsed, step_fingerprint
from jaxtl.train.resolve.replicas import Replicas, over_seeds

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


def label(points: Sequence[Values]) -> str:
    """`learning_rate=0.1,1.0;noise=0.5`: the values of each field; short enough for a folder."""
    fields = {name: dict.fromkeys(str(values[name]) for values in points) for name in points[0]}
    text = ";".join(f"{name}={','.join(values)}" for name, values in fields.items())
    whole = math.prod(map(len, fields.values())) == len(points)  # a grid says which points it has
    if whole and len(text) <= 150:
        return text
    return f"{text[:120]}...{digest(text if whole else [dict(values) for values in points])}"


def group_points(
    name: str, points: Sequence[Point], sweep: Sweep, seeds: tuple[int, ...]
) -> tuple[list[list[int]], str]:
    """The points of a stage that can share a program, and why not all of them can."""
    reasons = {field: _untraceable(name, field, points, sweep) for field in points[0].values}
    fixed = [field for field, reason in reasons.items() if reason]
    groups: list[list[int]] = []
    for i, point in enumerate(points):
        values = [point.values[field] for field in fixed]
        alike = [g for g in groups if [points[g[0]].values[field] for field in fixed] == values]
        group = next((g for g in alike if _fits(name, points[g[0]], point, seeds)), None)
        if group is None:
            groups.append([i])
            if alike:
                reasons["data"] = "its data, shapes, patterns, model or validation differ"
        else:
            group.append(i)
    result = []
    for group in groups:
        replicas = group_replicas(name, [points[i] for i in group], sweep, seeds[:1])
        reason = ""
        if len(group) > 1 and (len(replicas.values) > 1 or group[0] > 0):
            # Another combination than those that were traced field by field.
            reason = _why_apart(replicas, " and ".join(replicas.values))
        reasons["together"] = reasons.get("together") or reason
        result += [[i] for i in group] if reason else [group]
    return result, "; ".join(filter(None, reasons.values()))


def _fits(name: str, first: Point, point: Point, seeds: tuple[int, ...]) -> bool:
    """Whether two points differ in nothing but numbers of a stage's step, `prepare` or `predict`.

    What selects parameters while the stage trains is measured as at the first point.
    """
    a, b = first.nodes[name].setup, point.nodes[name].setup
    return (
        not differs(a, b, seeds)
        and same_model(a, b)
        and same_selection(*((p.experiment, p.nodes) for p in (first, point)), name, seeds)
        and (not is_validated(first.experiment, name) or same_outputs(a, b))
    )


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
    """Why a field cannot be an array in the program of a stage; empty if it can, or need not."""
    column = list(dict.fromkeys(point.values[field] for point in points))
    if len(column) == 1:
        return ""
    if not all(isinstance(value, float) for value in column):
        return f"{field} is not a float"
    setup, numbers = points[0].nodes[name].setup, {field: np.float32(column[:1])}
    replicas = Replicas((0,), (setup,), numbers, _rebuild(name, points[0], sweep))
    return _why_apart(replicas, field, column[:2])


def _why_apart(replicas: Replicas, fields: str, column: Sequence[float] = ()) -> str:
    """Why the swept numbers of some replicas cannot be arrays in their program; empty if they can.

    Args:
        fields: their names.
        column: two values of a single number.
    """
    try:
        values = abstract_values(replicas)
        for program, *args in model_programs(replicas.setup, replicas.rebuild, values):
            traced = jax.make_jaxpr(program)(*args)
            if _reads(traced, len(values)) or of_jaxpr(traced).opaque:
                return f"the model reads {fields}"
        programs = [each.closed for each in rehearsed(replicas) if each is not None]
        count = len(values)
        reads = any(_reads(program, count) for program in programs)
        opaque = step_fingerprint(replicas).opaque
        if opaque:  # a callback would meet the traced number when the program runs
            return f"{fields} cannot be traced ({'; '.join(opaque)})"
        # Python code can ask for the type of a number, or write it into a text.
        if column and not reads:
            step, args = first_step(replicas)
            alone = (functools.partial(step, {fields: value}) for value in column)
            if len({of_program(each, *args[1:]) for each in alone}) > 1:
                return f"{fields} is not read where it is traced"
    except Exception as error:  # whatever build, Optax or a loss makes of a traced number
        return f"{fields} cannot be traced ({type(error).__name__})"
    return ""


def _reads(program: jex.ClosedJaxpr, count: int) -> bool:
    """Whether the results of a program depend on the first `count` of its arguments."""
    used = partial_eval.dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars))[1]
    return any(used[:count])
