"""A directional derivative by differences."""

import jax
import jax.numpy as jnp
import numpy as np


def central_difference(function, params, gradient, step=1e-5, seed=7):
    """(the gradient along a random direction, the same by differences of the function)."""
    rng = np.random.default_rng(seed)
    direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)

    def at(distance):
        return function(jax.tree.map(lambda x, d: x + distance * d, params, direction))

    pairs = jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)
    slope = sum(jax.tree.leaves(pairs))
    # Of fourth order, so that rounding decides and not the step.
    near, far = at(step) - at(-step), at(2 * step) - at(-2 * step)
    return slope, (8 * near - far) / (12 * step)
