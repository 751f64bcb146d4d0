"""A network that a method or a learner brings along, and what it is made for."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from jaxtl.plan.batch import Role
from jaxtl.plan.update import Params, PyTree


class StageShape(NamedTuple):
    """What a method's networks and its own state are made for.

    Attributes:
        roles: "source" or "target", of each domain.
        rows: of each domain's whole table, of which every seed may draw others: a memory addressed
            by `Batch.index` has as many.
        classes: {head: number of outputs}, of the heads that the domains name.
        batch_size: examples per domain and step.
        parameters: {path: shape} of the model's, for a module with as many numbers.
        inputs: of one example, as the model gets it: leaves [1, ...] with a shape and a dtype.
    """

    roles: tuple[Role, ...]
    rows: tuple[int, ...]
    classes: Mapping[str, int]
    batch_size: int
    parameters: Mapping[str, tuple[int, ...]] = {}
    inputs: PyTree = None


class Module(NamedTuple):
    """A network that a method brings along, such as a domain discriminator.

    Attributes:
        init: (rng, model output of one example, with its `inputs` beside `features` and `logits`
            and `after`, name of a block -> what that puts out; shape of the stage) -> params.
        apply: (params, inputs) -> outputs.
    """

    init: Callable[[jax.Array, dict[str, Any], StageShape], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
