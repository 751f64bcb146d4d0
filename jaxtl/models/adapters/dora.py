"""DoRA: the magnitudes of a kernel's columns and their directions trained apart.

Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024. arXiv:2402.09353.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl import paths
from jaxtl.models.adapters.attach import leaves_of
from jaxtl.models.adapters.kernels import (
    Family,
    Kernel,
    Leaves,
    Weight,
    matrix_of,
    on_kernels,
    rank_problem,
)
from jaxtl.models.adapters.lora import start_low_rank
from jaxtl.plan import Model, Params


def dora(
    model: Model, targets: Sequence[str], rank: int = 8, alpha: float = 8.0, name: str = "dora"
) -> Model:
    """m V / |V| with V = W + (alpha / rank) A B and |.| the norm of each column; Eq. 5.

    A column belongs to one output. The norm is a constant in the backward pass (Section 4.3). The
    magnitudes m [columns] start as the norms of the columns of W once it is loaded, so that the
    model starts as it was. A kernel has rank * (rows + columns) + columns new parameters,
    `<name>/<layer>/{a,b,magnitude}`. Always in weight space, so there is no dropout. Merged
    parameters cannot be unmerged: the norm |V| is lost.

    Args:
        model, targets, rank, alpha, name: as in `lora`.
    """
    scale = alpha / rank

    def start(kernel: Kernel, matrix: jax.Array, key: Callable) -> Leaves:
        own = start_low_rank(matrix, rank, key)
        return {**own, "magnitude": jnp.linalg.norm(matrix, axis=0)}

    def weigh(weight: Weight, leaves: Leaves) -> Weight:
        moved = weight["kernel"] + scale * (leaves["a"] @ leaves["b"])
        norms = jnp.linalg.norm(moved.astype(jnp.float32), axis=0)
        # A column of zeros has magnitude 0 and stays.
        norms = jnp.maximum(jax.lax.stop_gradient(norms), jnp.finfo(jnp.float32).tiny)
        return {"kernel": moved * (leaves["magnitude"] / norms)[None]}

    def after_loading(params: Params) -> Params:
        flat = paths.flatten(params)
        for layer, own in leaves_of(model.blocks, params, name).items():
            matrix = matrix_of(params, layer, own["b"].shape[-1])
            norms = np.linalg.norm(np.float64(matrix), axis=0)
            flat[f"{name}/{layer}/magnitude"] = jnp.asarray(norms, own["magnitude"].dtype)
        return paths.nest(flat)

    def columns(leaves: Leaves, size: int) -> int:
        return leaves["b"].shape[-1]

    family = Family(start, columns, weigh, None, problem=rank_problem(rank))
    solves = (f"{name}/.*/magnitude",)
    return on_kernels(model, targets, family, name, after_loading=after_loading, solves=solves)
