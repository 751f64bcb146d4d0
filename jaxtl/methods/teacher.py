"""A copy of the model in the method's state, which gives a student its targets."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxtl.methods.transfer.fine_tuning import Groups, trained_paths
from jaxtl.paths import flatten, nest, split
from jaxtl.plan import Model, Params, PyTree, StageShape, State, Statistics


def start_teacher(groups: Groups) -> Callable[[Model, Params, Statistics], PyTree]:
    """`Method.state` that holds {"params": what the groups train, "statistics": all}."""

    def start(model: Model, params: Params, statistics: Statistics, shape: StageShape) -> PyTree:
        return copy_student(groups, params, statistics)

    return start


def copy_student(groups: Groups, params: Params, statistics: Statistics) -> PyTree:
    """The copy that `start_teacher` begins with."""
    trainable = trained_paths(groups, params)
    return {"params": split(params, trainable.__contains__)[0], "statistics": statistics}


def average(teacher: PyTree, params: Params, decay: float) -> Params:
    """The copy's parameters, decay * theirs + (1 - decay) * the student's."""
    flat = flatten(params)
    old = flatten(teacher["params"])
    return nest({path: decay * leaf + (1 - decay) * flat[path] for path, leaf in old.items()})


def update_teacher(teacher: PyTree, params: Params, state: State, due: jax.Array) -> PyTree:
    """The copy, or where it is due a new one of the student as it is now.

    Args:
        teacher: the copy.
        params, state: the student's.
        due: [] bool.
    """
    trainable = split(params, flatten(teacher["params"]).__contains__)[0]
    student = {"params": trainable, "statistics": state.statistics}
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), student, teacher)


def teacher_outputs(
    model: Model, params: Params, teacher: PyTree, inputs: PyTree, **options
) -> tuple[dict[str, Any], Statistics]:
    """(output, batch statistics) of the copy, constants of the gradient.

    Args:
        model: the student's.
        params: the student's, for what does not train.
        teacher: the copy.
        inputs: pytree of [n, ...].
        options: of `model.apply`.
    """
    whole = nest(flatten(params) | flatten(teacher["params"]))
    return jax.lax.stop_gradient(model.apply(whole, teacher["statistics"], inputs, **options))
