"""Penalty on a critic whose slope is not 1."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxtl.losses.magnitude import norms
from jaxtl.losses.weighting import weigh


def gradient_penalty(
    critic: Callable[[jax.Array], jax.Array],
    rng: jax.Array,
    source: jax.Array,
    target: jax.Array,
    source_weights: jax.Array | None = None,
    target_weights: jax.Array | None = None,
) -> jax.Array:
    """The mean of (|gradient of the critic| - 1)^2 at points between source and target.

    There are as many points as examples on the larger side. Each lies at a uniformly random place
    between an example of each side; an example is drawn about as often as its share of the weight
    says, exactly once where sizes and weights are equal.

    Args:
        critic: [n, features] -> [n], each output from its own row alone (no batch statistics).
        rng: key of the pairs and places.
        source: [n_source, features] float.
        target: [n_target, features] float.
        source_weights: [n_source] float >= 0, only their proportions count; all ones if None.
        target_weights: [n_target], likewise.

    Returns:
        [] float >= 0; 0 where a domain has no weight. Where the critic has no slope the penalty is
        1, with gradient 0.

    Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017. arXiv:1704.00028,
    Algorithm 1, without its factor 10.
    """
    source, source_weights, some_source = weigh(source, source_weights)
    target, target_weights, some_target = weigh(target, target_weights)
    place_key, pair_key, source_key, target_key = jax.random.split(rng, 4)
    size = max(len(source), len(target))
    x = source[_drawn(source_key, source_weights, size)]
    y = target[jax.random.permutation(pair_key, _drawn(target_key, target_weights, size))]
    places = jax.random.uniform(place_key, (size, 1), x.dtype)
    slopes = jax.grad(lambda points: critic(points).sum())(places * x + (1 - places) * y)
    value = jnp.mean((norms(slopes) - 1) ** 2)
    return jnp.where(some_source & some_target, value, 0)


def _drawn(rng: jax.Array, weights: jax.Array, size: int) -> jax.Array:
    """Systematic draws: [size] indices, each as often as its share times size, up to one."""
    below = jnp.cumsum(weights)
    # Away from the ends of [0, 1), where rounding would move equal shares to a neighbour.
    start = jax.random.uniform(rng, minval=0.1, maxval=0.9)
    return jnp.searchsorted(below / below[-1], (jnp.arange(size) + start) / size)
