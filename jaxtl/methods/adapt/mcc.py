"""Minimum class confusion: predictions on the target that do not hesitate between classes."""

import optax

from jaxtl.losses import class_confusion, supervised
from jaxtl.methods.adapt.sides import Weight, at_step, head_of, target_rows
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def mcc(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 1.0,
    temperature: float = 2.5,
) -> Method:
    """The supervised objective + weight * the class confusion of the target's predictions.

    Args:
        temperature: divides the logits; 2.5 in the paper's experiments.

    Jin et al., "Minimum Class Confusion for Versatile Domain Adaptation", ECCV 2020.
    arXiv:1912.03699.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        logits = output["logits"][head_of(batch)]
        logits, present = target_rows((logits, batch.present), batch)
        confusion = class_confusion(logits, present, temperature=temperature)
        loss = task + at_step(weight, step) * confusion
        return loss, (state, {"task_loss": task, "class_confusion": confusion})

    return one_update(as_groups(tx), loss_fn, per_example=False)
