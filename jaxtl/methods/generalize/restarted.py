"""An optimizer that starts anew where the objective changes."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import AT_LEAST_0, checked
from jaxtl.plan import PyTree


@checked
def restarted(
    tx: optax.GradientTransformation, at: Annotated[int, AT_LEAST_0]
) -> optax.GradientTransformationExtraArgs:
    """The transformation with its initial state again before step `at`, counted from 0.

    Moments of the gradients before a penalty jumps say nothing about those after it. Schedules
    inside of the transformation begin anew too.

    Args:
        at: step, such as the one where `weight` jumps; 0 for never.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params: PyTree) -> PyTree:
        return {"step": jnp.int32(0), "inner": inner.init(params)}

    def update(updates: PyTree, state: PyTree, params: PyTree = None, **extra):
        fresh = inner.init(updates if params is None else params)
        chosen = jax.tree.map(
            lambda new, old: jnp.where(state["step"] == at, new, old), fresh, state["inner"]
        )
        updates, chosen = inner.update(updates, chosen, params, **extra)
        return updates, {"step": state["step"] + 1, "inner": chosen}

    return optax.GradientTransformationExtraArgs(init, update)
