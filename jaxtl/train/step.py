"""One training step of one seed: gradients of what trains, then Optax.

The gradient is taken with respect to the trainable tree alone, so what is frozen costs neither a
gradient nor optimizer state; the result has the bits of `optax.multi_transform` with
`optax.set_to_zero()` on the frozen part (`whole_transformation`, compared in the tests).
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxtl.blame import place_of
from jaxtl.form import describe, is_array
from jaxtl.paths import FROZEN, flatten, join, nest, split
from jaxtl.plan import Batch, Method, Params, PyTree, State, Update
from jaxtl.train.optimizers import transform
from jaxtl.train.resolve.stage import Setup

Carry = dict[str, PyTree]
CARRIED = ("trainable", "average", "state", "opt_state", "failed")
FAILED = "failed_at"


def whole_transformation(setup: Setup) -> optax.GradientTransformation:
    """The method's optimizers as one transformation of all parameters, for a loop of one's own.

    Gradients of frozen parameters are ignored and their updates are exact zeros.
    """
    transforms = {name: tx for name, (_, tx) in setup.stage.method.optimizers.items()}
    transforms[FROZEN] = optax.set_to_zero()
    return optax.multi_transform(transforms, nest(setup.labels))


def group(setup: Setup, tree: Params, name: str) -> Params:
    """The part of a tree of parameters that one optimizer trains."""
    return split(tree, lambda path: setup.labels[path] == name)[0]


def init_optimizers(setup: Setup, trainable: Params) -> dict[str, optax.OptState]:
    """{optimizer: its state for the parameters it trains}."""
    return {
        name: tx.init(group(setup, trainable, name))
        for name, (_, tx) in setup.stage.method.optimizers.items()
        if name != FROZEN
    }


def averages(method: Method) -> bool:
    """Whether an average of what trains is kept."""
    return method.ema is not None or method.swa is not None


def newest_share(method: Method, step: jax.Array) -> jax.Array | float:
    """The share of the values after a step in the average of them and of earlier ones."""
    if method.swa is None:
        return 1 - method.ema
    start, every = method.swa
    since = step + 1 - start
    due = jnp.where(since % every == 0, 1 / (since // every + 1), 0.0)
    return jnp.where(since <= 0, 1.0, due)


def begin(setup: Setup, trainable: Params, state: State) -> Carry:
    """The carry of one lane before its first step."""
    return {
        "trainable": trainable,
        "average": trainable if averages(setup.stage.method) else {},
        "state": state,
        "opt_state": init_optimizers(setup, trainable),
        "failed": jnp.int32(-1),
    }


def make_step(setup: Setup, micro_batches: int = 1) -> Callable:
    """The step function of a stage.

    Args:
        setup: the resolved stage.
        micro_batches: number of equal parts that the batch is cut into where an update is
            `per_example`; their gradients are averaged before the optimizer sees them.

    Returns:
        (carry, frozen, batch, rng, step) -> (carry, {metric: []}) with carry = {"trainable",
        "average", "state", "opt_state", "failed"}; pure, for one seed. `average` is empty unless
        the method has an `ema` or `swa`. `failed` [] int32 is -1, or the step at which a loss or a
        gradient was not finite: from there on all but the optimizers stays as it was before.
    """
    method = setup.stage.method

    def step_fn(carry: Carry, frozen: Params, batch: Batch, rng: jax.Array, step: jax.Array):
        trainable, state = carry["trainable"], carry["state"]
        opt_state, metrics, sizes = dict(carry["opt_state"]), {}, []
        for i, update in enumerate(method.updates):
            parts = micro_batches if update.per_example else 1
            for repeat in range(update.repeat):
                moving, resting = split(
                    trainable, lambda path, u=update: setup.labels[path] in u.optimizers
                )
                key = jax.random.fold_in(jax.random.fold_in(rng, i), repeat)
                constant, before = join(frozen, resting), state
                loss, grads, state, logged = gradient(
                    i, setup, moving, constant, before, batch, key, step, parts
                )
                slopes = grads
                sizes += [jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves((loss, grads))]
                if method.clip_norm is not None:
                    clip = optax.clip_by_global_norm(method.clip_norm)
                    grads, _ = clip.update(grads, clip.init(moving))
                stepped = {}
                for name in update.optimizers:
                    tx = method.optimizers[name][1]
                    params, others = split(moving, lambda path, n=name: setup.labels[path] == n)
                    rest = join(constant, others)
                    loss_fn = functools.partial(
                        _loss, update, setup, rest, before, batch, key, step
                    )
                    updates, opt_state[name] = transform(
                        name,
                        tx,
                        group(setup, grads, name),
                        opt_state[name],
                        params,
                        jnp.sum(loss),
                        group(setup, slopes, name),
                        loss_fn,
                    )
                    stepped |= flatten(optax.apply_updates(params, updates))
                trainable = join(nest(stepped), resting)
            metrics |= {**logged, loss_name(method, i): jnp.sum(loss)}
        average = carry["average"]
        if averages(method):
            average = optax.incremental_update(trainable, average, newest_share(method, step))
        new = {"trainable": trainable, "average": average, "state": state, "opt_state": opt_state}
        carry = last_good(carry, new, jnp.isfinite(sum(sizes)), step)
        return carry, metrics | {FAILED: carry["failed"]}

    return step_fn


def _loss(
    update: Update,
    setup: Setup,
    rest: Params,
    state: State,
    batch: Batch,
    rng: jax.Array,
    step: jax.Array,
    params: Params,
) -> jax.Array:
    """The loss [] of an update at other values of some parameters, on the whole batch."""
    return jnp.sum(update.loss(setup.model, join(params, rest), state, batch, rng, step)[0])


def last_good(old: Carry, new: Carry, finite: jax.Array, step: jax.Array) -> Carry:
    """The new carry, or the old one from the first step on that is not finite.

    The optimizers go on, to no effect: keeping them too would double what a small step moves in
    memory. Nor are the new parameters looked at, but what they are made of, so that XLA computes
    them in one pass with the choice.
    """
    failed = jnp.where((old["failed"] < 0) & ~finite, step, old["failed"]).astype(jnp.int32)
    seen = {name: tree for name, tree in new.items() if name != "opt_state"}
    kept = {name: old[name] for name in seen}
    chosen = jax.tree.map(lambda n, o: jnp.where(failed < 0, n, o), seen, kept)
    return {**new, **chosen, "failed": failed}


def loss_name(method: Method, number: int) -> str:
    """What the loss of an update is logged as."""
    return "loss" if len(method.updates) == 1 else f"loss_{number}"


def check_loss(method: Method, number: int, given: State, returned: Any) -> None:
    """Check what the loss of an update returned while it was traced.

    Args:
        given: the state that it was called with.

    Raises:
        ValueError: it is not (loss, (state, {metric: value})) with a float loss, a scalar or, for
            an update that combines gradients, a vector; the state has another form than before; or
            a metric has a name of ours.
    """
    update = method.updates[number]
    place = f"update {number}: its loss"
    place += f" ({written})" if (written := place_of(update.loss)) else ""
    expected = f"{place} must return (loss, (state, {{metric: value}})), it returned"
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise ValueError(f"{expected} {describe(returned)}")
    loss, rest = returned
    if not isinstance(rest, tuple | list) or len(rest) != 2 or not isinstance(rest[1], Mapping):
        inner = ", ".join(map(describe, rest)) if isinstance(rest, tuple | list) else ""
        raise ValueError(f"{expected} (loss, {f'({inner})' if inner else describe(rest)})")
    shape, dtype = jnp.shape(loss), jnp.result_type(loss)
    wanted = "a scalar" if update.combine is None else "a vector [tasks]"
    if len(shape) != (update.combine is not None) or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{place} must be {wanted} of floats, got {dtype}{list(shape)}")
    if lines := list(differing(given, rest[0])):
        raise ValueError(f"{place} must leave the form of the state as it is: {'; '.join(lines)}")
    for name, value in rest[1].items():
        if not isinstance(name, str) or name in ("step", FAILED, loss_name(method, number)):
            raise ValueError(f"{place} logs a metric called {name!r}; that name is taken")
        if not is_array(value) or jnp.shape(value) != ():
            raise ValueError(
                f"{place} logs {name!r}, which must be a scalar, got {describe(value)}"
            )


def differing(before: PyTree, after: PyTree, *, types: bool = True) -> Iterator[str]:
    """How two trees differ in their leaves' paths, shapes and `types`; at most five of them."""
    old, new = (
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(t)}
        for t in (before, after)
    )
    lines = [f"{path} is gone" for path in old if path not in new]
    lines += [f"{path or 'the whole'} is new" for path in new if path not in old]
    for path in (path for path in old if path in new):
        was, now = (_form(tree[path], types) for tree in (old, new))
        if was != now:
            lines.append(f"{path} was {was} and is {now}")
    if not lines and jax.tree.structure(before) != jax.tree.structure(after):
        lines = [f"it was {describe(before)} and is {describe(after)}"]
    yield from lines[:5]


def _form(leaf: Any, types: bool) -> str:
    return f"{leaf.dtype if types else ''}{list(leaf.shape)}" if hasattr(leaf, "dtype") else "none"


def gradient(
    number: int,
    setup: Setup,
    moving: Params,
    resting: Params,
    state: State,
    batch: Batch,
    rng: jax.Array,
    step: jax.Array,
    parts: int,
):
    """(loss, gradient with respect to `moving`, state, metrics), averaged over `parts`."""

    update = setup.stage.method.updates[number]

    def loss_fn(moving, state, batch, rng):
        returned = update.loss(setup.model, join(moving, resting), state, batch, rng, step)
        check_loss(setup.stage.method, number, state, returned)
        return returned

    def one(state, batch, rng):
        if update.combine is None:
            (loss, (state, logged)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
                moving, state, batch, rng
            )
            return loss, grads, state, logged

        def losses(moving):
            loss, aux = loss_fn(moving, state, batch, rng)
            return loss, (loss, aux)

        jacobian, (loss, (new, logged)) = jax.jacrev(losses, has_aux=True)(moving)
        return loss, update.combine(jacobian, loss), new, logged

    if parts == 1:
        return one(state, batch, rng)

    def body(carry, xs):
        state, total = carry
        part, i = xs
        loss, grads, state, logged = one(state, part, jax.random.fold_in(rng, i))
        return (state, jax.tree.map(jnp.add, total, (loss, grads, logged))), None

    # Every `parts`-th example, not a block of them: a part is then split like the whole batch.
    cut = jax.tree.map(
        lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )
    first = jax.tree.map(lambda x: x[0], cut)
    shapes = jax.eval_shape(one, state, first, rng)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[0], shapes[1], shapes[3]))
    (state, total), _ = jax.lax.scan(body, (state, zeros), (cut, jnp.arange(parts)))
    loss, grads, logged = jax.tree.map(lambda x: x / parts, total)
    return loss, grads, state, logged
