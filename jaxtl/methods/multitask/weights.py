"""What rules that weigh losses have in common: how weights are logged, where a loss may be 0."""

import jax
import jax.numpy as jnp

from jaxtl.plan import Metrics

LEAST_LOSS = 1e-8
"""A smaller loss counts as this one where it divides, or where its logarithm is taken."""
LARGEST_EXPONENT = 40.0
"""Of a learned weight: what learns from a loss of 0 would grow for ever."""


def logged_weights(weights: jax.Array) -> Metrics:
    """{"weight_<number>": []} of weights [tasks], in the order of the losses."""
    return {f"weight_{number}": weight for number, weight in enumerate(weights)}


def at_least(losses: jax.Array, least: float = LEAST_LOSS) -> jax.Array:
    """Losses [tasks] that one may divide by."""
    return jnp.maximum(losses, least)


def bounded(exponents: jax.Array) -> jax.Array:
    """Exponents whose exponentials, and these times a loss, are finite."""
    return jnp.clip(exponents, -LARGEST_EXPONENT, LARGEST_EXPONENT)
