"""Optimal transport between two weighted samples."""

import jax
import jax.numpy as jnp

from jaxtl.losses.magnitude import centre_both
from jaxtl.losses.weighting import weigh


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """|x_i - y_j|^2 from inner products, at least 0.

    The origin does not matter: both are taken about the mean of x. What is below 1e-6 of the
    largest squared distance from there is rounding.

    Args:
        x: [n, features] float, up to 1e18.
        y: [m, features] float, likewise.

    Returns:
        [n, m] float32 at least.
    """
    x, y = (z.astype(jnp.promote_types(z.dtype, jnp.float32)) for z in map(jnp.asarray, (x, y)))
    # Of finite numbers, so that a row of NaN has no distance but spoils no other.
    mean = jax.lax.stop_gradient(jnp.mean(x, 0, keepdims=True, where=jnp.isfinite(x)))
    return gram_distances(x - mean, y - mean)


def gram_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """`squared_distances` of features that are near the origin already."""
    inner = jnp.matmul(x, y.T, precision="highest")
    return jnp.maximum(jnp.sum(x**2, 1)[:, None] + jnp.sum(y**2, 1)[None] - 2 * inner, 0)


def sinkhorn(
    cost: jax.Array,
    a: jax.Array | None = None,
    b: jax.Array | None = None,
    *,
    regularization: float = 0.1,
    num_steps: int = 100,
) -> jax.Array:
    """The plan P that minimises <P, cost> - regularization * entropy(P), between a and b.

    Alternating scalings in the log domain, a fixed number of them, differentiable with respect to
    the cost and to a and b. The columns of P sum to b exactly, its rows to a in the limit: take
    more steps where the regularization is small beside the costs. Where it is below 1e-6 of the
    spread of the costs float32 does not resolve it, and which of nearly equal costs the plan takes
    is chance.

    Args:
        cost: [n, m] float; anything, NaN too, in the row or column of a weight 0. Finite with
            finite slopes where the spread of the costs / regularization is below 1e37.
        a: [n] float >= 0, normalised here to the sum 1; uniform if None.
        b: [m] likewise.
        regularization: > 0, in the units of the cost.
        num_steps: scalings of rows and columns.

    Returns:
        [n, m] float >= 0, of sum 1; all zeros where a or b is.

    Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", NeurIPS 2013.
    arXiv:1306.0895, Algorithm 1.
    """
    cost, a, some_a = weigh(cost, a)
    cost, b, some_b = weigh(cost.T, b)
    cost, a, b = cost.T, a / a.sum(), b / b.sum()
    # What all costs of a row have in common is its potential's.
    least = jnp.min(cost, 1, keepdims=True, where=(b > 0)[None], initial=jnp.inf)
    cost = jnp.where((b > 0)[None], cost - jax.lax.stop_gradient(least), 0) / regularization
    # Were the division fused with each use, its rounding would differ in the terms and their sum.
    cost = jax.lax.optimization_barrier(cost)

    def scaling(potential: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
        terms = jnp.expand_dims(potential, 1 - axis) - cost
        columns = jnp.broadcast_to(jnp.expand_dims(weights, 1 - axis), cost.shape)
        return -jax.nn.logsumexp(terms, axis, b=columns)

    def step(_, potentials):
        rows = scaling(potentials[1], b, 1)
        return rows, scaling(rows, a, 0)

    rows, _ = jax.lax.fori_loop(0, num_steps, step, (jnp.zeros_like(a), jnp.zeros_like(b)))
    # The last scaling of the columns as shares of b, which sum to 1 however large the exponents.
    log_a = jnp.log(jnp.where(a > 0, a, 1))
    terms = jnp.where((a > 0)[:, None], (log_a + rows)[:, None] - cost, -jnp.inf)
    plan = jax.nn.softmax(terms, 0) * b[None]
    return jnp.where(some_a & some_b, plan, 0)


def sliced_wasserstein(
    rng: jax.Array,
    source: jax.Array,
    target: jax.Array,
    source_weights: jax.Array | None = None,
    target_weights: jax.Array | None = None,
    *,
    projections: int = 128,
) -> jax.Array:
    """Squared 2-Wasserstein distance of the samples on a line, the mean over random lines.

    Each is exact: the integral over u in [0, 1] of the squared gap between the quantile functions,
    which are steps. A shift by s costs |s|^2 / features in expectation.

    Args:
        rng: key of the directions, uniform on the sphere.
        source: [n_source, features] float.
        target: [n_target, features] float.
        source_weights: [n_source] float >= 0, only their proportions count; all ones if None.
        target_weights: [n_target], likewise.
        projections: how many lines.

    Returns:
        [] float >= 0; 0 where a domain has no weight.

    Bonneel et al., "Sliced and Radon Wasserstein Barycenters of Measures", 2015; Lee
    et al., "Sliced Wasserstein Discrepancy for Unsupervised Domain Adaptation", CVPR 2019.
    arXiv:1903.04064, which takes samples of one size.
    """
    source, source_weights, some_source = weigh(source, source_weights)
    target, target_weights, some_target = weigh(target, target_weights)
    source, target = centre_both(source, target, source_weights, target_weights)
    directions = jax.random.normal(rng, (projections, source.shape[1]), source.dtype)
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)

    def on_line(direction: jax.Array) -> jax.Array:
        x, below_x = _quantiles(source, source_weights, direction)
        y, below_y = _quantiles(target, target_weights, direction)
        ends = jnp.sort(jnp.concatenate([below_x, below_y]))
        widths = jnp.diff(ends, prepend=0)
        inside = ends - widths / 2
        gaps = x[jnp.searchsorted(below_x, inside)] - y[jnp.searchsorted(below_y, inside)]
        return jnp.sum(widths * gaps**2)

    value = jax.vmap(on_line)(directions).mean()
    return jnp.where(some_source & some_target, value, 0)


def _quantiles(
    points: jax.Array, weights: jax.Array, direction: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Positions [n] on a line in ascending order; the share of weight up to each, at the end 1."""
    positions = jnp.matmul(points, direction, precision="highest")
    order = jnp.argsort(positions)
    below = jnp.cumsum(weights[order])
    return positions[order], below / below[-1]
