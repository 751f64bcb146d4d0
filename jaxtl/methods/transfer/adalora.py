"""AdaLoRA: an adapter whose triplets compete for a budget of rank, with nearly orthogonal factors.

tuned = adapters.adalora(model, targets)
method = transfer.adalora(tx, num_steps)
Stage("adalora", tuned, method, num_steps=num_steps, fresh=("adalora/.*",), ...)
"""

from collections.abc import Sequence

import optax

from jaxtl.losses import supervised
from jaxtl.methods.transfer.fine_tuning import one_update
from jaxtl.methods.transfer.rank_budget import rank_budget
from jaxtl.models import apply_flat
from jaxtl.models.adapters import orthogonality
from jaxtl.plan import Method


def adalora(
    tx: optax.GradientTransformation,
    num_steps: int,
    *,
    weight: float = 0.5,
    target_rank: float = 8,
    warm_up: int = 0,
    cool_down: int = 0,
    every: int = 1,
    sensitivity_decay: float = 0.85,
    uncertainty_decay: float = 0.85,
    name: str = "adalora",
    others: Sequence[str] = ("heads/.*",),
) -> Method:
    """The supervised objective + weight * `adapters.orthogonality(params)` on a shrinking budget.

    Args:
        num_steps: of the stage.
        weight: the paper's gamma, Eq. 4.
        target_rank, warm_up, cool_down, every, sensitivity_decay, uncertainty_decay: as in
            `rank_budget`.
        name: the adapter's.
        others: path patterns of what else trains.

    Raises:
        ValueError: as `rank_budget`.

    Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", 2023.
    arXiv:2303.10512.
    """
    budgeted = rank_budget(
        tx,
        num_steps,
        target_rank=target_rank,
        warm_up=warm_up,
        cool_down=cool_down,
        every=every,
        sensitivity_decay=sensitivity_decay,
        uncertainty_decay=uncertainty_decay,
    )

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], batch)
        penalty = orthogonality(params)
        return loss + weight * penalty, (state, {**metrics, "orthogonality": penalty})

    return one_update({"all": ((f"{name}/.*", *others), budgeted)}, loss_fn, per_example=True)
