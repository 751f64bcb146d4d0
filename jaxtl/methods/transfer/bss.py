"""Batch spectral shrinkage: features without directions that hardly carry anything."""

from collections.abc import Mapping

import optax

from jaxtl.losses import smallest_singular_values, supervised
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def bss(
    tx: optax.GradientTransformation | Groups,
    *,
    penalty: float = 1e-3,
    count: int = 1,
    lambdas: Mapping[str, float] | None = None,
) -> Method:
    """Fine-tuning that suppresses the smallest singular values of each batch of features.

    Adds penalty * the sum of the `count` smallest squared singular values of the matrix of the
    features of all domains, [batch * domains, features]; labels do not matter for it. Where
    examples repeat in a batch or features are dead, the rank is below min(batch * domains,
    features): that many of the smallest are 0 already, and only a larger `count` has an effect.

    Args:
        penalty: the paper's eta >= 0.
        count: the paper's k, at most min(batch * domains, features).

    Chen et al., "Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage for
    Safe Transfer Learning", NeurIPS 2019.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss, metrics = supervised(model.heads, output["logits"], batch, lambdas)
        features = output["features"]
        spectral = smallest_singular_values(features.reshape(-1, features.shape[-1]), count=count)
        return loss + penalty * spectral, (state, {**metrics, "smallest_singular": spectral})

    return one_update(as_groups(tx), loss_fn, per_example=False)
