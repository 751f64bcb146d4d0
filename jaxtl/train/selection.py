"""The parameters that a stage ends with: the best by validation, an average, or the last.

The best ones so far are part of the state of the stage, one set for each lane: what a seed ends
with does not depend on which other seeds train beside it, and a stopped run loses none of it.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.paths import join
from jaxtl.plan import Params, PyTree, State


class Look(NamedTuple):
    """How a stage looks at data that it does not train on, and keeps its best parameters.

    Attributes:
        metric: which of what is measured decides; None keeps the last parameters.
        sign: of an improvement, 1 or -1.
        every: steps between looks; the last step is always looked at.
        measure: (params, state) -> {metric: [lanes]}, leaves lead with the axis of lanes.
    """

    metric: str | None
    sign: int
    every: int
    measure: Callable[[Params, State], Mapping[str, np.ndarray]]


def deployed(full: PyTree) -> tuple[Params, State]:
    """(params, state) that are evaluated and handed on: the best, else the average, else the last.

    Args:
        full: a full state, or what a checkpoint of it holds.
    """
    best = full["best"]
    state = best["state"] if best else full["state"]
    moved = best["params"] if best else full["average"] or full["trainable"]
    return join(moved, full["frozen"]), state


def with_best(full: PyTree, look: Look | None) -> PyTree:
    """The full state with its best parameters so far, none of which has been looked at."""
    if look is None or look.metric is None:
        return full
    params = jax.tree.map(jnp.copy, full["average"] or full["trainable"])
    value = jnp.full(full["failed"].shape, -look.sign * jnp.inf)
    state = jax.tree.map(jnp.copy, full["state"])
    return {**full, "best": {"value": value, "params": params, "state": state}}


def looked(full: PyTree, look: Look) -> tuple[PyTree, Mapping[str, np.ndarray]]:
    """(the best parameters after a look at those of now, what was measured {metric: [lanes]})."""
    params, state = deployed({**full, "best": {}})
    values = look.measure(params, state)
    if look.metric is None:
        return full["best"], values
    moved = full["average"] or full["trainable"]
    new = {"value": values[look.metric], "params": moved, "state": state}
    return _better(full["best"], new, look.sign), values


@jax.jit
def _better(best: PyTree, new: PyTree, sign: int) -> PyTree:
    """Lane by lane; the earlier one where they are equal, never one whose value is NaN."""
    wins = (new["value"] - best["value"]) * sign > 0

    def choose(new, old):
        return jnp.where(wins.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, new, best)
