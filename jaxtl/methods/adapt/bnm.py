"""Batch nuclear-norm maximisation: predictions on the target that are sure and diverse."""

import optax

from jaxtl.losses import batch_nuclear_norm, supervised
from jaxtl.methods.adapt.sides import Weight, at_step, head_of, target_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def bnm(tx: optax.GradientTransformation | Groups, *, weight: Weight = 1.0) -> Method:
    """The supervised objective - weight * the nuclear norm of the target's predictions.

    The norm of the matrix [n, classes] of probabilities is divided by n; the metric
    `nuclear_norm_loss` is minus that.

    Cui et al., "Towards Discriminability and Diversity: Batch Nuclear-norm Maximization under
    Label Insufficient Situations", CVPR 2020. arXiv:2003.12237.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        logits = output["logits"][head_of(batch)]
        minus_norm = batch_nuclear_norm(*target_rows((logits, batch.present), batch))
        loss = task + at_step(weight, step) * minus_norm
        return loss, (state, {"task_loss": task, "nuclear_norm_loss": minus_norm})

    return one_update(as_groups(tx), loss_fn, per_example=False)
