"""A factor of logits that may be learned."""

import jax
import jax.numpy as jnp

from jaxtl.plan import Module, Params


def modules(start: float, learn: bool) -> dict[str, Module]:
    """The one with the factor, or none."""

    def init(rng, output, shape):
        return {"factor": jnp.asarray(start, jnp.float32)}

    def apply(params, inputs):
        return params["factor"] * inputs

    return {"scale": Module(init, apply)} if learn else {}


def factor(params: Params, start: float, learn: bool) -> jax.Array | float:
    """[] of all parameters, or the number that stays."""
    return params["scale"]["factor"] if learn else start
