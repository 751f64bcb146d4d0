"""CORAL without a target: features whose covariances agree in all domains."""

import optax

from jaxtl.losses import coral as distance_of_covariances
from jaxtl.losses import supervised
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features
from jaxtl.methods.generalize.pairs import mean_of_pairs
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def coral(tx: optax.GradientTransformation | Groups, *, weight: Weight = 1.0) -> Method:
    """The supervised objective + weight * the mean over pairs of domains of `losses.coral`.

    Of the features before the heads, as in DomainBed, which takes the mean of the squared gaps of
    the covariances, 4 times as much, and adds that of the means. It is small for wide features:
    the paper chooses the weight so that both terms end about equal.

    Sun & Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", 2016.
    arXiv:1607.01719; for sources alone Gulrajani & Lopez-Paz, 2021, arXiv:2007.01434.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        distance = mean_of_pairs(distance_of_covariances, flat_features(output), batch)
        task, _ = supervised(model.heads, output["logits"], batch)
        loss = task + at_step(weight, step) * distance
        return loss, (state, {"task_loss": task, "coral": distance})

    return one_update(as_groups(tx), loss_fn, per_example=False)
