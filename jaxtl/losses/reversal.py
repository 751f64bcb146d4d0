"""Gradient reversal: what follows is minimised, what comes before makes it larger.

Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016. arXiv:1505.07818.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import AT_LEAST_0, Finite, checked


@jax.custom_vjp
def reverse_gradient(inputs: jax.Array, coefficient: jax.Array | float) -> jax.Array:
    """The inputs unchanged; their gradient is times -coefficient.

    Args:
        inputs: any shape, float.
        coefficient: [] float >= 0; it has no gradient.
    """
    del coefficient
    return inputs


def _forward(inputs: jax.Array, coefficient: jax.Array | float):
    return inputs, coefficient


def _backward(coefficient, gradient: jax.Array):
    return -coefficient * gradient, jnp.zeros_like(coefficient)


reverse_gradient.defvjp(_forward, _backward)


@checked
def reversal_schedule(
    num_steps: Annotated[int, AT_LEAST_0],
    *,
    low: Finite = 0.0,
    high: Finite = 1.0,
    steepness: Finite = 10.0,
) -> optax.Schedule:
    """step -> low + (high - low) (2 / (1 + exp(-steepness p)) - 1), p = step / num_steps.

    Args:
        num_steps: of the stage, so that p ends at 1; larger p counts as 1.
        low, high: first and last value.
        steepness: 10 in the paper (Section 5.2.2), where high is 0.99991 of the way at the end.
            Public code with 1 ends at 0.46 of the way.
    """

    def schedule(step: jax.Array) -> jax.Array:
        progress = jnp.clip(step / max(num_steps, 1), 0, 1)
        return low + (high - low) * jnp.tanh(steepness * progress / 2)

    return schedule
