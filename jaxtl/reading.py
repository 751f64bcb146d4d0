"""What an experiment reads, as those see it who read: examples with labels, published weights."""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import jax
import numpy as np


class Wanted(dict[str, jax.ShapeDtypeStruct]):
    """{path of a parameter or batch statistic: shape and dtype} of what weights are asked for.

    Attributes:
        others: paths of the model's other leaves, which start anew, so that nobody misses their
            arrays in the file; None where only a part of what was read before is read again, and
            what else is in the file does not matter.
    """

    def __init__(
        self,
        leaves: Mapping[str, jax.ShapeDtypeStruct],
        others: Collection[str] | None = (),
    ):
        super().__init__(leaves)
        self.others = others


class Data(Protocol):
    """Examples with labels: a `jaxtl.data.Dataset`."""

    name: str

    def table(self) -> Any:
        """All examples."""

    def rows(self, seed: int) -> np.ndarray:
        """Those of a seed."""


class Weights(Protocol):
    """Published weights that an arm can start from; nothing is read before it is asked for.

    Those that can also be written, under the names of their origin, have
    `save(path, {path of a leaf: array})`, which writes a safetensors file.

    Attributes:
        name: where they come from, for messages.
    """

    name: str

    def read(
        self, wanted: Mapping[str, jax.ShapeDtypeStruct]
    ) -> tuple[Mapping[str, np.ndarray], str]:
        """The leaves of a model and a report of what was done to get them.

        Args:
            wanted: {path of a parameter or batch statistic: shape and dtype}; all leaves of the
                model, or a `Wanted`.

        Returns:
            ({path: array}, of all that is wanted; the report, several lines).

        Raises:
            ValueError: the file cannot be read or does not fit; everything that does not fit is
                listed.
        """

    def digest(self) -> str:
        """Says which weights these are: a hash of the file's content."""
