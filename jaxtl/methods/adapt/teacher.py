"""A copy of the model in the method's state, which gives a student its targets."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxtl.methods.transfer.fine_tuning import Groups, trained_paths
from jaxtl.paths import flatten, nest, split
from jaxtl.plan import Model, Params, PyTree, StageShape, State, Statistics


def copy_of(groups: Groups) -> Callable[[Model, Params, Statistics], PyTree]:
    """`Method.state` that holds {"params": what the groups train, "statistics": all}."""

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        return copied(groups, params, statistics)

    return start


def copied(groups: Groups, params: Params, statistics: Statistics) -> PyTree:
    """The copy that `copy_of` begins with."""
    moving = trained_paths(groups, params)
    return {"params": split(params, moving.__contains__)[0], "statistics": statistics}


def averaged(kept: PyTree, params: Params, decay: float) -> Params:
    """The copy's parameters, decay * theirs + (1 - decay) * the student's."""
    flat = flatten(params)
    old = flatten(kept["params"])
    return nest({path: decay * leaf + (1 - decay) * flat[path] for path, leaf in old.items()})


def renewed(kept: PyTree, params: Params, state: State, due: jax.Array) -> PyTree:
    """The copy, or where it is due a new one of the student as it is now.

    Args:
        kept: the copy.
        params, state: the student's.
        due: [] bool.
    """
    now = split(params, flatten(kept["params"]).__contains__)[0]
    new = {"params": now, "statistics": state.statistics}
    return jax.tree.map(lambda one, other: jnp.where(due, one, other), new, kept)


def taught(
    model: Model, params: Params, kept: PyTree, inputs: PyTree, **options
) -> tuple[dict[str, Any], Statistics]:
    """(output, batch statistics) of the copy, constants of the gradient.

    Args:
        model: the student's.
        params: the student's, for what does not train.
        kept: the copy.
        inputs: pytree of [n, ...].
        options: of `model.apply`.
    """
    whole = nest(flatten(params) | flatten(kept["params"]))
    return jax.lax.stop_gradient(model.apply(whole, kept["statistics"], inputs, **options))
