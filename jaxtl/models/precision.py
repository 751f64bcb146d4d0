"""Computing in a narrower type than the parameters are kept in."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxtl.models.model import merged_by
from jaxtl.plan import Experiment, Model, Params, PyTree, Stage, State


def computing_in(experiment: Experiment, dtype: str) -> Experiment:
    """The experiment with all its models computing in a type; unchanged for float32."""
    if dtype == "float32":
        return experiment
    models: dict[int, Model] = {}

    def narrow(stage: Stage) -> Stage:
        model = models.setdefault(id(stage.model), with_compute_dtype(stage.model, dtype))
        return dataclasses.replace(stage, model=model)

    arms = {name: [narrow(stage) for stage in stages] for name, stages in experiment.arms.items()}
    return dataclasses.replace(experiment, arms=arms)


def with_compute_dtype(model: Model, dtype: Any) -> Model:
    """The same model, whose blocks and heads compute in `dtype`.

    Parameters stay as they are (float32) and are rounded where they are used, so that small updates
    add up; batch statistics are neither rounded nor accumulated in `dtype`. Features and logits
    come back as float32.

    Args:
        model: any model.
        dtype: such as `jnp.bfloat16`.
    """

    def narrow(tree: PyTree) -> PyTree:
        return jax.tree.map(
            lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
        )

    def apply(params: Params, state: State, inputs: PyTree, **options) -> tuple[dict, State]:
        output, new = model.apply(narrow(params), state, narrow(inputs), **options)
        output = jax.tree.map(lambda x: x.astype(jnp.float32), output)
        return output, jax.tree.map(lambda x, old: x.astype(old.dtype), new, state)

    def cut(block: str) -> tuple[Model, Model]:
        first, rest = model.cut(block)
        return with_compute_dtype(first, dtype), with_compute_dtype(rest, dtype)

    merge = merged_by(model, lambda base: with_compute_dtype(base, dtype))
    return dataclasses.replace(model, apply=apply, cut=cut, merge=merge)
