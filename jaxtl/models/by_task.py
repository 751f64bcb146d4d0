"""What travels through a backbone once the ways of its tasks have parted."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from jaxtl.plan import PyTree


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("values", "shared"), meta_fields=("names",)
)
@dataclasses.dataclass(frozen=True)
class ByTask:
    """Something for each task.

    Attributes:
        names: of the tasks, which are heads.
        values: what each one's blocks go on with, in that order.
        shared: what blocks that all tasks share go on with, beside them; None if nothing does.
    """

    names: tuple[str, ...]
    values: tuple[PyTree, ...]
    shared: PyTree = None

    def __getitem__(self, name: str) -> PyTree:
        return self.values[self.names.index(name)]

    def map(self, function: Callable[[PyTree], PyTree]) -> "ByTask":
        """A function of each task's own."""
        return ByTask(self.names, tuple(map(function, self.values)), self.shared)


def is_array(x: PyTree) -> bool:
    """Whether one array travels, not several."""
    return isinstance(x, jax.Array | np.ndarray)


def for_each(names: tuple[str, ...], inputs: PyTree) -> ByTask:
    """The inputs of each task: those of all, until the tasks part."""
    return inputs if isinstance(inputs, ByTask) else ByTask(names, (inputs,) * len(names))
