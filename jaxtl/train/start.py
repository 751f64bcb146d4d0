"""What a stage starts from: fresh and loaded parameters, the method's own state, its optimizers."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.paths import flatten, join, split
from jaxtl.plan import Params, PyTree, State
from jaxtl.train.feed import columns
from jaxtl.train.lanes import Lanes
from jaxtl.train.selection import Look, with_best
from jaxtl.train.setup import METHOD_STATE, initialise, load
from jaxtl.train.sharding import shard_state, to_host
from jaxtl.train.step import Carry, begin


def start(lanes: Lanes, source: tuple[Params, State] | None) -> PyTree:
    """The full state of a stage before its first step, leaves with the leading axis of lanes."""
    setup, method = lanes.setup, lanes.setup.stage.method
    init = jax.jit(jax.vmap(lambda seed: initialise(setup.stage, setup.inputs, seed)))
    params, state = load(setup, *init(jnp.asarray(lanes.seeds)), source)
    if method.state is not None:

        def method_state(params, values):
            here = lanes.at(values)
            return here.stage.method.state(here.model, params)

        extra = jax.jit(jax.vmap(method_state))(params, dict(lanes.values))
        state = {**state, METHOD_STATE: extra}
    if method.prepare is not None:
        params, state = prepare(lanes, params, state)
    full = assemble(lanes, params, state)
    return jax.device_put(full, shard_state(full))


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
        domains = [columns(domain, setup.model.heads, seed) for domain in setup.stage.domains]
        results.append(setup.stage.method.prepare(setup.model, *one, domains))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
    before, after = flatten(params), flatten(stacked[0])
    allowed = {*shared.trainable, *shared.fresh, *shared.solved}
    for path, leaf in after.items():
        if path not in allowed and not np.array_equal(leaf, before[path]):
            raise AssertionError(f"{path} is frozen, but the method's prepare changed it")
    return jax.tree.map(lambda new, old: new.astype(old.dtype), stacked, (params, state))


def abstract_state(lanes: Lanes, look: Look | None = None) -> PyTree:
    """What training starts from, without its values; for `jax.eval_shape`."""
    params, state = jax.tree.map(
        lambda leaf: jnp.zeros((len(lanes), *leaf.shape), leaf.dtype),
        (lanes.setup.params, lanes.setup.state),
    )
    return with_best(assemble(lanes, params, state), look)


def prepare_again(lanes: Lanes, full: PyTree) -> PyTree:
    """The method's periodic pass; the optimizers keep their state."""
    params = join(full["trainable"], full["frozen"])
    params, state = prepare(lanes, params, full["state"])
    trainable, frozen = split(params, lambda path: path in lanes.setup.trainable)
    full = {**full, "trainable": trainable, "frozen": frozen, "state": state}
    return jax.device_put(full, shard_state(full))
