"""One weighted sum of the losses, with weights that somebody chose."""

from collections.abc import Callable, Sequence
from typing import Annotated

import jax
import jax.numpy as jnp

from jaxtl.form import NOT_NEGATIVE, checked
from jaxtl.plan import Weigh


def equal_weights() -> Weigh:
    """The sum of the losses, each with weight 1."""
    return _constant(jnp.ones_like)


@checked
def scalarization(weights: Sequence[Annotated[float, NOT_NEGATIVE]]) -> Weigh:
    """sum_i w_i L_i with given weights.

    The weights may be fields of a Config that a sweep goes over: all points and seeds are then
    replicas of one program. Tuned on validation data this is what learned weights must beat (Xin
    et al., 2022, arXiv:2209.11379; Kurin et al., 2022, arXiv:2201.04122).

    Args:
        weights: one for each loss, in the order of the losses: that of the model's heads, or of
            the stage's domains.

    Raises:
        ValueError: when it is first used, there are not as many as losses.
    """

    def constant(losses: jax.Array) -> jax.Array:
        if len(weights) != len(losses):
            raise ValueError(
                f"{len(weights)} weights were given for {len(losses)} losses; each loss has one, "
                "in the order of the model's heads, or of the stage's domains"
            )
        return jnp.stack([jnp.asarray(weight, losses.dtype) for weight in weights])

    return _constant(constant)


def _constant(weights_of: Callable[[jax.Array], jax.Array]) -> Weigh:
    def weigh(losses: jax.Array, state: tuple, rng: jax.Array):
        return weights_of(losses), state, {}

    return Weigh(lambda trainable, losses: (), weigh)
