"""Datasets whose inputs are the features of a published model, computed once."""

import dataclasses
import functools
import logging
import math
from typing import TypeVar

import jax
import numpy as np

from jaxtl.data import Dataset, Splits, Table
from jaxtl.data.streamed import select
from jaxtl.form import Size, checked
from jaxtl.models import outputs, to_float
from jaxtl.paths import flatten, nest
from jaxtl.plan import Model, State, Weights

logger = logging.getLogger(__name__)


Data = TypeVar("Data", Dataset, Splits)


@checked
def features(data: Data, model: Model, weights: Weights, *, batch_size: Size = 64) -> Data:
    """The same examples with a frozen model's features as inputs, [n, features] float32.

    They are computed when the data are first used, for all rows, and kept in memory: for all arms,
    seeds and points of a sweep, as long as they are given the same `model` value. A stage with a
    frozen backbone does the same for itself alone, and can be trained on.

    Args:
        data: `Dataset` or `Splits` that the model reads.
        model: without regard to its heads; examples pass as in evaluation.
        weights: where all of its backbone comes from.
        batch_size: examples per batch.

    Raises:
        ValueError: an argument is of another kind; when the data are used, the weights do not fit
            the model, the model does not take the data, or features are not finite.
    """
    return data.map(_Extractor(model, weights, batch_size))


@dataclasses.dataclass(frozen=True)
class _Extractor:
    """table -> table; equal to another one of the same model value and equal weights."""

    model: Model
    weights: Weights
    batch_size: int
    by_row = True  # so that `train.preprocessing` need not try it

    @property
    def __name__(self) -> str:
        return f"features of {self.weights.name}"

    @functools.cached_property
    def _backbone(self) -> Model:
        """One value for all tables, as the program is compiled for it."""
        return dataclasses.replace(self.model, heads={})

    def __call__(self, table: Table) -> Table:
        first = jax.eval_shape(to_float, jax.tree.map(lambda leaf: leaf[:1], table.inputs))
        shapes = jax.eval_shape(self._backbone.init, jax.random.key(0), first)
        wanted = [flatten(tree) for tree in shapes]
        leaves, report = self.weights.read(wanted[0] | wanted[1])
        logger.info("features of %d examples, %s", len(table), report)
        params, statistics = (nest({path: leaves[path] for path in tree}) for tree in wanted)
        run = functools.partial(outputs, self._backbone, params, State(statistics))
        # What is left over is a batch of its own size: filled up, its last bits would be others.
        size, whole = self.batch_size, len(table) // self.batch_size * self.batch_size
        parts = [select(table.inputs, part) for part in (slice(whole), slice(whole, None))]
        inputs = np.concatenate([run(part, "features", batch_size=size) for part in parts])
        inputs = inputs.reshape(len(inputs), math.prod(inputs.shape[1:])).astype(np.float32)
        if rows := np.flatnonzero(~np.isfinite(inputs).all(1)).tolist():
            raise ValueError(
                f"features by {self.weights.name} are not finite for {len(rows)} of {len(inputs)} "
                f"examples, the first at row {rows[0]}"
            )
        return dataclasses.replace(table, inputs=inputs)
