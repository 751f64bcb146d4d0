"""Gaussian kernels with several bandwidths, and rules that find these in a sample."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxtl.losses.magnitude import fill_absent
from jaxtl.losses.transport import gram_distances, squared_distances
from jaxtl.losses.weighting import weigh, weighted_mean

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)

Rule = Callable[[jax.Array, jax.Array], jax.Array]
Bandwidths = jax.Array | Sequence[float] | Rule


def mean_bandwidths(factors: Sequence[float] = FACTORS) -> Rule:
    """The weighted mean squared distance of distinct points, times each factor.

    Points are distinct where their distance is above a thousandth of the largest, which float32
    resolves: a point and its repeats are no pair. Without repeats it is the mean over i != j.

    Args:
        factors: [k] > 0.

    Returns:
        (squared distances [...], weights of the pairs [...]) -> [k], 0 where no two are distinct.
    """

    def rule(distances: jax.Array, weights: jax.Array) -> jax.Array:
        largest = jnp.max(jnp.where(weights > 0, distances, 0))
        weights = jnp.where(distances > 1e-6 * largest, weights, 0)
        total = weights.sum()
        mean = jnp.sum(weights * distances) / jnp.where(total > 0, total, 1)
        return mean * jnp.asarray(factors, distances.dtype)

    return rule


MEAN_BANDWIDTHS = mean_bandwidths()


def pooled_kernel(
    source: jax.Array,
    target: jax.Array,
    source_weights: jax.Array | None,
    target_weights: jax.Array | None,
    bandwidths: Bandwidths,
) -> jax.Array:
    """The mean over bandwidths of exp(-squared distance / bandwidth), of the pooled sample.

    For given bandwidths the distances within a domain are taken about its own mean, so that those
    of a small domain far from the other are resolved too, and that of an example to itself is 0.
    Bandwidths by a rule are of the size of all distances, whose rounding then is small; they get no
    gradient, and are at least 1e-12 of the mean squared norm of the points, so that rounding is not
    taken for a distance where all points agree.

    Args:
        source: [n_source, features] float.
        target: [n_target, features] float.
        source_weights, target_weights: [n] float >= 0; all ones if None.
        bandwidths: [k] > 0, or a rule.

    Returns:
        [n_source + n_target] squared, in (0, 1].
    """
    source, source_weights, _ = weigh(source, source_weights)
    target, target_weights, _ = weigh(target, target_weights)
    if callable(bandwidths):
        points = jnp.concatenate([source, target])
        weights = jnp.concatenate([source_weights, target_weights])
        size = weighted_mean(jnp.sum(points**2, 1), weights)
        points -= jax.lax.stop_gradient(weighted_mean(points, weights))[None]
        distances = gram_distances(points, points)
        widths = bandwidths(*jax.lax.stop_gradient((distances, weights[:, None] * weights[None])))
        widths = jax.lax.stop_gradient(jnp.maximum(widths, 1e-12 * size + 1e-30))
    else:
        source, target = fill_absent(source, source_weights), fill_absent(target, target_weights)
        across = squared_distances(source, target)
        distances = jnp.block([[_within(source), across], [across.T, _within(target)]])
        widths = jnp.atleast_1d(jnp.asarray(bandwidths, distances.dtype))
    return jnp.mean(jnp.exp(-distances[None] / widths[:, None, None]), 0)


def _within(points: jax.Array) -> jax.Array:
    return jnp.where(jnp.eye(len(points), dtype=bool), 0, squared_distances(points, points))
