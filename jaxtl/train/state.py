"""What a stage starts from and ends with.

It starts from fresh and loaded parameters, the method's own state, its optimizers. It ends with the
best parameters by validation, an average, or the last. The best ones so far are part of its state,
one set for each lane: what a seed ends with does not depend on which other seeds train beside it,
and a stopped run loses none of it.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.paths import flatten, join, matches, nest, split
from jaxtl.plan import Method, Metric, Params, PyTree, State
from jaxtl.train.feed.examples import columns
from jaxtl.train.mesh import shard_state, to_host
from jaxtl.train.resolve.lanes import Lanes
from jaxtl.train.resolve.stage import METHOD_STATE, initialise, loaded
from jaxtl.train.step import Carry, begin, differing


class Look(NamedTuple):
    """How a stage looks at data that it does not train on, and keeps its best parameters.

    Attributes:
        metric: which of what is measured decides; None keeps the last parameters.
        every: steps between looks; the last step is always looked at.
        measure: (params, state) -> {key of a metric: [lanes]}, leaves lead with the axis of lanes.
    """

    metric: Metric | None
    every: int
    measure: Callable[[Params, State], Mapping[str, np.ndarray]]


def start(lanes: Lanes, source: tuple[Params, State] | None) -> PyTree:
    """The full state of a stage before its first step, leaves with the leading axis of lanes."""
    setup, method = lanes.setup, lanes.setup.stage.method

    def fresh(seed: jax.Array) -> dict[str, jax.Array]:
        leaves = map(flatten, initialise(setup.stage, setup.inputs, setup.shape, seed))
        return {path: leaf for tree in leaves for path, leaf in tree.items() if path in setup.fresh}

    leaves = jax.jit(jax.vmap(fresh))(jnp.asarray(lanes.seeds))
    leaves |= loaded(setup, source, len(lanes))
    params, state = (
        nest({path: jnp.asarray(leaves[path]) for path in flatten(tree) if path in leaves})
        for tree in (setup.params, setup.state)
    )
    params = after_loading(lanes, params)
    if method.state is not None:

        def method_state(params, statistics, values):
            here = lanes.at(values)
            return here.stage.method.state(here.model, params, statistics, here.shape)

        values = dict(lanes.values)
        kept = jax.vmap(method_state, axis_size=len(lanes))
        extra = jax.jit(kept)(params, state, values)
        state = {**state, METHOD_STATE: remembered(method, extra, source)}
    if method.prepare is not None:
        params, state = prepare(lanes, params, state)
    full = assemble(lanes, params, state)
    return jax.device_put(full, shard_state(full))


def after_loading(lanes: Lanes, params: Params) -> Params:
    """Parameters with those that adapters compute from others, on the host, lane after lane."""
    shared = lanes.setup
    if not shared.solvers:
        return params
    host, results = to_host(params), []
    for i, setup in enumerate(lanes.setups):
        lane = jax.tree.map(lambda leaf, i=i: leaf[i], host)
        for adapter in setup.solvers:
            lane = adapter.after_loading(lane)
        results.append(flatten(lane))
    flat = flatten(params)
    for path in shared.fresh.intersection(flat):
        if any(matches(adapter.solves, path) for adapter in shared.solvers):
            flat[path] = jnp.stack([leaves[path] for leaves in results]).astype(flat[path].dtype)
    return nest(flat)


def remembered(method: Method, new: PyTree, source: tuple[Params, State] | None) -> PyTree:
    """The method's state as the stage before left it, if both have that in common."""

    def shapes(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    before = source[1].get(METHOD_STATE) if method.remembers and source else None
    return before if before is not None and shapes(before) == shapes(new) else new


def assemble(lanes: Lanes, params: Params, state: State) -> PyTree:
    """Split the parameters and start the optimizers."""
    trainable, frozen = split(params, lambda path: path in lanes.setup.trainable)

    def one(trainable: Params, state: State, values: dict[str, jax.Array]) -> Carry:
        return begin(lanes.at(values), trainable, state)

    carry = jax.jit(jax.vmap(one, axis_size=len(lanes)))(trainable, state, dict(lanes.values))
    given = {name: carry[name] for name in ("trainable", "average", "state")}
    copied = jax.tree.map(jnp.copy, given)  # a dispatch donates them
    return {**carry, **copied, "frozen": frozen, "best": {}}


def prepare(lanes: Lanes, params: Params, state: State):
    """Run the method's pass over the data on the host, lane after lane."""
    results, shared = [], lanes.setup
    params, state = to_host((params, state))
    for i, (seed, setup) in enumerate(zip(lanes.seeds, lanes.setups, strict=True)):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], (params, state))
        stage, heads = setup.stage, setup.model.heads
        domains = [columns(domain, heads, seed) for domain in stage.domains]
        named = {name: columns(domain, heads, seed) for name, domain in stage.data.items()}
        made = stage.method.prepare(setup.model, *one, domains, **named)
        if lines := list(differing(one, made, types=False)):
            raise ValueError(
                f"stage {stage.name!r}: prepare must return (params, state) of the form that "
                f"it is given: {'; '.join(lines)}"
            )
        results.append(made)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
    before, after = flatten(params), flatten(stacked[0])
    allowed = {*shared.trainable, *shared.fresh, *shared.solved}
    for path, leaf in after.items():
        if path not in allowed and not np.array_equal(leaf, before[path]):
            name = shared.stage.name
            raise ValueError(f"stage {name!r}: {path} is frozen, but prepare changed it")
    return jax.tree.map(lambda new, old: new.astype(old.dtype), stacked, (params, state))


def abstract_state(lanes: Lanes, look: Look | None = None) -> PyTree:
    """What training starts from, without its values; for `jax.eval_shape`."""
    params, state = jax.tree.map(
        lambda leaf: jnp.zeros((len(lanes), *leaf.shape), leaf.dtype),
        (lanes.setup.params, lanes.setup.state),
    )
    return with_best(assemble(lanes, params, state), look)


def without_constants(lanes: Lanes, full: PyTree) -> PyTree:
    """What a checkpoint holds: all but the parameters that the stage loads and never changes."""
    constant = lanes.setup.constant
    return {**full, "frozen": split(full["frozen"], lambda path: path in constant)[1]}


def with_constants(lanes: Lanes, full: PyTree, source: tuple[Params, State] | None) -> PyTree:
    """The full state of a checkpoint, with the rest as the stage before or `weights` have it."""
    there, constant = loaded(lanes.setup, source, len(lanes)), lanes.setup.constant
    kept = nest({path: jnp.asarray(leaf) for path, leaf in there.items() if path in constant})
    kept = jax.device_put(kept, shard_state(kept))
    return {**full, "frozen": join(full["frozen"], kept)}


def prepare_again(lanes: Lanes, full: PyTree) -> PyTree:
    """The method's periodic pass; the optimizers keep their state."""
    params = join(full["trainable"], full["frozen"])
    params, state = prepare(lanes, params, full["state"])
    trainable, frozen = split(params, lambda path: path in lanes.setup.trainable)
    full = {**full, "trainable": trainable, "frozen": frozen, "state": state}
    return jax.device_put(full, shard_state(full))


def deployed(full: PyTree) -> tuple[Params, State]:
    """(params, state) that are evaluated and handed on: the best, else the average, else the last.

    Args:
        full: a full state, or what a checkpoint of it holds.
    """
    best = full["best"]
    state = best["state"] if best else full["state"]
    moved = best["params"] if best else full["average"] or full["trainable"]
    return join(moved, full["frozen"]), state


def with_best(full: PyTree, look: Look | None) -> PyTree:
    """The full state with its best parameters so far, none of which has been looked at."""
    if look is None or look.metric is None:
        return full
    params = jax.tree.map(jnp.copy, full["average"] or full["trainable"])
    value = jnp.full(full["failed"].shape, -look.metric.sign * jnp.inf)
    state = jax.tree.map(jnp.copy, full["state"])
    return {**full, "best": {"value": value, "params": params, "state": state}}


def looked(full: PyTree, look: Look) -> tuple[PyTree, Mapping[str, np.ndarray]]:
    """(the best parameters after a look at those of now, what was measured {metric: [lanes]})."""
    params, state = deployed({**full, "best": {}})
    values = look.measure(params, state)
    if look.metric is None:
        return full["best"], values
    moved = full["average"] or full["trainable"]
    new = {"value": values[look.metric.key], "params": moved, "state": state}
    return _better(full["best"], new, look.metric.sign), values


@jax.jit
def _better(best: PyTree, new: PyTree, sign: int) -> PyTree:
    """Lane by lane; the earlier one where they are equal, never one whose value is NaN."""
    wins = (new["value"] - best["value"]) * sign > 0

    def choose(new, old):
        return jnp.where(wins.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, new, best)
