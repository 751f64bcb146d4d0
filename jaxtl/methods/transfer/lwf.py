"""Learning without forgetting: new labels, and on the new inputs the old heads' old answers."""

from collections.abc import Sequence

import optax

from jaxtl.methods.transfer.distillation import distill
from jaxtl.plan import Method


def lwf(
    tx: optax.GradientTransformation,
    *,
    heads: Sequence[str],
    strength: float = 4.0,
    temperature: float = 3.0,
    trainable: Sequence[str] = (".*",),
) -> Method:
    """The supervised objective + strength * T^2 KL of the old heads' outputs from their old ones.

    The paper records the old outputs for all new inputs before training. Here the parameters of
    that moment are kept and give the same outputs when they are needed, for augmented inputs too.
    In the paper T is 2, the strength 1, there is no factor T^2, old heads train too (here if a
    domain names them), and a probe of the new head comes first (`linear_probe_then_fine_tune`).
    Where tasks share a head, old answers and new labels of one example contradict each other.

    Args:
        heads: the old heads, of classes; where tasks share a head, that one.
        strength: factor of the distillation, the paper's lambda_o.
        temperature: T > 0.

    Raises:
        ValueError: as `distill`.

    Li & Hoiem, "Learning without Forgetting", ECCV 2016. arXiv:1606.09282.
    """
    return distill(tx, heads=heads, weight=strength, temperature=temperature, trainable=trainable)
