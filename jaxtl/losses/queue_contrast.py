"""Contrast of examples with queues of keys, one queue for each class."""

import jax
import jax.numpy as jnp

from jaxtl.losses.magnitude import below_largest


def queue_contrast(
    to_own_key: jax.Array,
    to_queued: jax.Array,
    labels: jax.Array,
    filled: jax.Array,
    temperature: float = 0.07,
) -> jax.Array:
    """Minus the mean log-softmax of the similarities with positive keys, among all keys.

    The keys of an example are its own and all that are queued; positive are its own and those
    queued for its class.

    Args:
        to_own_key: [n] float, similarity of each example with its own key.
        to_queued: [n, classes, length] float, similarities with the queued keys.
        labels: [n] int in [0, classes).
        filled: [classes, length] bool, whether a key is there.
        temperature: > 0, divides the similarities.

    Returns:
        [n] float >= 0.

    Zhong et al., "Bi-tuning of Pre-trained Representations", 2020. arXiv:2011.06182.
    """
    n, classes, length = to_queued.shape
    same_class = jnp.repeat(jax.nn.one_hot(labels, classes, dtype=bool), length, axis=1)
    queued = jnp.broadcast_to(filled, to_queued.shape).reshape(n, -1)
    first = jnp.ones((n, 1), bool)  # the own key
    positive = jnp.concatenate([first, same_class & queued], 1)
    similarities = jnp.concatenate([to_own_key[:, None], to_queued.reshape(n, -1)], 1)
    keys = jnp.concatenate([first, queued], 1)
    similarities = below_largest(jnp.where(keys, similarities, -jnp.inf))
    log_p = jax.nn.log_softmax(similarities / temperature, axis=1)
    return -jnp.where(positive, log_p, 0).sum(1) / positive.sum(1)


def queue_places(
    labels: jax.Array, count: jax.Array, length: int
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Where the keys of a batch go in the queues of their classes, one after the other.

    Args:
        labels: [n] int; `classes` for an example that goes nowhere.
        count: [classes] int, keys that ever entered each queue; the next replaces the oldest.
        length: of a queue.

    Returns:
        ((class [n], place [n]), the new counts); the class is out of range for a key that goes
        nowhere, or that another one of the same batch would replace.
    """
    classes = len(count)
    member = jax.nn.one_hot(labels, classes, dtype=jnp.int32)
    before = jnp.cumsum(member, 0) - member
    rank = jnp.sum(before * member, 1)
    arrived = jnp.sum(member, 0)
    label = jnp.minimum(labels, classes - 1)
    stays = (labels < classes) & (rank >= arrived[label] - length)
    place = (count[label] + rank) % length
    return (jnp.where(stays, labels, classes), place), count + arrived
