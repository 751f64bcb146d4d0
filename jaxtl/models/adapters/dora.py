"""DoRA: the magnitudes of a kernel's columns and their directions trained apart.

Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024. arXiv:2402.09353.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.models.adapter import Factors
from jaxtl.models.adapters.family import Family, Kernel, Leaves, Weight, rank_problem
from jaxtl.models.adapters.kernels import on_kernels
from jaxtl.models.adapters.lora import start_low_rank
from jaxtl.plan import Model


def dora(
    model: Model, targets: Sequence[str], rank: int = 8, alpha: float = 8.0, name: str = "dora"
) -> Model:
    """m V / |V| with V = W + (alpha / rank) A B and |.| the norm of each column; Eq. 5.

    A column belongs to one output. The norm is a constant in the backward pass (Section 4.3). The
    magnitudes m [columns] start as the norms of the columns of W once it is loaded, so that the
    model starts as it was. A kernel has rank * (rows + columns) + columns new parameters,
    `<name>/<layer>/{a,b,magnitude}`. Always in weight space, so there is no dropout. Merged
    parameters cannot be unmerged: the norm |V| is lost.
    """
    scale = alpha / rank

    def start(kernel: Kernel, matrix: jax.Array, key: Callable) -> Leaves:
        magnitude = jnp.linalg.norm(matrix, axis=0)
        return {**start_low_rank(matrix, rank, key), "magnitude": magnitude}

    def weigh(weight: Weight, leaves: Leaves) -> Weight:
        moved = weight["kernel"] + scale * (leaves["a"] @ leaves["b"])
        norms = jnp.linalg.norm(moved.astype(jnp.float32), axis=0)
        # A column of zeros has magnitude 0 and stays.
        norms = jnp.maximum(jax.lax.stop_gradient(norms), jnp.finfo(jnp.float32).tiny)
        return {"kernel": moved * (leaves["magnitude"] / norms)[None]}

    def solve(matrix: np.ndarray) -> dict[str, np.ndarray]:
        return {"magnitude": np.linalg.norm(matrix, axis=0)}

    def columns(leaves: Leaves, size: int) -> int:
        return leaves["b"].shape[-1]

    family = Family(
        start,
        columns,
        weigh,
        None,
        problem=rank_problem(rank),
        solve=solve,
        solves=("magnitude",),
        factors=lambda leaves, rows: Factors(leaves["a"], leaves["b"], scale, leaves["magnitude"]),
    )
    return on_kernels(model, targets, family, name)
