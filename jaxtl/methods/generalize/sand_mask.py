"""SAND-mask: AND-mask without its edge, and with doubts where gradients differ in size."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import BELOW_1, POSITIVE, checked
from jaxtl.methods.generalize.and_mask import (
    has_gradient,
    masked_sum,
    mean_of_all,
    sign_agreement,
)
from jaxtl.plan import Combine, PyTree


@checked
def sand_mask(
    threshold: Annotated[float, BELOW_1] = 0.5, *, steepness: Annotated[float, POSITIVE] = 10.0
) -> Combine:
    """`and_mask` with max(0, tanh(steepness / variance * (agreement - threshold))) as the mask.

    The variance of a component is that of the domains' gradients, divided by their number - 1. The
    sum, its scale, domains without gradients and what is logged are as in `and_mask`. In public
    code the threshold is 1 by default, where nothing is ever above it; here 0.5, the middle of the
    range that is searched there.

    Args:
        threshold: tau in [0, 1).
        steepness: k of public code.

    Shahtalebi et al., "SAND-mask: An Enhanced Gradient Masking Strategy for the Discovery of
    Invariances in Domain Generalization", 2021. arXiv:2106.02266, Eq. 4.
    """

    def update(jacobian: PyTree, losses: jax.Array, state: PyTree, rng: jax.Array):
        asked = has_gradient(jacobian)
        domains = jnp.maximum(1, asked.sum())

        def mask(share: jax.Array, rows: jax.Array) -> jax.Array:
            asked_rows = jnp.expand_dims(asked, tuple(range(1, rows.ndim)))
            mean = rows.sum(0) / domains
            gaps = jnp.where(asked_rows, rows - mean[None], 0)
            variance = jnp.sum(gaps**2, 0) / jnp.maximum(1, domains - 1)
            # The variance of equal gradients is 0, and tanh of a large quotient 1.
            slope = steepness / jnp.maximum(variance, 1e-30)
            above = jnp.where(share > threshold + 1e-6, share - threshold, 0)
            return jnp.tanh(slope * above)

        masks = jax.tree.map(mask, sign_agreement(jacobian), jacobian)
        return masked_sum(masks, jacobian), state, {"agreement": mean_of_all(masks)}

    return Combine(lambda trainable, losses: (), update)
