"""AdaLoRA: low-rank matrices whose rank is spent where it matters.

Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", 2023.
arXiv:2303.10512. `transfer.adalora` trains it: on a budget of rank, and with a regulariser.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxtl import paths
from jaxtl.models.adapter import Factors
from jaxtl.models.adapters.family import Kernel, Leaves, additive, rank_problem
from jaxtl.models.adapters.kernels import on_kernels
from jaxtl.plan import Model, Params

TRIPLET = ("p", "values", "q")


def adalora(
    model: Model,
    targets: Sequence[str],
    rank: int = 12,
    alpha: float = 8.0,
    dropout: float = 0.0,
    name: str = "adalora",
) -> Model:
    """W + (alpha / rank) P diag(values) Q; Eq. 3.

    P [rows, rank] and Q [rank, columns] start as N(0, 0.02^2) and the values as 0 (as in the
    authors' code), so that the model starts as it was. A kernel has rank * (rows + columns + 1) new
    parameters, `<name>/<layer>/{p,values,q}`.

    Args:
        rank: of every kernel before the budget shrinks; the scale stays alpha / rank.
    """
    scale = alpha / rank

    def start(kernel: Kernel, matrix: jax.Array, key: Callable) -> Leaves:
        shapes = {"p": (kernel.rows, rank), "q": (rank, kernel.columns)}
        leaves = {
            leaf: 0.02 * jax.random.normal(key(leaf), shape, matrix.dtype)
            for leaf, shape in shapes.items()
        }
        return {**leaves, "values": jnp.zeros(rank, matrix.dtype)}

    def delta(leaves: Leaves) -> jax.Array:
        return (leaves["p"] * (scale * leaves["values"])[None]) @ leaves["q"]

    def beside(inputs: jax.Array, leaves: Leaves) -> jax.Array:
        inside = inputs @ leaves["p"]
        values = (scale * leaves["values"]).reshape((1,) * (inside.ndim - 1) + (-1,))
        return (inside * values) @ leaves["q"]

    def factors(leaves: Leaves, rows: int) -> Factors:
        return Factors(leaves["p"], leaves["values"][:, None] * leaves["q"], scale)

    family = additive(start, delta, beside, "q", problem=rank_problem(rank), factors=factors)
    return on_kernels(model, targets, family, name, dropout)


def triplets(params: Params) -> list[str]:
    """Paths under which P, the values and Q of a kernel stand, sorted."""
    flat = paths.flatten(params)
    layers = {path.removesuffix("/values") for path in flat if path.endswith("/values")}
    return sorted(layer for layer in layers if all(f"{layer}/{leaf}" in flat for leaf in TRIPLET))


def orthogonality(params: Params) -> jax.Array:
    """Sum over the kernels of |P'P - I|^2 + |QQ' - I|^2, squared Frobenius norms; Eq. 4.

    The authors' code takes the mean of the norms, not squared.

    Args:
        params: with the leaves of AdaLoRA adapters anywhere.

    Returns:
        [] float >= 0.
    """
    flat, total = paths.flatten(params), jnp.zeros(())
    for layer in triplets(params):
        p, q = flat[f"{layer}/p"], flat[f"{layer}/q"]
        for gram in (p.T @ p, q @ q.T):
            total += jnp.sum((gram - jnp.eye(len(gram), dtype=gram.dtype)) ** 2)
    return total
