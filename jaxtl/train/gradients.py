"""The gradient of an update: that of its loss, or one made of several by the update's rule.

Keys: a rule draws from the update's own key folded with a name, a loss from the key itself, so that
a rule changes no random number of the loss.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.paths import key
from jaxtl.plan import Batch, PyTree, State, Update
from jaxtl.train.resolve.contract import check_rule
from jaxtl.train.state import Groups

LossFn = Callable[[Groups, State, Batch, jax.Array], tuple[jax.Array, tuple[State, dict]]]
GRADIENT_BYTES = 2**24
"""Gradients of single examples that are held at a time."""


class Gradient(NamedTuple):
    """What one update computes.

    Attributes:
        loss: [] at the parameters as they are; the sum of several losses.
        grads: {optimizer: gradients of its parameters}.
        state: of the method, after the loss.
        rule: state of the update's rule.
        metrics: {metric: []}.
        value_of: what trains -> [], the function whose gradient `grads` is; None if it is of none.
    """

    loss: jax.Array
    grads: Groups
    state: State
    rule: PyTree
    metrics: dict[str, jax.Array]
    value_of: Callable[[Groups], jax.Array] | None


def gradient(
    update: Update,
    loss_fn: LossFn,
    trainable: Groups,
    rule: PyTree,
    state: State,
    batch: Batch,
    rng: jax.Array,
    parts: int,
) -> Gradient:
    """The gradient of an update, its losses averaged over `parts` of the batch.

    Args:
        loss_fn: (trainable, state, batch, rng) -> (loss, (state, metrics)).
        rule: state of the update's rule; None if it has none.
    """
    args = (update, loss_fn, trainable, rule, state, batch, rng, parts)
    if update.weigh is not None:
        return _weigh(*args)
    if update.combine is not None:
        return _combine(*args)
    if update.aggregate is not None:
        return _aggregate(*args)

    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def differentiate(state: State, batch: Batch, rng: jax.Array):
        (loss, (state, logged)), grads = value_and_grad(trainable, state, batch, rng)
        return state, (loss, grads, logged)

    new, (loss, grads, logged) = over_parts(differentiate, state, batch, rng, parts)

    def value_of(trainable: Groups) -> jax.Array:
        return loss_fn(trainable, state, batch, rng)[0]

    return Gradient(loss, grads, new, None, logged, value_of)


def _weigh(update, loss_fn, trainable, rule, state, batch, rng, parts) -> Gradient:
    """The losses are known first; the backward pass then goes through their weighted sum."""

    def weigh(losses: jax.Array, logged: Mapping[str, jax.Array]):
        returned = update.weigh.update(losses, rule, key(rng, "rule"))
        check_rule("weigh", returned, losses, logged)
        return returned

    if parts == 1:
        losses, pull, (new, logged) = jax.vjp(
            lambda trainable: loss_fn(trainable, state, batch, rng), trainable, has_aux=True
        )
        weights, new_rule, more = weigh(losses, logged)
        (grads,) = pull(weights.astype(losses.dtype))
    else:

        def values(state: State, batch: Batch, rng: jax.Array):
            losses, (state, logged) = loss_fn(trainable, state, batch, rng)
            return state, (losses, logged)

        weights, new_rule, more = weigh(*over_parts(values, state, batch, rng, parts)[1])

        def differentiate(state: State, batch: Batch, rng: jax.Array):
            def weighted(trainable: Groups):
                losses, (new, logged) = loss_fn(trainable, state, batch, rng)
                return jnp.sum(weights * losses), (losses, new, logged)

            grads, (losses, new, logged) = jax.grad(weighted, has_aux=True)(trainable)
            return new, (losses, grads, logged)

        new, (losses, grads, logged) = over_parts(differentiate, state, batch, rng, parts)

    def value_of(trainable: Groups) -> jax.Array:
        return jnp.sum(weights * loss_fn(trainable, state, batch, rng)[0])

    return Gradient(jnp.sum(losses), grads, new, new_rule, logged | more, value_of)


def _combine(update, loss_fn, trainable, rule, state, batch, rng, parts) -> Gradient:
    """The Jacobian of the whole batch, one backward pass a task, then the rule once."""

    def differentiate(state: State, batch: Batch, rng: jax.Array):
        losses, pull, (state, logged) = jax.vjp(
            lambda trainable: loss_fn(trainable, state, batch, rng), trainable, has_aux=True
        )
        rows = [pull(row)[0] for row in np.eye(losses.size, dtype=losses.dtype)]
        return state, (losses, jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows), logged)

    new, (losses, jacobian, logged) = over_parts(differentiate, state, batch, rng, parts)
    returned = update.combine.update(jacobian, losses, rule, key(rng, "rule"))
    check_rule("combine", returned, trainable, logged)
    grads, rule, more = returned
    return Gradient(jnp.sum(losses), grads, new, rule, logged | more, None)


def _aggregate(update, loss_fn, trainable, rule, state, batch, rng, parts) -> Gradient:
    """Gradients of single examples, as many at a time as may lie in memory."""
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
    size, domains = batch.present.shape
    parts = max(parts, _least_parts(trainable, size, domains))
    keys = jax.vmap(lambda number: jax.random.fold_in(rng, number))(jnp.arange(size * domains))
    keys = keys.reshape(size, domains)

    def example(batch: Batch, rng: jax.Array):
        (loss, (new, logged)), grads = value_and_grad(trainable, state, batch, rng)
        grads, more = update.aggregate.each(grads)
        present = batch.present[0, 0] > 0
        grads = jax.tree.map(lambda leaf: jnp.where(present, leaf, 0), grads)
        more = jax.tree.map(lambda value: jnp.where(present, value, 0), more)
        return (loss, grads, logged, more), new

    def differentiate(_, cells, rng):
        part, keys = cells
        total, new = None, state
        for d in range(domains):
            alone = jax.tree.map(lambda leaf, d=d: leaf[:, None, d : d + 1], part)
            alone = alone.replace(roles=part.roles[d : d + 1])
            try:
                each, new = jax.vmap(example, out_axes=(0, None))(alone, keys[:, d])
            except ValueError as error:
                if "out_axes" not in str(error):
                    raise
                raise ValueError(
                    "a loss whose gradients are aggregated example by example cannot change the "
                    "state by an example"
                ) from error
            summed = jax.tree.map(lambda leaf: leaf.sum(0), each)
            total = summed if total is None else jax.tree.map(jnp.add, total, summed)
        return new, total

    new, total = over_parts(differentiate, state, (batch, keys), rng, parts)
    # The mean over parts back to a sum over examples; losses are means over the batch.
    loss, grads, logged, more = jax.tree.map(lambda leaf: leaf * parts, total)
    loss, logged = jax.tree.map(lambda leaf: leaf / size, (loss, logged))
    count = jnp.maximum(jnp.sum(batch.present > 0), 1)
    logged |= jax.tree.map(lambda leaf: leaf / count, more)
    returned = update.aggregate.finish(grads, size, rule, key(rng, "rule"))
    pair = isinstance(returned, tuple) and len(returned) == 2
    check_rule("aggregate.finish", (*returned, {}) if pair else returned, trainable, logged)
    grads, rule = returned
    return Gradient(loss, grads, new, rule, logged, None)


def _least_parts(trainable: Groups, size: int, domains: int) -> int:
    """Into how many equal parts a batch is cut, so that the gradients of a part fit."""
    gradient_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trainable))
    rows = max(1, GRADIENT_BYTES // max(1, gradient_bytes * domains))
    divisors = (parts for parts in range(1, size + 1) if size % parts == 0)
    return next(parts for parts in divisors if size // parts <= rows)


def over_parts(
    function: Callable[[State, PyTree, jax.Array], tuple[State, PyTree]],
    state: State,
    batch: PyTree,
    rng: jax.Array,
    parts: int,
) -> tuple[State, PyTree]:
    """(state after the last part, mean of what is computed for each) of equal parts of a batch.

    Args:
        function: (state, part of the batch, rng) -> (state, pytree of floats).
        batch: leaves [B, ...].
    """
    if parts == 1:
        return function(state, batch, rng)

    def body(carry, xs):
        state, total = carry
        part, i = xs
        state, values = function(state, part, jax.random.fold_in(rng, i))
        return (state, jax.tree.map(jnp.add, total, values)), None

    # Every `parts`-th example, not a block of them: a part is then split like the whole batch.
    cut = jax.tree.map(
        lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )
    shapes = jax.eval_shape(function, state, jax.tree.map(lambda x: x[0], cut), rng)[1]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (state, total), _ = jax.lax.scan(body, (state, zeros), (cut, jnp.arange(parts)))
    return state, jax.tree.map(lambda x: x / parts, total)
