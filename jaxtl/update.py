"""One gradient step: what is minimised, and the state that goes from one to the next."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax

from jaxtl.batch import Batch
from jaxtl.form import AT_LEAST_1, checked

PyTree = Any
Params = dict[str, Any]
Statistics = dict[str, Any]


class State(NamedTuple):
    """What a loss changes besides parameters; a stage hands it on with them.

    Attributes:
        statistics: the model's batch statistics, nested by path; {} if it has none.
        method: the method's own state; None if it has none.
    """

    statistics: Statistics
    method: PyTree = None


LossFn = Callable[
    [Any, Params, State, Batch, jax.Array, jax.Array],
    tuple[jax.Array, tuple[State, dict[str, jax.Array]]],
]


@dataclasses.dataclass(frozen=True)
@checked
class Update:
    """One gradient step inside a training step.

    Attributes:
        loss: (model, params, state, batch, rng, step) -> (loss [], (state, {metric: []})). With
            `combine`, the loss is a vector [tasks].
        optimizers: names of the method's optimizers that this update steps; the gradient is taken
            with respect to their parameters only.
        repeat: how often, on the same batch.
        combine: (Jacobian: the gradients' tree with a leading axis [tasks], losses [tasks]) ->
            gradients; None for a scalar loss.
        per_example: the loss is a mean over the examples of the batch, so that it may be cut into
            micro-batches. False for whatever couples examples (MMD, CORAL, contrastive losses).
    """

    loss: LossFn
    optimizers: tuple[str, ...] = ("all",)
    repeat: Annotated[int, AT_LEAST_1] = 1
    combine: Callable[[PyTree, jax.Array], PyTree] | None = None
    per_example: bool = False
