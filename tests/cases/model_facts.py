"""What a model draws and how large it is; nothing is computed."""

import functools

import flax
import jax


def is_random(model, params, statistics, inputs):
    """Whether training draws random numbers in the model."""
    try:
        jax.eval_shape(functools.partial(model.apply, train=True), params, statistics, inputs)
    except flax.errors.InvalidRngError:
        return True
    return False


def parameter_count(params):
    """How many numbers the leaves hold; they may be abstract."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
