"""What a stage starts from and ends with.

It starts from fresh and loaded parameters, the method's own state, its optimizers. It ends with the
best parameters by validation, an average, or the last. The best ones so far are part of its state,
one set for each replica: what a seed ends with does not depend on which other seeds train beside
it, and a stopped run loses none of it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxtl.paths import FROZEN, flatten, join, matches, nest, split
from jaxtl.plan import Batch, Method, Metric, Params, PyTree, State
from jaxtl.train.feed.examples import abstract_batch, columns
from jaxtl.train.mesh import current_mesh, place, to_host
from jaxtl.train.resolve.contract import check_loss, differing
from jaxtl.train.resolve.leaves import in_each_replica, initial, load, loaded
from jaxtl.train.resolve.replicas import Replicas, replica
from jaxtl.train.resolve.stage import Setup

Groups = dict[str, Params]


class Best(NamedTuple):
    """The best parameters so far, each replica's own.

    Attributes:
        value: [replicas] float, of the metric that decides.
        trainable, state: at that step; the average in place of what trains, if one is kept.
    """

    value: jax.Array
    trainable: Groups
    state: State


class TrainState(NamedTuple):
    """All that a stage holds while it trains, of one replica or with a leading axis of replicas.

    Attributes:
        trainable: {optimizer: the parameters that it trains, nested by path}.
        frozen: the other parameters, nested by path; never changed by a step. Those that all
            replicas share have a leading axis of size 1.
        average: of `trainable`; {} unless the method has an `ema` or `swa`.
        state: batch statistics and the method's own.
        opt_state: {optimizer: its state}.
        rules: {number of an update: state of what makes one gradient of several}.
        failed: [] int32, -1, or the step at which a loss or a gradient was not finite: from there
            on all but the optimizers stays as it was before.
        best: by validation; None where nothing is validated.
    """

    trainable: Groups
    frozen: Params
    average: Groups
    state: State
    opt_state: dict[str, optax.OptState]
    rules: dict[str, PyTree]
    failed: jax.Array
    best: Best | None = None

    @property
    def params(self) -> Params:
        """All parameters as they are now, nested by path."""
        return join(*self.trainable.values(), self.frozen)

    @property
    def carry(self) -> "TrainState":
        """What a step changes, whose memory a dispatch takes over."""
        return self._replace(frozen={}, best=None)


def group(setup: Setup, params: Params) -> tuple[Groups, Params]:
    """Parameters as ({optimizer: those that it trains}, the frozen ones)."""
    flat: dict[str, dict] = {name: {} for name in setup.stage.method.optimizers}
    flat[FROZEN] = {}
    for path, leaf in flatten(params).items():
        flat[setup.groups[path]][path] = leaf
    groups = {name: nest(leaves) for name, leaves in flat.items()}
    frozen = groups.pop(FROZEN)
    return groups, frozen


def keeps_average(method: Method) -> bool:
    """Whether an average of what trains is kept."""
    return method.ema is not None or method.swa is not None


def begin(setup: Setup, trainable: Groups, frozen: Params, state: State) -> TrainState:
    """One replica before its first step."""
    optimizers = setup.stage.method.optimizers
    return TrainState(
        trainable=trainable,
        frozen=frozen,
        average=trainable if keeps_average(setup.stage.method) else {},
        state=state,
        opt_state={name: optimizers[name][1].init(params) for name, params in trainable.items()},
        rules=start_rules(setup, trainable),
        failed=jnp.int32(-1),
    )


def start_rules(setup: Setup, trainable: Groups) -> dict[str, PyTree]:
    """{number of an update: the state of its rule}, of those that have one."""
    rules = {}
    for i, update in enumerate(setup.stage.method.updates):
        if update.rule is not None:
            trained = {name: trainable[name] for name in update.optimizers}
            args = (setup.params, setup.state, abstract_batch(setup))
            losses = jax.eval_shape(functools.partial(_losses, setup, i), *args)
            rules[str(i)] = update.rule.init(trained, jnp.zeros_like(losses))
    return rules


def _losses(setup: Setup, number: int, params: Params, state: State, batch: Batch) -> jax.Array:
    """The checked loss of an update."""
    method, rng = setup.stage.method, jax.random.key(0)
    returned = method.updates[number].loss(setup.model, params, state, batch, rng, jnp.int32(0))
    check_loss(method, number, state, returned)
    return returned[0]


class Validation(NamedTuple):
    """How a stage measures data that it does not train on, and keeps its best parameters.

    Attributes:
        metric: which of what is measured decides; None keeps the last parameters.
        every: steps between validations; there is one after the last step.
        measure: (params, state), leaves [replicas, ...] -> {key of a metric: [replicas]}.
    """

    metric: Metric | None
    every: int
    measure: Callable[[Params, State], Mapping[str, np.ndarray]]


def start(replicas: Replicas, source: tuple[Params, State] | None) -> TrainState:
    """A stage before its first step, leaves [replicas, ...], of `replicas.shared` [1, ...].

    What a step changes shares its memory with nothing, as dispatches take it over.

    Args:
        source: (params, state) of the stage before, leaves [replicas or 1, ...].
    """
    setup, method = replicas.setup, replicas.setup.stage.method
    mesh = current_mesh()
    leaves = initial(replicas, mesh) | loaded(replicas, load(setup, source))
    params, statistics = (
        nest({path: leaves[path] for path in flatten(tree)})
        for tree in (setup.params, setup.state.statistics)
    )
    params = after_loading(replicas, params)
    memory = None
    if method.state is not None:

        def method_state(params, statistics, values):
            setup = replicas.at(values)
            return setup.stage.method.state(setup.model, params, statistics, setup.shape)

        trees = (params, statistics, dict(replicas.values))
        new = in_each_replica(method_state, len(replicas), mesh, *trees)
        memory = recall(method, new, source)
    state = State(statistics, memory)
    if method.prepare is not None:
        params, state = prepare(replicas, params, state)
    return assemble(replicas, params, state, mesh)


def after_loading(replicas: Replicas, params: Params) -> Params:
    """Parameters with those that adapters compute from others, on the host, one by one."""
    shared = replicas.setup
    if not shared.solvers:
        return params
    flat, host, results = flatten(params), to_host(params), []
    for i, setup in enumerate(replicas.setups):
        solution = replica(host, i)
        for adapter in setup.solvers:
            solution = adapter.after_loading(solution)
        results.append(flatten(solution))
    for path in sorted(shared.fresh.intersection(flat)):
        if any(matches(adapter.solves, path) for adapter in shared.solvers):
            flat[path] = _stack([leaves[path] for leaves in results], flat[path])
    return nest(flat)


def _stack(leaves: Sequence[Any], before: jax.Array) -> jax.Array:
    """Leaves of each replica, made on the host, in place of those before."""
    return place(np.stack([*map(np.asarray, leaves)]).astype(before.dtype), donated=True)


def recall(method: Method, new: PyTree, source: tuple[Params, State] | None) -> PyTree:
    """The method's state as the stage before left it; a new one where that is of another kind."""

    def shapes(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    before = source[1].method if method.remembers and source else None
    goes_on = before is not None and shapes(before) == shapes(new)
    return place(before, donated=True) if goes_on else new


def assemble(
    replicas: Replicas, params: Params, state: State, mesh: Mesh | None = None
) -> TrainState:
    """Group the parameters and start the optimizers, on the mesh if one is given."""
    trainable, frozen = group(replicas.setup, params)

    def begin_replica(trainable: Groups, state: State, values: dict[str, jax.Array]) -> TrainState:
        return begin(replicas.at(values), trainable, {}, state)._replace(trainable={}, state=None)

    trees = (trainable, state, dict(replicas.values))
    train = in_each_replica(begin_replica, len(replicas), mesh, *trees)
    return train._replace(trainable=trainable, frozen=frozen, state=state)


def prepare(replicas: Replicas, params: Params, state: State) -> tuple[Params, State]:
    """Run the method's pass over the data on the host, replica after replica."""
    shared, flat, host = replicas.setup, flatten(params), to_host((params, state))
    allowed, givens, results = {*shared.trainable, *shared.fresh, *shared.solved}, [], []
    for i, (seed, setup) in enumerate(zip(replicas.seeds, replicas.setups, strict=True)):
        given, stage, heads = replica(host, i), setup.stage, setup.model.heads
        domains = [columns(domain, heads, seed) for domain in stage.domains]
        named = {name: columns(domain, heads, seed) for name, domain in stage.data.items()}
        made = stage.method.prepare(setup.model, *given, domains, **named)
        if lines := list(differing(given, made, types=False)):
            raise ValueError(
                f"stage {stage.name!r}: prepare must return (params, state) of the form that "
                f"it is given: {'; '.join(lines)}"
            )
        givens.append(flatten(given[0]))
        results.append((flatten(made[0]), made[1]))
    for path, before in flat.items():
        pairs = [(new[path], old[path]) for (new, _), old in zip(results, givens, strict=True)]
        if all(new is old for new, old in pairs):
            continue
        if path in allowed:
            flat[path] = _stack([new for new, _ in pairs], before)
        elif not all(np.array_equal(new, old) for new, old in pairs):
            name = shared.stage.name
            raise ValueError(f"stage {name!r}: {path} is frozen, but prepare changed it")
    states = [made for _, made in results]
    return nest(flat), jax.tree.map(lambda old, *new: _stack(new, old), state, *states)


def abstract_state(replicas: Replicas, validation: Validation | None = None) -> TrainState:
    """What training starts from, without its values; for `jax.eval_shape`."""
    setup, count = replicas.setup, len(replicas)
    sizes = {p: 1 if p in replicas.shared else count for p in flatten(setup.params)}
    params = {p: jnp.zeros((sizes[p], *x.shape), x.dtype) for p, x in flatten(setup.params).items()}
    state = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), setup.state)
    return with_best(assemble(replicas, nest(params), state), validation)


def without_constants(replicas: Replicas, train: TrainState) -> TrainState:
    """What a checkpoint holds: all but the parameters that the stage loads and never changes."""
    constant = replicas.setup.constant
    return train._replace(frozen=split(train.frozen, lambda path: path in constant)[1])


def with_constants(
    replicas: Replicas, train: TrainState, source: tuple[Params, State] | None
) -> TrainState:
    """What a checkpoint holds, with the rest as the stage before or `weights` have it."""
    leaves, constant = load(replicas.setup, source), replicas.setup.constant
    constants = loaded(replicas, {path: leaves[path] for path in constant})
    return train._replace(frozen=join(train.frozen, nest(constants)))


def prepare_again(replicas: Replicas, train: TrainState) -> TrainState:
    """The method's periodic pass; the optimizers keep their state."""
    params, state = prepare(replicas, train.params, train.state)
    trainable, frozen = group(replicas.setup, params)
    return train._replace(trainable=trainable, frozen=frozen, state=state)


def evaluated_params(train: TrainState) -> tuple[Params, State]:
    """(params, state) that are evaluated and handed on: the best, else the average, else the last.

    Args:
        train: whole, or what a checkpoint of it holds.
    """
    if train.best is not None:
        return join(*train.best.trainable.values(), train.frozen), train.best.state
    return join(*(train.average or train.trainable).values(), train.frozen), train.state


def with_best(train: TrainState, validation: Validation | None) -> TrainState:
    """The same with its best parameters so far, none of which has been measured."""
    if validation is None or validation.metric is None:
        return train
    value = jnp.full(train.failed.shape, -validation.metric.sign * jnp.inf)
    copied = jax.tree.map(jnp.copy, (train.average or train.trainable, train.state))
    return train._replace(best=Best(value, *copied))


def validate(
    train: TrainState, validation: Validation
) -> tuple[Best | None, Mapping[str, np.ndarray]]:
    """(the best parameters up to now, what was measured of these {metric: [replicas]})."""
    values = validation.measure(*evaluated_params(train._replace(best=None)))
    if validation.metric is None:
        return train.best, values
    latest = Best(values[validation.metric.key], train.average or train.trainable, train.state)
    return _better(train.best, latest, validation.metric.sign), values


@jax.jit
def _better(best: Best, new: Best, sign: int) -> Best:
    """Replica by replica; the earlier one where they are equal, never one whose value is NaN."""
    wins = (new.value - best.value) * sign > 0

    def choose(new, old):
        return jnp.where(wins.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, new, best)
