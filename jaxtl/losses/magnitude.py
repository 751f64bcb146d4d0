"""What keeps large and small numbers within float32 without changing a value.

Shifts and scales are constants of the gradient; scales are powers of two, which round nothing.
"""

import jax
import jax.numpy as jnp

from jaxtl.losses.weighting import weighted_mean


def below_largest(logits: jax.Array) -> jax.Array:
    """Logits [..., classes] less the largest of their row: the same softmax, and 0 on top.

    Before they are divided by a temperature: compiled code may fuse the division with the shift
    inside a softmax, and the rounding of large quotients then stands in the exponent.
    """
    return logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))


def binade(values: jax.Array, axis: int | None = None) -> jax.Array:
    """The power of two at or next below the largest |value|, 1 where that is 0.

    Args:
        values: float.
        axis: as in `max`; the result keeps it.
    """
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(values)), axis, keepdims=True)
    exponent = jnp.maximum(jnp.frexp(largest)[1] - 1, jnp.finfo(largest.dtype).minexp)
    return jnp.where(largest > 0, jnp.ldexp(jnp.ones_like(largest), exponent), 1)


def norms(rows: jax.Array) -> jax.Array:
    """Euclidean norms [...] of [..., features]; the gradient of a zero norm is 0."""
    scale = binade(rows, -1)
    squares = jnp.sum((rows / scale) ** 2, -1)
    roots = jnp.where(squares == 0, 0, jnp.sqrt(jnp.where(squares == 0, 1, squares)))
    return roots * scale[..., 0]


def fill_absent(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """Rows [n, features], their mean in place of those of weight 0, which then extend no range."""
    mean = jax.lax.stop_gradient(weighted_mean(rows, weights))
    return jnp.where(weights[:, None] > 0, rows, mean[None])


def centre_both(
    source: jax.Array,
    target: jax.Array,
    source_weights: jax.Array,
    target_weights: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Both domains [n, features] less one point between them; rows of weight 0 are near 0."""
    source, target = fill_absent(source, source_weights), fill_absent(target, target_weights)
    between = weighted_mean(source, source_weights) / 2 + weighted_mean(target, target_weights) / 2
    between = jax.lax.stop_gradient(between)[None]
    return source - between, target - between


def centre(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """Rows [n, features] less their mean; one of weight 0 less it too."""
    # Features far from 0 and close together lose less when the mean is taken of what is left.
    rows = rows - jax.lax.stop_gradient(weighted_mean(rows, weights))[None]
    return rows - weighted_mean(rows, weights)[None]
