"""PiSSA: LoRA that starts from the principal components of the loaded kernels.

Meng et al., "PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language
Models", 2024. arXiv:2404.02948.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl import paths
from jaxtl.models.adapters.attach import leaves_of
from jaxtl.models.adapters.kernels import (
    Kernel,
    Leaves,
    additive,
    matrix_of,
    on_kernels,
    rank_problem,
)
from jaxtl.models.adapters.lora import start_low_rank
from jaxtl.plan import Model, Params


def pissa(model: Model, targets: Sequence[str], rank: int = 8, name: str = "pissa") -> Model:
    """(W - A_0 B_0) + A B, where A = A_0 = U sqrt(S), B = B_0 = sqrt(S) V' at the start; Eq. 2-4.

    U S V' are the first `rank` components of W once it is loaded, in float64. The paper keeps
    W - A_0 B_0 in the place of W; here W stays as it was loaded and A_0, B_0 are kept, as
    `<name>/<layer>/{start_a,start_b}`: the function and its gradients are the same, and the adapter
    can be taken from one copy of W to another. Only `<name>/.*/(a|b)` trains: rank * (rows +
    columns) parameters a kernel.

    Args:
        model, targets, name: as in `lora`.
        rank: of A B.
    """

    def start(kernel: Kernel, matrix: jax.Array, key: Callable) -> Leaves:
        own = start_low_rank(matrix, rank, key)
        return {**own, "start_a": own["a"], "start_b": own["b"]}

    def delta(leaves: Leaves) -> jax.Array:
        return leaves["a"] @ leaves["b"] - leaves["start_a"] @ leaves["start_b"]

    def beside(inputs: jax.Array, leaves: Leaves) -> jax.Array:
        now = (inputs @ leaves["a"]) @ leaves["b"]
        return now - (inputs @ leaves["start_a"]) @ leaves["start_b"]

    def after_loading(params: Params) -> Params:
        flat = paths.flatten(params)
        for layer, own in leaves_of(model.blocks, params, name).items():
            matrix = matrix_of(params, layer, own["b"].shape[-1])
            left, values, right = np.linalg.svd(np.float64(matrix), full_matrices=False)
            root = np.sqrt(values[:rank])
            a, b = left[:, :rank] * root, root[:, None] * right[:rank]
            new = {"a": a, "b": b, "start_a": a, "start_b": b}
            flat |= {f"{name}/{layer}/{p}": jnp.asarray(v, own[p].dtype) for p, v in new.items()}
        return paths.nest(flat)

    family = additive(start, delta, beside, "b", problem=rank_problem(rank))
    solves = (f"{name}/.*",)
    return on_kernels(model, targets, family, name, after_loading=after_loading, solves=solves)
