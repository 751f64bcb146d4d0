"""Deep subdomain adaptation: the features of each class agree across domains."""

import jax
import optax

from jaxtl.losses import local_mmd, supervised
from jaxtl.losses.kernels import MEAN_BANDWIDTHS, Bandwidths
from jaxtl.methods.adapt.sides import (
    Weight,
    at_step,
    flat_features,
    head_of,
    labelled_weights,
    rows_by_side,
    source_rows,
    target_rows,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


def dsan(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight,
    bandwidths: Bandwidths = MEAN_BANDWIDTHS,
) -> Method:
    """The supervised objective + weight * the local MMD of the features, class by class.

    A source example belongs to the class of its label, or to none; a target example to each class
    with its predicted probability. As in the authors' code these are constants of the gradient.

    Args:
        weight: in the paper 0.5 times a rise from 0 to 1,
            `losses.reversal_schedule(num_steps, high=0.5)`.
        bandwidths: of the Gaussian kernels, as in `losses.mmd`.

    Zhu et al., "Deep Subdomain Adaptation Network for Image Classification", TNNLS 2021.
    arXiv:2106.09388.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        head = head_of(batch)
        logits = target_rows(output["logits"][head], batch)
        distance = local_mmd(
            *rows_by_side(flat_features(output), batch),
            jax.nn.one_hot(source_rows(batch.labels[head], batch), logits.shape[-1]),
            jax.nn.softmax(jax.lax.stop_gradient(logits)),
            source_rows(labelled_weights(batch), batch),
            target_rows(batch.present, batch),
            bandwidths=bandwidths,
        )
        loss = task + at_step(weight, step) * distance
        return loss, (state, {"task_loss": task, "local_mmd": distance})

    return one_update(as_groups(tx), loss_fn, per_example=False)
