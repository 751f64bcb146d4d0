"""TENT: norms that make the predictions on the target sure, and nothing else."""

import dataclasses
from collections.abc import Sequence

import jax
import optax

from jaxtl.losses import entropy
from jaxtl.methods.adapt.pseudo_labels import pooled
from jaxtl.methods.adapt.sides import as_rows
from jaxtl.methods.transfer.selective import norm_tuning
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Method, Model, Params, State, Update


def tent(
    tx: optax.GradientTransformation,
    *,
    norms: Sequence[str] = (r"backbone/(.*/)?norm\w*/(scale|bias)",),
) -> Method:
    """The entropy of the predictions, minimised over scales and shifts of norms.

    For a stage of unlabelled domains that starts from a source model; BatchNorm normalises by the
    batch. The paper adapts while it predicts, with the statistics of each test batch. This is a
    stage: it goes over the target's training data, and what is evaluated is the model it ends
    with, on the running statistics that were left there.

    Args:
        tx: optax transformation of the scales and shifts.
        norms: their path patterns.

    Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021.
    arXiv:2006.10726.
    """

    def loss_fn(model: Model, params: Params, state: State, batch: Batch, rng, step: jax.Array):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        present = as_rows(batch.present)
        loss = present.mean() * entropy(pooled(output, batch)[1], present)
        return loss, (state, {"entropy": loss})

    updates = (Update(loss_fn, per_example=True),)
    return dataclasses.replace(norm_tuning(tx, norms=norms, heads=()), updates=updates)
