"""What a method is: what is minimised, what trains, and how."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np

from jaxtl.form import (
    AT_LEAST_0,
    BELOW_1,
    POSITIVE,
    PREPARES,
    SIZE,
    Name,
    Patterns,
    checked,
)
from jaxtl.plan.episode import Learner
from jaxtl.plan.module import Module, StageShape
from jaxtl.plan.reading import Model
from jaxtl.plan.update import Params, PyTree, State, Statistics, Update


@dataclasses.dataclass(frozen=True)
@checked
class Head:
    """A linear output of a model and the loss that reads it.

    Attributes:
        size: number of outputs.
        loss: (outputs [..., size], labels [..., *label_shape]) -> losses [..., *label_shape], one
            for each element of a label; an example's loss is their sum over the known ones,
            divided by the number of all.
        label_shape: shape of one label; () for a class index or a scalar value.
        integer: labels are class indices in [0, size); otherwise they are floats.
        bounds: least and largest label, of a head of values; None for any.
    """

    size: Annotated[int, SIZE]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    label_shape: tuple[Annotated[int, SIZE], ...] = ()
    integer: bool = True
    bounds: tuple[float, float] | None = None

    @property
    def missing(self) -> np.generic:
        """Stands, in the type of the labels, for one that is hidden or not known."""
        return np.int32(-1) if self.integer else np.float32(np.nan)


@dataclasses.dataclass(frozen=True)
@checked
class Method:
    """What is minimised, what trains, and how.

    Attributes:
        optimizers: {name: (path patterns, optax transformation)}. The first group that matches a
            parameter trains it; what no group matches, and a group called "frozen", stays.
        updates: the gradient steps of one training step, in order; empty if `prepare` does all.
        modules: {name: Module}; parameters under `<name>/...`, fresh in every stage.
        state: (model, params, batch statistics, shape of the stage) -> pytree kept as
            `State.method`.
        remembers: the state goes on from that of the stage before. One that does not fit any more
            is an error; one of another method, which shares no path with it, starts anew.
        prepare: (model, params, state, domains: [Columns], **named: Columns) -> (params, state), on
            the host, before step 0. Sees one seed at a time; params are NumPy arrays. It may change
            only what its optimizers' patterns or `solves` match.
        reads: names of the data that `prepare` reads besides the domains, each an argument of its
            own; a stage gives them as `Stage.data`.
        solves: path patterns of the parameters that `prepare` computes in closed form.
        prepare_every: call `prepare` again every so many steps; 0 for never.
        predict: (model, params, state, inputs) -> output, where prediction is not `model.apply`.
        learner: how it reads an episode, its support and its queries.
        unweighted: all examples count alike, so that domains with `example_weights` are refused.
        aligns: `prepare` compares sources with targets; a stage that lacks either is refused.
        fresh_frozen: parameters may be both fresh and frozen (random features, on purpose).
        clip_norm: largest global norm of an update's gradient over all that trains, whichever
            optimizer steps it (Pascanu et al., 2013, arXiv:1211.5063); None for no clipping.
        ema: decay in [0, 1) of an exponential moving average of what trains, which starts at the
            initial values and is not debiased (Polyak & Juditsky, 1992, average uniformly). The
            average, not the last value, is evaluated and handed on.
        swa: (start, every) of stochastic weight averaging: the uniform average of what trains
            after step `start` (counted from 1) and after each `every`-th step from there on; the
            values of now until then. It is evaluated and handed on like that of `ema`, and batch
            statistics like there stay those of the last step, unless a stage with
            `transfer.refresh_statistics` follows (Izmailov et al., 2018, arXiv:1803.05407).
    """

    optimizers: Mapping[str, tuple[Patterns, Any]] = dataclasses.field(default_factory=dict)
    updates: tuple[Update, ...] = ()
    modules: Mapping[Name, Module] = dataclasses.field(default_factory=dict)
    state: Callable[[Model, Params, Statistics, StageShape], PyTree] | None = None
    remembers: bool = False
    prepare: Annotated[Callable[..., tuple[Params, State]], PREPARES] | None = None
    reads: Sequence[Name] = ()
    solves: Patterns = ()
    prepare_every: Annotated[int, AT_LEAST_0] = 0
    predict: Callable[[Model, Params, State, PyTree], dict[str, Any]] | None = None
    learner: Learner | None = None
    unweighted: bool = False
    aligns: bool = False
    fresh_frozen: bool = False
    clip_norm: Annotated[float, POSITIVE] | None = None
    ema: Annotated[float, BELOW_1] | None = None
    swa: tuple[int, int] | None = None
