"""LoRA+: the two matrices of an adapter with learning rates of their own."""

import optax

from jaxtl.methods.transfer.fine_tuning import grouped
from jaxtl.plan import Method


def lora_plus(
    tx: optax.GradientTransformation,
    *,
    ratio: float = 16.0,
    name: str = "lora",
    others: tuple[str, ...] = ("heads/.*",),
) -> Method:
    """LoRA whose B learns `ratio` times as fast as its A; Section 4.

    Args:
        tx: of A and the others. The updates of B are those of the same transformation times the
            ratio: of its learning rate, for whatever is linear in it.
        ratio: of the learning rates; the paper's advice is 16.
        name: the adapter's.
        others: path patterns of what else trains, like A.

    Hayou et al., "LoRA+: Efficient Low Rank Adaptation of Large Models", 2024. arXiv:2402.12354.
    """
    faster = optax.chain(tx, optax.scale(ratio))
    return grouped({"b": ((f"{name}/.*/b",), faster), "all": ((f"{name}/.*", *others), tx)})
