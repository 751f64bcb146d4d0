"""Further views of the targets, which pass the network in the same batch."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxtl.methods.adapt.sides import as_rows
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Model, Params, PyTree, State
from jaxtl.plan.batch import sides_of


def apply_beside(
    model: Model, params: Params, state: State, batch: Batch, views: PyTree, rng: jax.Array
) -> tuple[Mapping[str, PyTree], Mapping[str, PyTree], State]:
    """What the model in training makes of a batch and of further views, so that BatchNorm sees all.

    Args:
        batch: with its inputs [batch, domains, ...].
        views: of the targets, as `target_rows` gives them, [n, ...].

    Returns:
        (output of the batch [batch, domains, ...], output of the views [n, ...], state).
    """
    size, domains = batch.present.shape
    views = jax.tree.map(lambda leaf: leaf.reshape(size, -1, *leaf.shape[1:]), views)
    inputs = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), batch.inputs, views)
    output, state = apply_flat(model, params, state, inputs, rng=rng, train=True)
    own = jax.tree.map(lambda leaf: leaf[:, :domains], output)
    return own, as_rows(jax.tree.map(lambda leaf: leaf[:, domains:], output)), state


def with_targets(batch: Batch, rows: PyTree) -> Batch:
    """The batch with other inputs of its targets, [n, ...] as `target_rows` gives them."""
    places = jnp.array(sides_of(batch.roles)[1])

    def put(leaf: jax.Array, new: jax.Array) -> jax.Array:
        return leaf.at[:, places].set(new.reshape(len(leaf), len(places), *leaf.shape[2:]))

    return batch.replace(inputs=jax.tree.map(put, batch.inputs, rows))
