"""Entropy minimisation: sure predictions on the target."""

import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.sides import Weight, at_step, head_of, mean_entropy, target_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def entropy_minimization(
    tx: optax.GradientTransformation | Groups, *, weight: Weight = 0.1
) -> Method:
    """The supervised objective + weight * the mean entropy of the target's predictions.

    Args:
        weight: the paper searches it per problem.

    Grandvalet & Bengio, "Semi-supervised Learning by Entropy Minimization", NeurIPS 2004.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        logits = output["logits"][head_of(batch)]
        target_entropy = mean_entropy(*target_rows((logits, batch.present), batch))
        loss = task + at_step(weight, step) * target_entropy
        return loss, (state, {"task_loss": task, "entropy": target_entropy})

    return one_update(as_groups(tx), loss_fn, per_example=True)
