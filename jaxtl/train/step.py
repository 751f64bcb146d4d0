"""Training steps: the gradient of what trains, then Optax; many steps of all replicas in one call.

The gradient is taken with respect to the trainable groups alone, so what is frozen costs neither a
gradient nor optimizer state; the result has the bits of `optax.multi_transform` with
`optax.set_to_zero()` on the frozen part (`whole_transformation`, compared in the tests).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxtl.paths import FROZEN, join, key, nest
from jaxtl.plan import Batch, Method, Params, PyTree, State
from jaxtl.train.feed.examples import Feed, gather
from jaxtl.train.gradients import gradient
from jaxtl.train.mesh import current_mesh, replicated, shard_batch
from jaxtl.train.optimizers import transform
from jaxtl.train.resolve.contract import FAILED, check_loss, loss_name
from jaxtl.train.resolve.replicas import Replicas
from jaxtl.train.resolve.schedule import Schedule
from jaxtl.train.resolve.stage import Setup
from jaxtl.train.state import Groups, TrainState, averages


def whole_transformation(setup: Setup) -> optax.GradientTransformation:
    """The method's optimizers as one transformation of all parameters, for a loop of one's own.

    Gradients of frozen parameters are ignored and their updates are exact zeros.
    """
    transforms = {name: tx for name, (_, tx) in setup.stage.method.optimizers.items()}
    transforms[FROZEN] = optax.set_to_zero()
    return optax.multi_transform(transforms, nest(setup.labels))


def newest_share(method: Method, step: jax.Array) -> jax.Array | float:
    """The share of the values after a step in the average of them and of earlier ones."""
    if method.swa is None:
        return 1 - method.ema
    start, every = method.swa
    since = step + 1 - start
    due = jnp.where(since % every == 0, 1 / (since // every + 1), 0.0)
    return jnp.where(since <= 0, 1.0, due)


def make_step(setup: Setup, micro_batches: int = 1) -> Callable:
    """The step function of a stage.

    Args:
        setup: the resolved stage.
        micro_batches: number of equal parts that the batch is cut into where an update is
            `per_example`; their gradients are averaged before the optimizer sees them.

    Returns:
        (train state, batch, rng, step) -> (train state, {metric: []}); pure, for one replica.
    """
    method = setup.stage.method

    def step_fn(train: TrainState, batch: Batch, rng: jax.Array, step: jax.Array):
        trainable, state, opt_state = dict(train.trainable), train.state, dict(train.opt_state)
        metrics, sizes, rules = {}, [], dict(train.rules)
        for i, update in enumerate(method.updates):
            parts = micro_batches if update.per_example else 1
            for repeat in range(update.repeat):
                moving = {name: trainable[name] for name in update.optimizers}
                others = (params for name, params in trainable.items() if name not in moving)
                loss_fn = functools.partial(
                    loss_of, setup, i, join(train.frozen, *others), step=step
                )
                args = (state, batch, jax.random.fold_in(jax.random.fold_in(rng, i), repeat))
                loss, slopes, state, rule, logged, value_of = gradient(
                    update, loss_fn, moving, rules.get(str(i)), *args, parts
                )
                if update.rule is not None:
                    rules[str(i)] = rule
                sizes += [jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves((loss, slopes))]
                grads = clipped(method, slopes)
                for name, params in moving.items():

                    def value_fn(params, name=name, value_of=value_of, moving=moving):
                        return value_of({**moving, name: params})

                    updates, opt_state[name] = transform(
                        name,
                        method.optimizers[name][1],
                        grads[name],
                        opt_state[name],
                        params,
                        loss,
                        slopes[name],
                        value_fn if value_of else None,
                    )
                    trainable[name] = optax.apply_updates(params, updates)
            metrics |= {**logged, loss_name(method, i): loss}
        average = train.average
        if averages(method):
            average = optax.incremental_update(trainable, average, newest_share(method, step))
        new = train._replace(
            trainable=trainable, average=average, state=state, opt_state=opt_state, rules=rules
        )
        train = last_good(train, new, jnp.isfinite(sum(sizes)), step)
        return train, metrics | {FAILED: train.failed}

    return step_fn


def loss_of(
    setup: Setup,
    number: int,
    resting: Params,
    moving: Groups,
    state: State,
    batch: Batch,
    rng: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, tuple[State, dict[str, jax.Array]]]:
    """The checked loss of an update, a function of the groups that it moves."""
    method, params = setup.stage.method, join(*moving.values(), resting)
    returned = method.updates[number].loss(setup.model, params, state, batch, rng, step)
    check_loss(method, number, state, returned)
    return returned


def clipped(method: Method, grads: Groups) -> Groups:
    """Gradients scaled to the method's largest norm of all of them together."""
    if method.clip_norm is None:
        return grads
    clip = optax.clip_by_global_norm(method.clip_norm)
    return clip.update(grads, clip.init(grads))[0]


def last_good(old: TrainState, new: TrainState, finite: jax.Array, step: jax.Array) -> TrainState:
    """The new state, or the old one from the first step on that is not finite.

    The optimizers go on, to no effect: keeping them too would double what a small step moves in
    memory. Nor are the new parameters looked at, but what they are made of, so that XLA computes
    them in one pass with the choice.
    """
    failed = jnp.where((old.failed < 0) & ~finite, step, old.failed).astype(jnp.int32)

    def choose(new: PyTree, old: PyTree) -> PyTree:
        return jax.tree.map(lambda n, o: jnp.where(failed < 0, n, o), new, old)

    return new._replace(
        trainable=choose(new.trainable, old.trainable),
        average=choose(new.average, old.average),
        state=choose(new.state, old.state),
        rules=choose(new.rules, old.rules),
        failed=failed,
    )


def make_dispatch(replicas: Replicas, schedule: Schedule, carried: PyTree, feed: Feed) -> Callable:
    """The compiled call that advances all replicas by up to `schedule.steps` steps.

    Args:
        replicas, schedule: what to compile.
        carried: shardings of the carry.
        feed: what will be gathered from, or its shapes.

    Returns:
        (carry, frozen, feed, seeds [L], values {field: [L]}, block [L, steps, batch, domains],
        first step, count) -> (carry, {metric: [L, steps]}); the leaves of carry and frozen lead
        with the axis of replicas, carry is donated, metrics beyond `count` are 0.
    """
    mesh, axes = current_mesh(), (0, 0, Feed(None, 0), 0, 0, 0, None, None)

    def one_replica(carry, frozen, feed, seed, values, block, first, count):
        setup = replicas.at(values)
        step_fn = make_step(setup, schedule.micro_batches)

        def drawn(i):
            step = first + i
            rng = jax.random.fold_in(key(jax.random.key(seed), "train"), step)
            data_rng, rng = jax.random.split(rng)
            return shard_batch(mesh, gather(setup.stage, *feed, block[i], data_rng)), rng, step

        def body(i, loop):
            carry, metrics = loop
            train, logged = step_fn(carry._replace(frozen=frozen), *drawn(i))
            return train.carry, jax.tree.map(lambda all_, x: all_.at[i].set(x), metrics, logged)

        shapes = jax.eval_shape(lambda: step_fn(carry._replace(frozen=frozen), *drawn(0))[1])
        empty = jax.tree.map(lambda s: jnp.zeros((schedule.steps, *s.shape), s.dtype), shapes)
        if schedule.steps == 1:
            return body(0, (carry, empty))
        return jax.lax.fori_loop(0, count, body, (carry, empty))

    def one_after_the_other(carry, frozen, feed, seeds, values, block, *numbers):
        def run(replica):
            carry, frozen, own, *rest = replica
            return one_replica(carry, frozen, Feed(feed.shared, own), *rest, *numbers)

        every = (carry, frozen, feed.own, seeds, values, block)
        if schedule.seeds == "map":
            return jax.lax.map(run, every)
        results = [run(jax.tree.map(lambda x, i=i: x[i], every)) for i in range(len(replicas))]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    def by_seeds_and_points(carry, frozen, feed, seeds, values, block, *numbers):
        """The points of a seed share its batch: a layer that reads it is one product for all."""
        points, count = replicas.points, len(replicas) // replicas.points
        carry, frozen, values = jax.tree.map(
            lambda leaf: leaf.reshape(points, count, *leaf.shape[1:]), (carry, frozen, values)
        )
        one_seed = jax.vmap(one_replica, (0, 0, None, None, 0, None, None, None))
        all_seeds = jax.vmap(one_seed, (1, 1, Feed(None, 0), 0, 1, 0, None, None), out_axes=1)
        results = all_seeds(carry, frozen, feed, seeds[:count], values, block[:count], *numbers)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), results)

    own = jax.tree.leaves(feed.own)
    if schedule.seeds != "vmap":
        all_replicas = one_after_the_other
    elif own and len(own[0]) < len(replicas):
        all_replicas = by_seeds_and_points
    else:
        all_replicas = jax.vmap(one_replica, axes)
    return jax.jit(all_replicas, donate_argnums=0, out_shardings=(carried, replicated()))
