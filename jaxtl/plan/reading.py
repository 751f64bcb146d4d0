"""What an experiment is made from, as its users see it: examples, published weights, models."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class Model(Protocol):
    """A backbone of named blocks with heads on its last features, such as `jaxtl.models` makes.

    A frozen dataclass with the fields `heads`, `live` and `dtype` at least: its functions follow
    from its fields, so `dataclasses.replace(model, heads=...)` is the same one with other heads.

    Parameters live under `backbone/<block>/...` and `heads/<head>/{kernel,bias}`, batch statistics
    under the same paths. Entries under other paths are left alone.

    Attributes:
        blocks: names of the backbone's blocks, in order.
        heads: {name: `jaxtl.plan.Head`}.
        live: patterns over paths of batch statistics: those that follow the data while
            `train` is true. The others are constants.
        adapters: what was put on it, each with parameters under its name.
        dtype: that it computes in; None for that of its parameters.
    """

    blocks: tuple[str, ...]
    heads: Mapping[str, Any]
    live: Sequence[str]
    adapters: Sequence[Any]
    dtype: Any

    def init(self, rng: jax.Array, inputs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """(params, batch statistics) for inputs with leading axis [n].

        The value of a parameter depends on the rng and its own path only, not on which other blocks
        or heads exist.
        """

    def apply(
        self,
        params: dict[str, Any],
        statistics: dict[str, Any],
        inputs: Any,
        *,
        rng: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """({"features": [n, ...], "logits": {head: [n, size]}}, statistics) for inputs [n, ...]."""

    def cut(self, block: str) -> tuple["Model", "Model"]:
        """(the model up to and including a block, without heads; the rest, on its features).

        Both have this model's paths and read the same params.

        Raises:
            ValueError: the model has no such block.
        """

    def merge(self, params: dict[str, Any]) -> tuple["Model", dict[str, Any]]:
        """(the model without its last adapter, params in which that adapter's effect is contained).

        The same model and params where there is no adapter.

        Raises:
            ValueError: no weights compute what the adapter does; the message says why.
        """
