"""LoRA: a low-rank matrix beside each kernel.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022. arXiv:2106.09685.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxtl.models.adapter import Factors
from jaxtl.models.adapters.family import Family, Kernel, Leaves, additive, rank_problem
from jaxtl.models.adapters.kernels import on_kernels
from jaxtl.plan import Model


def lora(
    model: Model,
    targets: Sequence[str],
    rank: int = 8,
    alpha: float = 8.0,
    dropout: float = 0.0,
    name: str = "lora",
) -> Model:
    """W + (alpha / rank) A B for each kernel W [rows, columns]; Section 4.1.

    A [rows, rank] starts as U(-1, 1) / sqrt(rows) (Kaiming, as in the authors' code), B [rank,
    columns] as 0, so that the model starts as it was. A kernel has rank * (rows + columns) new
    parameters, `<name>/<layer>/{a,b}`. Beside `nn.Dense` and `nn.DenseGeneral` x A B is added to
    the outputs and W + A B never made; elsewhere the kernel is changed in weight space, that of a
    convolution as the matrix [height * width * in, out] (in: channels of a group).

    """
    return on_kernels(model, targets, low_rank(rank, alpha / rank), name, dropout)


def rslora(
    model: Model,
    targets: Sequence[str],
    rank: int = 8,
    alpha: float = 8.0,
    dropout: float = 0.0,
    name: str = "lora",
) -> Model:
    """LoRA with the scale alpha / sqrt(rank), whose features keep their size as the rank grows.

    Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023.
    arXiv:2312.03732.
    """
    return on_kernels(model, targets, low_rank(rank, alpha / math.sqrt(rank)), name, dropout)


def low_rank(rank: int, scale: float) -> Family:
    """W + scale A B."""

    def delta(leaves: Leaves) -> jax.Array:
        return leaves["a"] @ (scale * leaves["b"])

    def beside(inputs: jax.Array, leaves: Leaves) -> jax.Array:
        return (inputs @ leaves["a"]) @ (scale * leaves["b"])

    def start(kernel: Kernel, matrix: jax.Array, key: Callable) -> Leaves:
        return start_low_rank(matrix, rank, key)

    def factors(leaves: Leaves, rows: int) -> Factors:
        return Factors(leaves["a"], leaves["b"], scale)

    return additive(start, delta, beside, "b", problem=rank_problem(rank), factors=factors)


def start_low_rank(matrix: jax.Array, rank: int, key: Callable) -> Leaves:
    """A of U(-1, 1) / sqrt(rows) and B of zeros for a matrix [rows, columns]."""
    rows, columns = matrix.shape
    bound = 1 / math.sqrt(rows)
    a = jax.random.uniform(key("a"), (rows, rank), matrix.dtype, -bound, bound)
    return {"a": a, "b": jnp.zeros((rank, columns), matrix.dtype)}
