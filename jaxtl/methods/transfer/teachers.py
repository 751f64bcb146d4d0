"""The teacher of a distillation: a model with published weights, or the student at the start.

It is kept in the method's state, a copy for each seed, and computes its outputs on the student's
own batches (their augmentation included) as in evaluation. It has no gradient.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxtl.methods.teacher import copy_student
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.models import apply_flat
from jaxtl.paths import flatten, matches, nest, split
from jaxtl.plan import Columns, Model, Params, PyTree, StageShape, State, Statistics, Weights

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model with published weights, which reads the same inputs as the student.

    Attributes:
        model: its model; parameters and batch statistics are all read.
        weights: where they come from.
        inputs: pytree of `jax.ShapeDtypeStruct` [1, ...], the inputs of one example.
    """

    model: Model
    weights: Weights
    inputs: PyTree


def keep_teacher(teacher: Teacher | None, groups: Groups) -> dict[str, Callable]:
    """Attributes of a method whose state is the teacher; None for the student at the start."""
    if teacher is None:

        def start(model: Model, params: Params, statistics: Statistics, shape: StageShape):
            # Statistics that no step changes are read where they are.
            live = split(statistics, lambda path: matches(model.live, path))[0]
            return copy_student(groups, params, live)

        return {"state": start}

    def blank(*student) -> PyTree:
        init = functools.partial(teacher.model.init, jax.random.key(0))
        params, statistics = jax.eval_shape(init, teacher.inputs)
        shapes = {"params": params, "statistics": statistics}
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    @functools.cache  # the file is read once for all seeds
    def read() -> PyTree:
        shapes = {name: flatten(tree) for name, tree in jax.eval_shape(blank).items()}
        leaves, report = teacher.weights.read(shapes["params"] | shapes["statistics"])
        logger.info("teacher from %s: %s", teacher.weights.name, report)
        return {name: nest({path: leaves[path] for path in flat}) for name, flat in shapes.items()}

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        return params, state._replace(method=read())

    return {"state": blank, "prepare": prepare}


def ask_teacher(
    teacher: Teacher | None, model: Model, params: Params, state: State, inputs: PyTree
) -> dict[str, Any]:
    """The output of the teacher that the state holds, a constant of the gradient.

    Args:
        teacher: as in `keep_teacher`.
        model, params: the student's.
        state: the method's.
        inputs: pytree of [batch, domains, ...].
    """
    statistics = state.statistics
    if teacher is not None:
        model, params, statistics = teacher.model, {}, {}
    params = nest(flatten(params) | flatten(state.method["params"]))
    statistics = nest(flatten(statistics) | flatten(state.method["statistics"]))
    return jax.lax.stop_gradient(apply_flat(model, params, State(statistics), inputs)[0])
