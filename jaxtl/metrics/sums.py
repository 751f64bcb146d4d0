"""Sums over examples as products of matrices, which a mesh shards over the examples.

Full float32 precision, where accelerators would round to bfloat16: counts stay whole.
"""

import jax
import jax.numpy as jnp
import numpy as np


def weighted_sum(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Sum over i of weights[i] * values[i]: [n] or [n, ...], [n, ...] -> [...], float32."""
    values = values.astype(jnp.float32)
    if weights.ndim > 1:
        weights, values = jnp.ones(len(weights)), weights * values
    return jnp.matmul(weights, values, precision="highest")


def per_output(weights: jax.Array, outputs: jax.Array) -> jax.Array:
    """Weights of labels, [n] or [n, ...], as float32 of the shape of outputs [n, size]."""
    weights = weights.astype(jnp.float32)
    return jnp.broadcast_to(weights.reshape(len(weights), -1), outputs.shape)


def grouped_sum(groups: jax.Array, num_groups: int, values: jax.Array) -> jax.Array:
    """Sums of values [n, columns] over the examples of each group [n]: [num_groups, columns]."""
    return jnp.matmul(jax.nn.one_hot(groups, num_groups).T, values, precision="highest")


def defined_mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
