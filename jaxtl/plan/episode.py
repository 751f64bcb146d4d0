"""A small task with its answers, and what learns from it: few-shot learning in one function."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from jaxtl.form import Limit, Name, Patterns, Size, checked
from jaxtl.plan.module import Module

PyTree = Any


RANGE = Limit(
    "{} of at least 1, of two the least first",
    lambda given: 1 <= _ends(given)[0] <= _ends(given)[1] < 2**31,
)
Range = Annotated[int | tuple[int, int], RANGE]


@dataclasses.dataclass(frozen=True)
@checked
class Episodes:
    """The form of episodes that are drawn from a dataset.

    Attributes:
        ways: classes of an episode, or the least and the most, drawn uniformly for each.
        shots: support examples of a class, likewise.
        queries: examples of a class that are asked.
        groups: label column whose classes an episode draws from. Where the head has classes, its
            labels are their numbers in the episode; a head of values reads its own column.
    """

    ways: Range
    shots: Range
    queries: Size
    groups: str = "label"

    @property
    def fewest_ways(self) -> int:
        return _ends(self.ways)[0]

    @property
    def most_ways(self) -> int:
        return _ends(self.ways)[1]

    @property
    def fewest_shots(self) -> int:
        return _ends(self.shots)[0]

    @property
    def most_shots(self) -> int:
        return _ends(self.shots)[1]

    @property
    def roles(self) -> tuple[str, ...]:
        """Of the rows of an episode."""
        support, queries = self.most_ways * self.most_shots, self.most_ways * self.queries
        return ("support",) * support + ("query",) * queries

    @property
    def labels(self) -> np.ndarray:
        """[rows] int32: the class of each row in its episode."""
        each = np.arange(self.most_ways, dtype=np.int32)
        return np.concatenate([each.repeat(self.most_shots), each.repeat(self.queries)])

    def __str__(self) -> str:
        return f"{_spelled(self.ways)}-way {_spelled(self.shots)}-shot"


def _ends(given: Range) -> tuple[int, int]:
    return given if isinstance(given, tuple) else (given, given)


def _spelled(given: Range) -> str:
    return " to ".join(map(str, dict.fromkeys(_ends(given))))


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
        changes: path patterns of the parameters of the model that it changes, as an inner loop
            does; none of one that reads features. In evaluation the blocks before the first of them
            are applied to each example once, not in each episode, unless it is transductive:
            `predict` then gets the rest of the model, and features as inputs.
    """

    name: str
    predict: Callable[..., tuple[jax.Array, PyTree]]
    modules: Mapping[Name, Module] = dataclasses.field(default_factory=dict, hash=False)
    transductive: bool = False
    changes: Patterns = (".*",)
