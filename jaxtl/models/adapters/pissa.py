"""PiSSA: LoRA that starts from the principal components of the loaded kernels.

Meng et al., "PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language
Models", 2024. arXiv:2404.02948.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.models.adapter import Factors
from jaxtl.models.adapters.family import Kernel, Leaves, additive, rank_problem
from jaxtl.models.adapters.kernels import on_kernels
from jaxtl.models.adapters.lora import start_low_rank
from jaxtl.plan import Model


def pissa(model: Model, targets: Sequence[str], rank: int = 8, name: str = "pissa") -> Model:
    """(W - A_0 B_0) + A B, where A = A_0 = U sqrt(S), B = B_0 = sqrt(S) V' at the start; Eq. 2-4.

    U S V' are the first `rank` components of W once it is loaded, in float64. The paper keeps
    W - A_0 B_0 in the place of W; here W stays as it was loaded and A_0, B_0 are kept, as
    `<name>/<layer>/{start_a,start_b}`: the function and its gradients are the same, and the adapter
    can be taken from one copy of W to another. Only a and b train: rank * (rows + columns)
    parameters a kernel.
    """

    def start(kernel: Kernel, matrix: jax.Array, key: Callable) -> Leaves:
        leaves = start_low_rank(matrix, rank, key)
        return {**leaves, "start_a": leaves["a"], "start_b": leaves["b"]}

    def delta(leaves: Leaves) -> jax.Array:
        return leaves["a"] @ leaves["b"] - leaves["start_a"] @ leaves["start_b"]

    def beside(inputs: jax.Array, leaves: Leaves) -> jax.Array:
        added = (inputs @ leaves["a"]) @ leaves["b"]
        return added - (inputs @ leaves["start_a"]) @ leaves["start_b"]

    def solve(matrix: np.ndarray) -> dict[str, np.ndarray]:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        root = np.sqrt(values[:rank])
        a, b = left[:, :rank] * root, root[:, None] * right[:rank]
        return {"a": a, "b": b, "start_a": a, "start_b": b}

    def factors(leaves: Leaves, rows: int) -> Factors:
        down = jnp.concatenate([leaves["a"], leaves["start_a"]], axis=1)
        return Factors(down, jnp.concatenate([leaves["b"], -leaves["start_b"]]), 1.0)

    family = additive(
        start,
        delta,
        beside,
        "b",
        problem=rank_problem(rank),
        solve=solve,
        solves=("a", "b", "start_a", "start_b"),
        constants=("start_a", "start_b"),
        factors=factors,
    )
    return on_kernels(model, targets, family, name)
