"""A program of features run over rows, batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxtl.data.streamed import is_streamed, read_ahead
from jaxtl.features.digests import on_host
from jaxtl.features.programs import Program, batch_rows
from jaxtl.models.programs import calls_at_a_time, in_threads
from jaxtl.plan import PyTree


def is_split(leaf: Any) -> bool:
    """Whether the devices of this process hold different parts of an array."""
    is_local = isinstance(leaf, jax.Array) and leaf.is_fully_addressable
    return is_local and not leaf.is_fully_replicated


def prepare(
    program: Program, leaves: Sequence[Any], inputs: PyTree, rows: np.ndarray
) -> Callable[[], Iterator[list[np.ndarray]]]:
    """What computes the features of rows, compiled; leaves [rows of a batch, ...] of each batch.

    All batches have the same shape: the last one repeats its last row.

    Args:
        leaves: the weights that the program reads, wherever they are.
        inputs: leaves [n, ...], in memory or streamed.
        rows: [m], m > 0.
    """
    size, placed = batch_rows(), _placed(leaves)
    starts = range(0, len(rows), size)

    def read(start: int) -> PyTree:
        chosen = rows[np.minimum(np.arange(start, start + size), len(rows) - 1)]
        return jax.tree.map(lambda leaf: leaf[chosen], inputs)

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), inputs)
    run = program.runner.compile(placed, shapes)

    def compute(block: PyTree) -> list[np.ndarray]:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(run(placed, block))]

    def batches() -> Iterator[list[np.ndarray]]:
        streamed = is_streamed(inputs) and len(starts) > 1
        blocks = read_ahead(read, starts, required=False) if streamed else map(read, starts)
        return in_threads(compute, blocks, min(len(starts), calls_at_a_time()))

    return batches


def _placed(leaves: Sequence[Any]) -> list[jax.Array]:
    """The weights on one device, so that features do not depend on how many there are; where they
    are split over several, as they are.
    """
    if any(map(is_split, leaves)):
        return [leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf) for leaf in leaves]
    device = jax.local_devices()[0]
    return [jax.device_put(_of_this_process(leaf), device) for leaf in leaves]


def _of_this_process(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    return leaf if isinstance(leaf, jax.Array) and leaf.is_fully_addressable else on_host(leaf)
