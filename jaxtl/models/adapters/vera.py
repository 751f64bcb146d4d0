"""VeRA: random matrices shared by all kernels, of which two vectors a kernel train.

Kopiczko et al., "VeRA: Vector-based Random Matrix Adaptation", 2024. arXiv:2310.11454.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxtl.models.adapter import Factors
from jaxtl.models.adapters.family import Family, Kernel, Leaves, Weight
from jaxtl.models.adapters.kernels import on_kernels
from jaxtl.plan import Model


def vera(
    model: Model,
    targets: Sequence[str],
    rank: int = 256,
    dropout: float = 0.0,
    name: str = "vera",
) -> Model:
    """W + A diag(d) B diag(b); Eq. 2.

    A [rows, rank] and B [rank, columns] are drawn once, Kaiming uniform, for the largest kernel,
    and the others read their first rows and columns: `<name>/shared/{down,up}`. They stay random.
    What trains is d [rank], which starts as 0.1, and b [columns], as 0, so that the model starts as
    it was: rank + columns parameters a kernel.

    Args:
        rank: of A B; may be larger than a kernel.
    """

    def start(kernel: Kernel, matrix: jax.Array, key: Callable) -> Leaves:
        d, b = jnp.full(rank, 0.1, matrix.dtype), jnp.zeros(kernel.columns, matrix.dtype)
        return {"d": d, "b": b}

    def shared(kernels: Sequence[Kernel], key: Callable) -> Leaves:
        rows, columns = max(k.rows for k in kernels), max(k.columns for k in kernels)
        return {
            "down": _kaiming(key("down"), (rows, rank)),
            "up": _kaiming(key("up"), (rank, columns)),
        }

    def low_rank(inputs_down: jax.Array, leaves: Leaves) -> jax.Array:
        up = leaves["up"][:, : len(leaves["b"])]
        return (inputs_down * leaves["d"][None]) @ up * leaves["b"][None]

    def weigh(weight: Weight, leaves: Leaves, sign: int = 1) -> Weight:
        down = leaves["down"][: len(weight["kernel"])]
        return {"kernel": weight["kernel"] + sign * low_rank(down, leaves)}

    def beside(inputs: jax.Array, leaves: Leaves) -> jax.Array:
        flat = inputs.reshape(-1, inputs.shape[-1])
        added = low_rank(flat @ leaves["down"][: flat.shape[-1]], leaves)
        return added.reshape(*inputs.shape[:-1], -1)

    def factors(leaves: Leaves, rows: int) -> Factors:
        up = leaves["up"][:, : len(leaves["b"])] * leaves["b"][None]
        return Factors(leaves["down"][:rows] * leaves["d"][None], up, 1.0)

    def columns(leaves: Leaves, size: int) -> int:
        return len(leaves["b"])

    unweigh = functools.partial(weigh, sign=-1)
    family = Family(
        start,
        columns,
        weigh,
        unweigh,
        beside,
        shared=shared,
        constants=("down", "up"),
        factors=factors,
    )
    return on_kernels(model, targets, family, name, dropout)


def _kaiming(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    bound = math.sqrt(6 / shape[0])
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
