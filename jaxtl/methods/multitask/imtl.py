"""Impartial learning: no task's gradient has a larger projection, no task's loss another scale."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import checked
from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.weights import bounded, logged_weights
from jaxtl.plan import Combine, PyTree, Weigh

CUTOFF = 1e-5
"""Eigenvalues of the gradients' cosines below this part of the largest count as 0."""


def imtl_g() -> Combine:
    """Gradients of what is shared, so that their sum projects alike on each of them.

    Eq. 6 of the paper, solved for inner products: g = sum_i alpha_i g_i with g . g_i / ||g_i||
    the same for all and sum_i alpha_i = 1. Where that g would raise every loss, as weights that sum
    to 1 may, it is turned round.

    Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, openreview IMPnRXEWpvr, Eq. 6.
    """

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        weights = impartial(products)
        return weights, state, logged_weights(weights)

    return gram_rule(coefficients)


@checked
def imtl_l(tx: optax.GradientTransformation) -> Weigh:
    """sum_i exp(s_i) L_i - s_i; the s_i are learned, so that all losses come near 1.

    The s_i start at 0 and stay within +-40. Logged are the weights exp(s_i).

    Args:
        tx: optax transformation of the s_i; the paper's is that of the model.

    Liu et al., ICLR 2021, openreview IMPnRXEWpvr, Eq. 8 with a = e, b = 1.
    """

    def init(trainable: PyTree, losses: jax.Array) -> PyTree:
        return _begin(tx, losses)

    def weigh(losses: jax.Array, state: PyTree, rng: jax.Array):
        weights, after = _scales(tx, losses, state)
        return weights, after, logged_weights(weights)

    return Weigh(init, weigh)


@checked
def imtl(tx: optax.GradientTransformation) -> Combine:
    """`imtl_l` for the losses, `imtl_g` for the gradients of what is shared.

    Args:
        tx: as of `imtl_l`.

    Liu et al., ICLR 2021, openreview IMPnRXEWpvr, Algorithm 1.
    """

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        scales, after = _scales(tx, losses, state)
        weights = scales * impartial(scales[:, None] * products * scales[None])
        return weights, after, logged_weights(weights)

    def others(losses: jax.Array, before: PyTree, after: PyTree) -> jax.Array:
        return jnp.exp(before["scales"])

    return gram_rule(coefficients, lambda losses: _begin(tx, losses), others)


def impartial(products: jax.Array) -> jax.Array:
    """The weights of gradients whose sum projects alike on each of them.

    Args:
        products: [tasks, tasks], g_i . g_j.

    Returns:
        [tasks], sum 1, or -1 where a sum of 1 would raise every loss; 0 for gradients of length 0,
        and equal if all are.
    """
    lengths = jnp.sqrt(jnp.maximum(jnp.diagonal(products), 0))
    there = lengths > 0
    inverse = jnp.where(there, 1 / jnp.where(there, lengths, 1), 0)
    # Cosines in place of products: tasks whose gradients differ by orders of magnitude are the
    # rule, and a solver in float32 would lose the small ones.
    cosines = inverse[:, None] * products * inverse[None]
    each = jnp.linalg.pinv(cosines, rtol=CUTOFF, hermitian=True) @ there.astype(products.dtype)
    weights = each * inverse
    total, size = jnp.abs(weights.sum()), jnp.abs(weights).sum()
    # Opposite gradients cancel, and what projects alike on them is 0: any that cancel will do.
    usable = total > CUTOFF * size
    return jnp.where(usable, weights / jnp.where(usable, total, 1), _normalized(inverse))


def _normalized(values: jax.Array) -> jax.Array:
    total = values.sum()
    return jnp.where(total > 0, values / jnp.where(total > 0, total, 1), 1 / len(values))


def _begin(tx: optax.GradientTransformation, losses: jax.Array) -> PyTree:
    start = jnp.zeros_like(losses)
    return {"scales": start, "tx": tx.init(start)}


def _scales(
    tx: optax.GradientTransformation, losses: jax.Array, state: PyTree
) -> tuple[jax.Array, PyTree]:
    """(exp(s) of now [tasks], the state after a step of s)."""
    scales = jnp.exp(state["scales"])
    updates, tx_state = tx.update(scales * losses - 1, state["tx"], state["scales"])
    moved = bounded(optax.apply_updates(state["scales"], updates))
    return scales, {"scales": moved, "tx": tx_state}
