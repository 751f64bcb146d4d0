"""A training step: the gradient of what trains, then Optax; traced once for a stage.

The gradient is taken with respect to the trainable groups alone, so what is frozen costs neither a
gradient nor optimizer state; the result has the bits of `optax.multi_transform` with
`optax.set_to_zero()` on the frozen part.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtl.paths import join, key
from jaxtl.plan import Batch, Method, Params, PyTree, Stage, State
from jaxtl.train.feed.examples import Feed, gather
from jaxtl.train.gradients import Gradient, gradient
from jaxtl.train.resolve.contract import FAILED, check_loss, loss_name
from jaxtl.train.resolve.replicas import Replicas
from jaxtl.train.resolve.stage import Setup
from jaxtl.train.resolve.traced import Traced, trace
from jaxtl.train.state import Groups, TrainState, keeps_average


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
        new, metrics, norms = train, {}, []
        for number, update in enumerate(method.updates):
            for repeat in range(update.repeat):
                update_rng = jax.random.fold_in(jax.random.fold_in(rng, number), repeat)
                new, logged, more = apply_update(
                    setup, number, micro_batches, new, batch, update_rng, step
                )
                norms += more
            metrics |= logged
        if keeps_average(method):
            share = newest_share(method, step)
            average = optax.incremental_update(new.trainable, train.average, share)
            new = new._replace(average=average)
        train = last_good(train, new, jnp.isfinite(sum(norms)), step)
        return train, metrics | {FAILED: train.failed}

    return step_fn


def apply_update(
    setup: Setup,
    number: int,
    micro_batches: int,
    train: TrainState,
    batch: Batch,
    rng: jax.Array,
    step: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array], list[jax.Array]]:
    """One gradient step.

    Returns:
        (train state, {metric: []}, norms of the loss and of each gradient, which must be finite).
    """
    method = setup.stage.method
    update = method.updates[number]
    trained = {name: train.trainable[name] for name in update.optimizers}
    others = [params for name, params in train.trainable.items() if name not in trained]

    def loss_fn(trained: Groups, state: State, batch: Batch, rng: jax.Array):
        params = join(*trained.values(), train.frozen, *others)
        returned = update.loss(setup.model, params, state, batch, rng, step)
        check_loss(method, number, state, returned)
        return returned

    parts = micro_batches if update.per_example else 1
    result = gradient(
        update, loss_fn, trained, train.rules.get(str(number)), train.state, batch, rng, parts
    )
    norms = [jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves((result.loss, result.grads))]
    grads = clip(method, result.grads)
    trainable, opt_state = dict(train.trainable), dict(train.opt_state)
    for name, params in trained.items():
        updates, opt_state[name] = transform(
            name, method.optimizers[name][1], grads[name], opt_state[name], trained, result
        )
        trainable[name] = optax.apply_updates(params, updates)
    rules = train.rules if update.rule is None else {**train.rules, str(number): result.rule}
    train = train._replace(
        trainable=trainable, state=result.state, opt_state=opt_state, rules=rules
    )
    return train, {**result.metrics, loss_name(method, number): result.loss}, norms


def transform(
    name: str,
    tx: optax.GradientTransformation,
    grads: Params,
    opt_state: optax.OptState,
    trained: Groups,
    gradient: Gradient,
) -> tuple[Params, optax.OptState]:
    """(updates, optimizer state) of one group of parameters.

    Args:
        name: of the optimizer and its group.
        tx: gets `value`, `grad` and `value_fn` of the unclipped gradient if it takes extra
            arguments; no `value_fn` where the gradient is that of no function.
        grads: of its group, clipped.
        trained: all groups that the update trains, this one among them.

    Raises:
        ValueError: it needs yet other arguments, or a line search is given a part of its
            parameters only.
    """
    accumulates = isinstance(tx, optax.MultiSteps)  # which is of no type of transformation
    update = (tx if accumulates else optax.with_extra_args_support(tx)).update
    extra: dict[str, Any] = {"value": gradient.loss, "grad": gradient.grads[name]}
    if gradient.value_of is not None:
        extra["value_fn"] = lambda params: gradient.value_of({**trained, name: params})
    try:
        return update(grads, opt_state, trained[name], **extra)
    except ValueError as error:
        if "MaskedNode" not in str(error):
            raise
        raise ValueError(
            f"optimizer {name!r} searches along a line inside optax.masked or a partition, which "
            "show it a part of the parameters; give it a group of its own in the method's "
            "`optimizers`."
        ) from error
    except TypeError as error:
        if "required keyword-only argument" not in str(error):
            raise
        raise ValueError(
            f"optimizer {name!r} needs arguments that a training step has not: {error}; it passes "
            f"{', '.join(extra)}."
        ) from error


def clip(method: Method, grads: Groups) -> Groups:
    """Gradients scaled to the method's largest norm of all of them together."""
    if method.clip_norm is None:
        return grads
    tx = optax.clip_by_global_norm(method.clip_norm)
    return tx.update(grads, tx.init(grads))[0]


def last_good(old: TrainState, new: TrainState, finite: jax.Array, step: jax.Array) -> TrainState:
    """The new state, or the old one from the first step on that is not finite.

    The optimizers go on, to no effect: keeping them too would double what a small step moves in
    memory. Not the new parameters are tested, but what they are made of, so that XLA computes
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


def draw(
    stage: Stage, feed: Feed, index: jax.Array, seed: jax.Array, step: jax.Array
) -> tuple[Batch, jax.Array]:
    """(the batch, the key) of one step and replica.

    Args:
        feed: as in `gather`.
        index: [batch, domains] int32, rows of the feed.
    """
    rng = jax.random.fold_in(key(jax.random.key(seed), "train"), step)
    data_rng, rng = jax.random.split(rng)
    return gather(stage, *feed, index, data_rng), rng


def traced_draw(replicas: Replicas, *args: PyTree) -> Traced:
    """(values, feed, index, seed, step) -> (batch, rng) of one replica, as in `draw`.

    Args:
        args: those of the program, whose shapes count; abstract or not.
    """

    def run(values, feed, index, seed, step):
        return draw(replicas.at(values).stage, feed, index, seed, step)

    return trace(replicas.setup, ("draw", replicas.rebuild), run, *args)


def traced_step(replicas: Replicas, micro_batches: int, *args: PyTree) -> Traced:
    """(values, train state, batch, rng, step) -> (train state, metrics) of one replica.

    A stage's step is traced once for all that asks for it: the rehearsal, the identity, the
    dispatch. Another number of micro-batches, or the rest of a model after its features, is another
    program.

    Args:
        micro_batches: as in `make_step`.
        args: those of the program, whose shapes count; abstract or not.
    """

    def run(values, *args):
        return make_step(replicas.at(values), micro_batches)(*args)

    return trace(replicas.setup, ("step", micro_batches, replicas.rebuild), run, *args)
