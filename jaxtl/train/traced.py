"""Which stages of a sweep can share a compiled program, asked of the traced program itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from jaxtl.data import Dataset
from jaxtl.paths import split
from jaxtl.plan import Experiment, Stage
from jaxtl.train.check import Node, metric_sums
from jaxtl.train.feed import gather, host_feed
from jaxtl.train.lanes import Lanes, over_seeds
from jaxtl.train.run import Checked
from jaxtl.train.setup import METHOD_STATE, Setup
from jaxtl.train.step import init_optimizers, make_step

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
    config: Mapping[str, Any]
    experiment: Experiment
    nodes: Mapping[str, Node]


def together(name: str, main: Checked, points: Sequence[Point], sweep: Sweep) -> Lanes | str:
    """The lanes of all points of a stage, or why they cannot share a program."""
    fields = list(points[0].values)
    for field in fields:
        if not all(isinstance(point.values[field], float) for point in points):
            return f"{field} is not a float"

    def rebuild(values: Mapping[str, jax.Array]) -> Stage:
        arms = sweep.build(values).arms.values()
        return next(stage for stages in arms for stage in stages if stage.name == name)

    seeds = main.run.seeds
    lanes = Lanes(
        seeds * len(points),
        tuple(point.nodes[name].setup for point in points for _ in seeds),
        {
            field: np.repeat(np.float32([point.values[field] for point in points]), len(seeds))
            for field in fields
        },
        rebuild,
        swept=True,
    )
    try:
        if _reads(lanes, _outputs(lanes)):
            return f"its model reads {' or '.join(fields)}"
        _reads(lanes, _step(lanes))
    except Exception as error:  # whatever build, Optax or a loss makes of a traced number
        return f"{' or '.join(fields)} cannot be traced, {type(error).__name__}"
    if any(_differs(point.nodes[name].setup, main.nodes[name].setup, seeds) for point in points):
        return "its data, shapes or patterns differ"
    return lanes


def same_at_all_points(
    name: str, main: Checked, points: Sequence[Point], lanes: Lanes | str
) -> bool:
    """Whether every point trains a stage as the experiment itself does, from the same weights.

    Args:
        lanes: as `together` returns it.
    """
    node, seeds = main.nodes[name], main.run.seeds
    if isinstance(lanes, str) or node.setup.stage.method.prepare is not None:
        return False
    weights = host_feed(over_seeds(node.setup, seeds)).own
    for point in points:
        own = host_feed(over_seeds(point.nodes[name].setup, seeds)).own
        if not jax.tree.all(jax.tree.map(np.array_equal, own, weights)):
            return False
    return not _reads(lanes, _step(lanes))


def _reads(lanes: Lanes, traced: tuple[Callable, tuple]) -> bool:
    """Whether a function of (values, ...) uses the swept numbers."""
    function, args = traced
    values = {field: jax.ShapeDtypeStruct((), jnp.float32) for field in lanes.values}
    jaxpr = jax.make_jaxpr(function)(values, *args).jaxpr
    used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1]
    return any(used[: len(values)])


def _outputs(lanes: Lanes) -> tuple[Callable, tuple]:
    def outputs(values, params, state, inputs, rng):
        return lanes.rebuild(values).model.apply(params, state, inputs, rng=rng, train=True)

    setup = lanes.setup
    state = {name: tree for name, tree in setup.state.items() if name != METHOD_STATE}
    return outputs, (setup.params, state, setup.inputs, jax.random.key(0))


def _step(lanes: Lanes) -> tuple[Callable, tuple]:
    """All that a lane computes before and in its first step."""
    setup, stage = lanes.setup, lanes.setup.stage

    def step(values, params, state, shared, own, index, rng):
        here = lanes.at(values)
        method = here.stage.method
        trainable, frozen = split(params, lambda path: path in setup.trainable)
        started = {
            "trainable": trainable,
            "average": {} if method.ema is None else trainable,
            "state": state,
            "opt_state": init_optimizers(here, trainable),
            "failed": jnp.int32(-1),
        }
        begun = () if method.state is None else method.state(here.model, params)
        if not method.updates:
            return begun
        batch = gather(here.stage, shared, own, index, rng)
        return begun, make_step(here)(started, frozen, batch, rng, jnp.int32(0))

    feed = host_feed(lanes[:1])
    index = jax.ShapeDtypeStruct((stage.batch_size, len(stage.domains)), jnp.int32)
    own = jax.tree.map(lambda leaf: leaf[0], feed.own)
    return step, (setup.params, setup.state, feed.shared, own, index, jax.random.key(0))


def _differs(a: Setup, b: Setup, seeds: Sequence[int]) -> bool:
    """Whether two setups differ in anything but the numbers of their methods."""

    def fixed(setup: Setup) -> tuple:
        stage, method = setup.stage, setup.stage.method
        roles = [(dict(domain.heads), domain.labelled) for domain in stage.domains]
        numbers = (stage.batch_size, stage.num_steps, method.prepare_every, method.fresh_frozen)
        shapes = (setup.params, setup.state, setup.inputs)
        return dict(setup.labels), setup.solved, setup.fresh, shapes, roles, numbers

    if fixed(a) != fixed(b):
        return True
    pairs = zip(a.stage.domains, b.stage.domains, strict=True)
    return not all(_same_data(one.dataset, other.dataset, seeds) for one, other in pairs)


def _same_data(a: Dataset, b: Dataset, seeds: Sequence[int]) -> bool:
    """Whether two handles hold the same examples, and draw the same of them for each seed."""
    if a == b:
        return True
    one, other = ((d.table().inputs, dict(d.table().labels)) for d in (a, b))
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    if not jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y), one, other)):
        return False
    return all(np.array_equal(a.rows(seed), b.rows(seed)) for seed in seeds)


def same_evaluations(main: Checked, points: Sequence[Point], sweep: Sweep) -> bool:
    """Whether the points measure the same examples by the same sums."""
    evals, seeds = main.experiment.evals, main.run.seeds
    heads = {name: h for node in main.nodes.values() for name, h in node.setup.model.heads.items()}

    def sums(values):
        built = sweep.build(values).evals
        return {name: metric_sums(built[name], heads[built[name].head]) for name in built}

    for point in points:
        others = point.experiment.evals
        if evals.keys() != others.keys() or any(
            (evals[name].head, evals[name].column) != (others[name].head, others[name].column)
            or not _same_data(evals[name].dataset, others[name].dataset, seeds)
            for name in evals
        ):
            return False
    values = {field: jax.ShapeDtypeStruct((), jnp.float32) for field in sweep.points[0]}
    try:
        jaxpr = jax.make_jaxpr(sums)(values).jaxpr
    except Exception:  # whatever build makes of a traced number
        return False
    return not any(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1])
