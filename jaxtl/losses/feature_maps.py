"""Distances between the feature maps of two networks."""

import jax
import jax.numpy as jnp


def attended_distance(features: jax.Array, reference: jax.Array, attention: jax.Array) -> jax.Array:
    """Squared distance of feature maps, channels weighted: the mean over examples.

    Of an example channels * sum_c attention_c * mean over positions (features - reference)_c^2,
    without a factor 1/2. The paper sums over positions and does not multiply by the channels; with
    this scale, that of public code, maps of any size and depth weigh alike.

    Args:
        features: [n, ..., channels] float.
        reference: likewise, a constant of the gradient.
        attention: [channels] >= 0, of sum 1.

    Returns:
        [] float >= 0.

    Li et al., "DELTA: DEep Learning Transfer using Feature Map with Attention for Convolutional
    Networks", ICLR 2019. arXiv:1901.09229.
    """
    gap = (features - jax.lax.stop_gradient(reference)) ** 2
    channels = gap.shape[-1]
    return channels * jnp.mean(gap.reshape(-1, channels), 0) @ attention
