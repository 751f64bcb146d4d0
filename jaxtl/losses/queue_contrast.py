"""Contrast of examples with queues of keys, one queue for each class."""

import jax
import jax.numpy as jnp

from jaxtl.losses.magnitude import below_largest


def queue_contrast(
    own: jax.Array,
    queued: jax.Array,
    labels: jax.Array,
    filled: jax.Array,
    temperature: float = 0.07,
) -> jax.Array:
    """Minus the mean log-softmax of the similarities with positive keys, among all keys.

    The keys of an example are its own and all that are queued; positive are its own and those
    queued for its class.

    Args:
        own: [n] float, similarity of each example with its own key.
        queued: [n, classes, length] float, similarities with the queued keys.
        labels: [n] int in [0, classes).
        filled: [classes, length] bool, whether a key is there.
        temperature: > 0, divides the similarities.

    Returns:
        [n] float >= 0.

    Zhong et al., "Bi-tuning of Pre-trained Representations", 2020. arXiv:2011.06182.
    """
    n, classes, length = queued.shape
    same = jax.nn.one_hot(labels, classes, dtype=bool)
    there = jnp.broadcast_to(filled, queued.shape).reshape(n, -1)
    positive = jnp.repeat(same, length, axis=1) & there
    known = jnp.concatenate([jnp.ones((n, 1), bool), there], 1)
    positive = jnp.concatenate([jnp.ones((n, 1), bool), positive], 1)
    similarities = jnp.concatenate([own[:, None], queued.reshape(n, -1)], 1)
    similarities = below_largest(jnp.where(known, similarities, -jnp.inf))
    log_p = jax.nn.log_softmax(similarities / temperature, axis=1)
    return -jnp.where(positive, log_p, 0).sum(1) / positive.sum(1)
