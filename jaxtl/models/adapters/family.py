"""What an adapter makes of a kernel.

A kernel is seen as a matrix [rows, columns], inputs times outputs: [in, out] of a dense layer, [d,
heads * head width] and [heads * head width, d] of linen's attention, [height * width * in, out] of
a convolution, where `in` is the number of input channels of one group: 1 if it is depthwise.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxtl.models.adapter import Factors

Leaves = Mapping[str, jax.Array]
Weight = Mapping[str, jax.Array]
"""{"kernel": [rows, columns], "bias": [columns]}, without bias where the layer has none."""


class Kernel(NamedTuple):
    """A kernel to adapt.

    Attributes:
        path: of the parameter.
        layer: the adapter's leaves live under `<adapter>/<layer>/`: the path without `/kernel`.
        rows, columns: of the matrix.
        dense: it is the matrix of a dense layer.
        plain: the outputs of its layer are inputs @ kernel + bias and nothing else.
    """

    path: str
    layer: str
    rows: int
    columns: int
    dense: bool
    plain: bool


class Family(NamedTuple):
    """What an adapter makes of a kernel.

    Attributes:
        start: (Kernel, matrix [rows, columns], key: leaf's name -> PRNG key) -> {name: leaf}.
        columns: (leaves, size of the kernel) -> columns of its matrix.
        weigh: (weight, leaves) -> weight with the adapter's effect; may leave out what stays.
        unweigh: its inverse, None if there is none.
        beside: (inputs [..., rows], leaves) -> [..., columns], what `weigh` adds to the outputs of
            a plain layer; None for whatever does not add.
        problem: Kernel -> why it cannot be adapted, or None.
        shared: ([Kernel], key) -> {name: leaf}, read by all kernels, under `<adapter>/shared/`.
        solve: (matrix of a loaded kernel, float64) -> {name: value} of the leaves that start from
            it; None if none do.
        solves: their names.
        constants: names of the leaves that never train.
        factors: (leaves, rows of the kernel) -> Factors; None where there are no such.
    """

    start: Callable[..., Leaves]
    columns: Callable[[Leaves, int], int]
    weigh: Callable[[Weight, Leaves], Weight]
    unweigh: Callable[[Weight, Leaves], Weight] | None
    beside: Callable[[jax.Array, Leaves], jax.Array] | None = None
    problem: Callable[[Kernel], str | None] = lambda kernel: None
    shared: Callable[..., Leaves] | None = None
    solve: Callable[[np.ndarray], Mapping[str, np.ndarray]] | None = None
    solves: Sequence[str] = ()
    constants: Sequence[str] = ()
    factors: Callable[[Leaves, int], Factors] | None = None


def additive(
    start: Callable, delta: Callable[[Leaves], jax.Array], beside: Callable, last: str, **more
) -> Family:
    """The family that adds `delta(leaves)` [rows, columns] to the kernel.

    Args:
        last: name of a leaf [..., columns].
    """

    def add(sign: int) -> Callable[[Weight, Leaves], Weight]:
        return lambda weight, leaves: {"kernel": weight["kernel"] + sign * delta(leaves)}

    def columns(leaves: Leaves, size: int) -> int:
        return leaves[last].shape[-1]

    return Family(start, columns, add(1), add(-1), beside, **more)


def rank_problem(rank: int) -> Callable[[Kernel], str | None]:
    """Why a kernel has no low-rank adapter of this rank, if so."""

    def problem(kernel: Kernel) -> str | None:
        side = min(kernel.rows, kernel.columns)
        if not 1 <= rank <= side:
            return f"its matrix [{kernel.rows}, {kernel.columns}] takes ranks from 1 to {side}"
        return None

    return problem
