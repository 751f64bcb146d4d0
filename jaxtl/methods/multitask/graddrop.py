"""Gradient sign dropout: each number of a gradient follows the tasks of one sign."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import SHARE, checked
from jaxtl.plan import Combine, PyTree


@checked
def graddrop(leak: Annotated[float, SHARE] = 0.0) -> Combine:
    """Of each parameter, the sum of the gradients of one sign, drawn by how pure that sign is.

    The positive ones are taken with probability P = (1 + sum_i g_i / sum_i |g_i|) / 2, else the
    negative ones (Eq. 1 and Algorithm 1, with f the identity), a draw for every parameter and step.
    The paper drops gradients of activations of one layer, summed over the batch; here they are
    those of the parameters that the tasks share.

    Args:
        leak: share of each gradient that always passes, the same for all tasks; at 1 this is the
            plain sum.

    Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout",
    NeurIPS 2020. arXiv:2010.06808.
    """

    def update(jacobian: PyTree, losses: jax.Array, state: PyTree, rng: jax.Array):
        leaves, form = jax.tree.flatten(jacobian)
        keys = jax.random.split(rng, len(leaves))
        pairs = zip(leaves, keys, strict=True)
        return form.unflatten([_drop(leaf, key, leak) for leaf, key in pairs]), state, {}

    return Combine(lambda trainable, losses: (), update)


def _drop(grads: jax.Array, rng: jax.Array, leak: float) -> jax.Array:
    """[...] of gradients [tasks, ...]."""
    total, size = grads.sum(0), jnp.abs(grads).sum(0)
    purity = (1 + total / jnp.where(size > 0, size, 1)) / 2
    positive = purity > jax.random.uniform(rng, total.shape, total.dtype)
    chosen = jnp.where(positive[None], jnp.maximum(grads, 0), jnp.minimum(grads, 0)).sum(0)
    return leak * total + (1 - leak) * chosen
