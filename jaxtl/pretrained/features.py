"""Datasets whose inputs are the features of a published model, computed once."""

import dataclasses
import functools
import logging
import math
from typing import TypeVar

import jax
import numpy as np

from jaxtl.data import Dataset, Splits, Table
from jaxtl.features import store
from jaxtl.form import checked
from jaxtl.models import to_float
from jaxtl.paths import flatten, nest
from jaxtl.plan import Model, Weights

logger = logging.getLogger(__name__)


Data = TypeVar("Data", Dataset, Splits)


@checked
def features(data: Data, model: Model, weights: Weights) -> Data:
    """The same examples with a frozen model's features as inputs, [n, features] float32.

    They are computed when the data are first used, for all rows, and kept: for all arms, seeds and
    points of a sweep, and by a run also for later ones, see `--run.feature_folder`. A stage with a
    frozen backbone does the same by itself, and can be trained on.

    Args:
        data: `Dataset` or `Splits` that the model reads.
        model: without regard to its heads; examples pass as in evaluation.
        weights: where all of its backbone comes from.

    Raises:
        ValueError: an argument is of another kind; when the data are used, the weights do not fit
            the model, the model does not take the data, or features are not finite.
    """
    return data.map(_Extractor(model, weights))


@dataclasses.dataclass(frozen=True)
class _Extractor:
    """table -> table; equal to another one of the same model value and equal weights."""

    model: Model
    weights: Weights
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
        rows = np.arange(len(table))
        inputs = store().features(self._backbone, params, statistics, table.inputs, rows)
        inputs = inputs.reshape(len(inputs), math.prod(inputs.shape[1:]))
        inputs = inputs.astype(np.float32, copy=False)
        if rows := np.flatnonzero(~np.isfinite(inputs).all(1)).tolist():
            raise ValueError(
                f"features by {self.weights.name} are not finite for {len(rows)} of {len(inputs)} "
                f"examples, the first at row {rows[0]}"
            )
        return dataclasses.replace(table, inputs=inputs)
