"""A small task with its answers, and what learns from it: few-shot learning in one function."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxtl.form import Name, checked
from jaxtl.plan.module import Module

PyTree = Any


class Examples(NamedTuple):
    """The support or the queries of one episode.

    Attributes:
        inputs: pytree of [n, ...] floats, as the model takes them.
        labels: [n] int32 in [0, ways), numbered anew in each episode; or [n, ...] float targets of
            a regression. -1 or NaN where hidden.
        weights: [n] float >= 0; 0 = padding, of an episode with fewer classes or examples.
    """

    inputs: PyTree
    labels: jax.Array
    weights: jax.Array


@dataclasses.dataclass(frozen=True)
@checked
class Learner:
    """How the queries of an episode are answered from its support.

    Meta-training minimises the loss of what it says about the queries, averaged over episodes;
    evaluation calls the same function on episodes that were held out.

    Attributes:
        name: for messages and reports.
        predict: (model, params, state, support, queries, *, ways, rng, train) -> (logits
            [queries, ways], batch statistics), of one episode; pure, so that `jax.vmap` makes it
            that of many. Labels of the queries are hidden. `model` has the head of the episodes and
            no other: its loss is that of an inner loop, and `ways` is at most its size (the number
            of outputs of a regression). A class without support has a logit that no softmax sees.
            With `train`, batch statistics that follow the data are those of the episode and the
            changed running ones come back; otherwise the stored ones serve.
        modules: {name: Module} of its own, trained with the model: a scale, a relation network.
        transductive: in evaluation too, batch statistics that follow the data are those of the
            episode, so that a query's answer depends on the other queries; dropout stays on with
            them.
    """

    name: str
    predict: Callable[..., tuple[jax.Array, PyTree]]
    modules: Mapping[Name, Module] = dataclasses.field(default_factory=dict, hash=False)
    transductive: bool = False
