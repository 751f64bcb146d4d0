"""Small problems with a number for each task, solved inside of a program.

All read inner products of the tasks' gradients, of any scale, and give finite numbers for finite
ones: zero, equal and opposite gradients included.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

NEWTON_STEPS = 40
HALVINGS = 24


class _Active(NamedTuple):
    """Where an active-set method is.

    Attributes:
        x: [n] >= 0, the best so far.
        free: [n] bool, those that are not held at 0.
        done: [] bool.
        count: [] int32, linear systems solved.
    """

    x: jax.Array
    free: jax.Array
    done: jax.Array
    count: jax.Array


def non_negative_qp(matrix: jax.Array, linear: jax.Array) -> jax.Array:
    """argmin over x >= 0 of x . matrix x / 2 - linear . x.

    The active-set method of Lawson & Hanson (1974, Chapter 23), on inner products: exact after
    about n linear systems, and feasible wherever it stops. Variables are scaled to a diagonal of
    ones, to which a few roundings are added, as inner products of equal gradients are singular.

    Args:
        matrix: [n, n] positive semi-definite.
        linear: [n], in its range.
    """
    size, tiny = len(linear), len(linear) * jnp.finfo(matrix.dtype).eps
    lengths = jnp.sqrt(jnp.diagonal(matrix))
    lengths = jnp.where(lengths > 0, lengths, 1)
    matrix = matrix / jnp.outer(lengths, lengths) + 4 * tiny * jnp.eye(size, dtype=matrix.dtype)
    linear = linear / lengths
    tolerance = 4 * tiny * jnp.max(jnp.abs(linear), initial=0)

    def body(at: _Active) -> _Active:
        both = at.free[:, None] & at.free[None]
        system = jnp.where(both, matrix, 0) + jnp.diag(1 - at.free.astype(matrix.dtype))
        goal = jnp.linalg.solve(system, jnp.where(at.free, linear, 0))
        # Towards the minimiser over what is free, up to the first that would become negative.
        blocked = at.free & (goal <= 0)
        shares = jnp.where(blocked, at.x / jnp.where(blocked, at.x - goal, 1), jnp.inf)
        shares = jnp.where(blocked & (at.x <= 0), 0, shares)
        share = jnp.minimum(1, jnp.min(shares))
        free = at.free & ~(blocked & (shares <= share))
        x = jnp.where(free, jnp.maximum(at.x + share * (goal - at.x), 0), 0)
        slopes = jnp.where(free, -jnp.inf, linear - matrix @ x)
        arrived = ~jnp.any(blocked)
        enters = arrived & (jnp.max(slopes) > tolerance)
        free |= enters & (jnp.arange(size) == jnp.argmax(slopes))
        return _Active(x, free, arrived & ~enters, at.count + 1)

    start = _Active(jnp.zeros_like(linear), jnp.zeros(size, bool), jnp.array(False), jnp.int32(0))
    end = jax.lax.while_loop(lambda at: ~at.done & (at.count < 8 * size), body, start)
    return end.x / lengths


def min_norm_weights(products: jax.Array) -> jax.Array:
    """[tasks] >= 0 of sum 1: the point of the gradients' convex hull that is nearest to 0.

    Where x >= 0 is best for |sum_i x_i g_i|^2 + c (sum_i x_i - 1)^2, the conditions of optimality
    say that x / sum(x) is best on the simplex, for any c > 0.

    Args:
        products: [tasks, tasks], g_i . g_j.
    """
    squares = jnp.diagonal(products)
    least = jnp.min(jnp.where(squares > 0, squares, jnp.inf))
    unit = jnp.where(jnp.isfinite(least), least, 1)
    x = non_negative_qp(products + unit, jnp.full_like(squares, unit))
    total = jnp.sum(x)
    return jnp.where(total > 0, x / jnp.where(total > 0, total, 1), 1 / len(x))


def shifted(products: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Inner products [tasks, tasks] of g_i + factor * the mean of all g."""
    along = products.mean(0)  # g_i . mean
    return products + factor * (along[:, None] + along[None]) + factor**2 * along.mean()


def project_simplex(x: jax.Array) -> jax.Array:
    """The nearest numbers [n] >= 0 of sum 1 (Duchi et al., ICML 2008)."""
    descending = -jnp.sort(-x)
    above = (jnp.cumsum(descending) - 1) / jnp.arange(1, len(x) + 1, dtype=x.dtype)
    return jnp.maximum(x - above[jnp.sum(descending > above) - 1], 0)


def fair_weights(products: jax.Array, power: float) -> jax.Array:
    """[tasks] > 0 with products @ weights = weights ** -power; 0 for a gradient that is 0.

    The minimiser of a convex function, weights . products weights / 2 - sum of the integrals of
    weights ** -power, by Newton's method. Where gradients cancel, there is none, and the weights
    are large.

    Args:
        power: above 0.
    """
    size = len(products)
    lengths = jnp.sqrt(jnp.diagonal(products))
    moves = lengths > 0
    lengths = jnp.where(moves, lengths, 1)
    both = moves[:, None] & moves[None]
    ridge = 4 * size * jnp.finfo(products.dtype).eps
    cosines = jnp.where(both, products / jnp.outer(lengths, lengths), 0)
    cosines += jnp.diag(jnp.where(moves, ridge, 1).astype(products.dtype))
    # weights = y / lengths turn the equation into cosines @ y = scale * y ** -power.
    scale = jnp.where(moves, lengths ** (power - 1), 1)
    level = jnp.mean(scale)
    scale /= level

    def slope(y: jax.Array) -> jax.Array:
        return cosines @ y - scale * y**-power

    halves = 0.5 ** jnp.arange(HALVINGS, dtype=products.dtype)

    def step(y: jax.Array, _) -> tuple[jax.Array, None]:
        # The length of the slope falls along Newton's direction, and tells more near the end than
        # the function does, which is flat there.
        curvature = cosines + jnp.diag(power * scale * y ** (-power - 1))
        move = jnp.linalg.solve(curvature, slope(y))
        tries = y[None] - halves[:, None] * move[None]
        inside = jnp.all(tries > 0, 1)
        lengths = jnp.linalg.norm(jax.vmap(slope)(jnp.where(inside[:, None], tries, 1)), axis=1)
        lengths = jnp.where(inside, lengths, jnp.inf)
        best = jnp.argmin(lengths)
        return jnp.where(lengths[best] < jnp.linalg.norm(slope(y)), tries[best], y), None

    start = scale ** (1 / (1 + power))
    y, _ = jax.lax.scan(step, start, None, NEWTON_STEPS)
    return jnp.where(moves, level ** (1 / (1 + power)) * y / lengths, 0)


def bisect(rises: Callable[[jax.Array], jax.Array], upper: jax.Array, steps: int) -> jax.Array:
    """A point [] of (0, upper) from which on `rises` is true; halved `steps` times."""

    def body(_, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        above = rises(middle)
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    return jax.lax.fori_loop(0, steps, body, (jnp.zeros_like(upper), upper))[1]
