"""Deep CORAL: outputs, or features, whose covariances agree."""

import optax

from jaxtl.losses import coral, supervised
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features, head_of, rows_by_side
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def deep_coral(tx: optax.GradientTransformation | Groups, *, weight: Weight = 1.0) -> Method:
    """The supervised objective + weight * the distance of the covariances of the logits.

    The logits are the layer that the paper aligns; `deep_coral_features` aligns what comes before.
    A target with few examples a batch wants a batch larger than its classes.

    Args:
        weight: the paper chooses it so that both terms end about equal.

    Sun & Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", 2016.
    arXiv:1607.01719, Eq. 1 and 6.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        logits = rows_by_side(output["logits"][head_of(batch)], batch)
        distance = coral(*logits, *rows_by_side(batch.present, batch))
        loss = task + at_step(weight, step) * distance
        return loss, (state, {"task_loss": task, "coral": distance})

    return one_update(as_groups(tx), loss_fn, per_example=False)


def deep_coral_features(
    tx: optax.GradientTransformation | Groups, *, weight: Weight = 1.0
) -> Method:
    """`deep_coral` of the features before the head, which most public code aligns."""

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        features = rows_by_side(flat_features(output), batch)
        distance = coral(*features, *rows_by_side(batch.present, batch))
        loss = task + at_step(weight, step) * distance
        return loss, (state, {"task_loss": task, "coral": distance})

    return one_update(as_groups(tx), loss_fn, per_example=False)
