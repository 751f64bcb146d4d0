"""Conflict-averse gradient descent: near the mean gradient, the best for the worst task."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import NOT_NEGATIVE, checked
from jaxtl.methods.multitask.gram import gram_rule
from jaxtl.methods.multitask.solvers import bisect, min_norm_weights, shifted
from jaxtl.plan import Combine, PyTree

HALVINGS = 24


@checked
def cagrad(c: Annotated[float, NOT_NEGATIVE] = 0.5) -> Combine:
    """argmax of min_i g_i . d over |d - g_0| <= c |g_0|; g_0 is the mean of the tasks' gradients.

    d = g_0 + c |g_0| g_w / |g_w|, where the weights w on the simplex minimise
    g_w . g_0 + c |g_0| |g_w| (Eq. 4). With c = 0 it is the mean gradient; with c >= 1 no task's
    loss rises to first order, with less that of the worst one rises least. The scale is the
    paper's; public code divides by 1 + c^2 besides.

    Args:
        c: how far d may be from the mean, in lengths of the mean.

    Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021.
    arXiv:2110.14048.
    """

    def coefficients(products: jax.Array, losses: jax.Array, state: PyTree, rng: jax.Array):
        return conflict_averse(products, c), state, {}

    return gram_rule(coefficients)


def conflict_averse(products: jax.Array, c: float) -> jax.Array:
    """[tasks], the coefficients of the gradients in d.

    |g_w| is the least over s of |g_w|^2 / 2s + s / 2. For a given s the best w makes the gradients,
    shifted by s / (c |g_0|) times g_0, as short as can be; the best s is that with |g_w| = s, and
    what remains is convex in s.
    """
    radius = c * jnp.sqrt(jnp.maximum(products.mean(), 0))
    divisor = jnp.where(radius > 0, radius, 1)
    longest = jnp.sqrt(jnp.max(jnp.diagonal(products)))

    def weights(s: jax.Array) -> jax.Array:
        return min_norm_weights(shifted(products, s / divisor))

    def length(w: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.maximum(w @ products @ w, 0))

    w = weights(bisect(lambda s: s > length(weights(s)), longest, HALVINGS))
    # Where 0 is in the hull, the direction of g_w is noise; it fades out below what rounding gives.
    noise = longest * jnp.sqrt(len(w) * jnp.finfo(w.dtype).eps)
    return 1 / len(w) + radius * w / jnp.maximum(length(w), jnp.where(noise > 0, noise, 1))
