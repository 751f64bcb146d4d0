"""Gradients of single examples, clipped before they are averaged."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update, supervised_update
from jaxtl.plan import Aggregate, Method, PyTree


def clipped(tx: optax.GradientTransformation | Groups, *, norm: float) -> Method:
    """(1 / B) sum_i g_i / max(1, |g_i| / C), with g_i the gradient of one example's objective.

    The clipping of DP-SGD without its noise: it bounds what an example can do to a step, and is no
    privacy by itself. The norm is that over all groups together. An example is one row of one
    domain; one that is absent adds nothing, and the batch size stays the divisor. Refused where
    batch statistics follow the data.

    Args:
        norm: the bound C > 0.

    Abadi et al., "Deep Learning with Differential Privacy", CCS 2016. arXiv:1607.00133, Alg. 1.
    """
    loss_fn = supervised_update().loss
    return one_update(as_groups(tx), loss_fn, per_example=True, aggregate=clipping(norm))


def clipping(norm: float) -> Aggregate:
    """Each example's gradient scaled to at most a norm, then the mean; logs the share `clipped`.

    Raises:
        ValueError: the norm is not positive.
    """
    if not norm > 0:
        raise ValueError(f"gradients are clipped to a norm above 0, got {norm}")

    def each(grads: PyTree):
        length = optax.tree.norm(grads)
        scale = 1 / jnp.maximum(1, length / norm)
        return optax.tree.scale(scale, grads), {"clipped": jnp.float32(length > norm)}

    def finish(total: PyTree, size: int, state: PyTree, rng: jax.Array):
        return jax.tree.map(lambda leaf: leaf / size, total), state

    return Aggregate(lambda trainable, loss: (), each, finish)
