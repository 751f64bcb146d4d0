"""One gradient step: what is minimised, and the state that goes from one to the next."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax

from jaxtl.form import AT_LEAST_1, checked
from jaxtl.plan.batch import Batch

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

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, str):
            raise TypeError(
                f"a state has attributes: write state.method or state.statistics, not "
                f"state[{place!r}]"
            )
        return tuple.__getitem__(self, place)


LossFn = Callable[
    [Any, Params, State, Batch, jax.Array, jax.Array],
    tuple[jax.Array, tuple[State, dict[str, jax.Array]]],
]


Metrics = dict[str, jax.Array]


class Weigh(NamedTuple):
    """Factors of several losses, known before one backward pass through their weighted sum.

    Its state is that of the update, one for each seed; a resumed run goes on with it.

    Attributes:
        init: (what the update trains {optimizer: params}, losses [tasks] of zeros) -> state.
        update: (losses [tasks], state, rng) -> (weights [tasks], state, {metric: []}), once a step,
            on the losses of the whole batch.
    """

    init: Callable[[PyTree, jax.Array], PyTree]
    update: Callable[[jax.Array, PyTree, jax.Array], tuple[jax.Array, PyTree, Metrics]]


class Combine(NamedTuple):
    """One gradient of those of several losses, whatever it is made of: angles, signs, a game.

    Attributes:
        init: as in `Weigh`.
        update: (Jacobian: the gradients' tree with a leading axis [tasks], losses [tasks], state,
            rng) -> (gradients, state, {metric: []}), once a step, on those of the whole batch.
        others: (losses [tasks], state before the step, state after it) -> weights [tasks] of the
            losses for parameters that are not shared, where `multitask.joint` gives the rule only
            those that are; None for weights of 1.
    """

    init: Callable[[PyTree, jax.Array], PyTree]
    update: Callable[[PyTree, jax.Array, PyTree, jax.Array], tuple[PyTree, PyTree, Metrics]]
    others: Callable[[jax.Array, PyTree, PyTree], jax.Array] | None = None


class Aggregate(NamedTuple):
    """A gradient made of those of single examples, before any optimizer sees them.

    An example is one row of one domain. The loss is called with it alone, so it must be a mean over
    examples that treats all domains alike.

    Attributes:
        init: (what the update trains, [] zero) -> state.
        each: (gradient of one example, {optimizer: params}) -> (gradient, {metric: []}).
        finish: (sum of these over the examples that are present, batch size, state, rng) ->
            (gradient, state), once a step: division and noise.
    """

    init: Callable[[PyTree, jax.Array], PyTree]
    each: Callable[[PyTree], tuple[PyTree, Metrics]]
    finish: Callable[[PyTree, int, PyTree, jax.Array], tuple[PyTree, PyTree]]


def stateless(combine: Callable[[PyTree, jax.Array], PyTree]) -> Combine:
    """A rule (Jacobian, losses [tasks]) -> gradients that remembers nothing."""

    def update(jacobian: PyTree, losses: jax.Array, state: PyTree, rng: jax.Array):
        return combine(jacobian, losses), state, {}

    return Combine(lambda trainable, losses: (), update)


@dataclasses.dataclass(frozen=True)
@checked
class Update:
    """One gradient step inside a training step.

    Attributes:
        loss: (model, params, state, batch, rng, step) -> (loss [], (state, {metric: []})). With
            `weigh` or `combine`, the loss is a vector [tasks].
        optimizers: names of the method's optimizers that this update steps; the gradient is taken
            with respect to their parameters only.
        repeat: how often, on the same batch.
        per_example: the loss is a mean over the examples of the batch, so that it may be cut into
            micro-batches. False for whatever couples examples (MMD, CORAL, contrastive losses).
        weigh, combine, aggregate: how several gradients become one; at most one of them.
    """

    loss: LossFn
    optimizers: tuple[str, ...] = ("all",)
    repeat: Annotated[int, AT_LEAST_1] = 1
    per_example: bool = False
    weigh: Weigh | None = None
    combine: Combine | None = None
    aggregate: Aggregate | None = None

    @property
    def rule(self) -> Weigh | Combine | Aggregate | None:
        """How several gradients become one; None where there is one."""
        return self.weigh or self.combine or self.aggregate
