"""Frequency weights: 2 is an example that is there twice, 0 one that is not there."""

import jax
import jax.numpy as jnp


def weigh(rows: jax.Array, weights: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rows and weights that are safe to compute with.

    Args:
        rows: [n, ...] float; one of weight 0 may hold anything, NaN too.
        weights: [n] float >= 0; all ones if None.

    Returns:
        The rows, float32 at least, zero where the weight is; the weights, all ones where none is
        positive, so that their sum never is 0; [] bool, whether one was positive. A loss is 0
        where none was.

    Raises:
        ValueError: not one weight for each row.
    """
    rows = jnp.asarray(rows)
    rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
    if weights is None:
        return rows, jnp.ones(rows.shape[:1], rows.dtype), jnp.array(True)
    weights = jnp.asarray(weights)
    if weights.shape != rows.shape[:1]:
        raise ValueError(f"expected weights {list(rows.shape[:1])}, got {list(weights.shape)}")
    positive = weights > 0
    aligned = jnp.expand_dims(positive, tuple(range(1, rows.ndim)))
    present = positive.any()
    weights = jnp.where(positive, weights, 0).astype(rows.dtype)
    return jnp.where(aligned, rows, 0), jnp.where(present, weights, 1), present


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """sum_i w_i v_i / sum_i w_i over the first axis: [n, ...] and [n] -> [...]."""
    return jnp.tensordot(weights, values, 1, precision="highest") / weights.sum()
