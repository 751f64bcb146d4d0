"""Metrics made of other metrics."""

import dataclasses
from collections.abc import Callable, Mapping

from jaxtl.plan import Direction


@dataclasses.dataclass(frozen=True)
class Derived:
    """A metric made of others, and which way it is better.

        derived={"worst/error": Derived(lambda m: max(m["a/error"], m["b/error"]), "min")}

    Attributes:
        value: {metric: value} of one seed -> value.
        direction: "max" or "min".
    """

    value: Callable[[Mapping[str, float]], float]
    direction: Direction

    def __call__(self, metrics: Mapping[str, float]) -> float:
        return self.value(metrics)
