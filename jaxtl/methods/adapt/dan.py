"""Deep adaptation networks: features whose kernel mean embeddings agree."""

import optax

from jaxtl.losses import mmd, supervised
from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features, rows_by_side
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def dan(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 1.0,
    bandwidths: Bandwidths = MEAN_BANDWIDTHS,
    unbiased: bool = False,
) -> Method:
    """The supervised objective + weight * the squared MMD of the features with several kernels.

    Of the last features only, where the paper sums over three layers; the kernels weigh alike,
    where it learns their weights; and the quadratic estimate, where it takes the linear one.

    Args:
        weight: the paper's lambda.
        bandwidths: [k] of the Gaussian kernels, or a rule, as in `losses.mmd`.
        unbiased: the U-statistic, which can be negative.

    Long et al., "Learning Transferable Features with Deep Adaptation Networks", ICML 2015.
    arXiv:1502.02791.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        features = rows_by_side(flat_features(output), batch)
        present = rows_by_side(batch.present, batch)
        distance = mmd(*features, *present, bandwidths=bandwidths, unbiased=unbiased)
        loss = task + at_step(weight, step) * distance
        return loss, (state, {"task_loss": task, "mmd": distance})

    return one_update(as_groups(tx), loss_fn, per_example=False)
