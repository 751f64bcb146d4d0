"""Networks of other libraries as linen modules: arrays by path, and a pure function of them."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax

from jaxtl import paths
from jaxtl.plan import PyTree

Leaves = Mapping[str, jax.Array]
"""{path within the block: array}."""


class Source(Protocol):
    """A network of another library.

    Attributes:
        kernel_axes: {path of a layer: (leading axes of its kernel that are summed over, all axes
            of the kernel)} where that is known; None in the place of the first for all but the
            last.
        is_trained: what it starts from are weights that somebody trained, not random numbers.
    """

    kernel_axes: Mapping[str, tuple[int | None, int]]
    is_trained: bool

    def start(self, rng: jax.Array, inputs: PyTree) -> tuple[Leaves, Leaves]:
        """(parameters, statistics) for inputs [n, ...]."""

    def run(
        self,
        params: Leaves,
        statistics: Leaves,
        inputs: PyTree,
        *,
        rng: jax.Array | None,
        train: bool,
        live: Callable[[str], bool],
    ) -> tuple[PyTree, Leaves]:
        """(outputs, statistics).

        Args:
            rng: None where the model is given none.
            live: path of a statistic -> whether it follows the data.
        """


class Foreign(nn.Module):
    """A linen module whose variables and function are a source's."""

    source: Source

    @nn.compact
    def __call__(
        self, inputs: PyTree, train: bool = False, live: Callable[[str], bool] = lambda path: False
    ) -> PyTree:
        if self.is_initializing():
            leaves = self.source.start(self.make_rng("params"), inputs)
            for collection, values in zip(("params", "batch_stats"), leaves, strict=True):
                self._put(collection, values)
        # A stream that linen is not given, such as this one, is drawn from "params".
        rng = self.make_rng("dropout") if self.has_rng("params") else None
        params, statistics = (self._flat(name) for name in ("params", "batch_stats"))
        outputs, changed = self.source.run(
            params, statistics, inputs, rng=rng, train=train, live=live
        )
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            old = statistics.items()
            moved = {p: changed[p].astype(x.dtype) if live(p) else x for p, x in old}
            self._put("batch_stats", moved)
        return outputs

    def _flat(self, collection: str) -> dict[str, Any]:
        return paths.flatten(self.variables.get(collection, {}))

    def _put(self, collection: str, leaves: Leaves) -> None:
        for name, tree in paths.nest(leaves).items():
            self.put_variable(collection, name, tree)


def joined(place: tuple[Any, ...], taken: Mapping[str, Any], name: str) -> str:
    """The path of a leaf from the keys above it.

    Raises:
        ValueError: another leaf has that path, as a key may contain a slash.
    """
    path = "/".join(map(str, place))
    if not path or path in taken:
        what = f"two leaves have the path {path!r}" if path else "one array alone has no path"
        raise ValueError(f"{name}: {what}; name them apart, such as {{'kernel': ...}}.")
    return path
