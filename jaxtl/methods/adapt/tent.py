"""TENT: norms that make the predictions on the target sure, and nothing else."""

import dataclasses
from collections.abc import Sequence

import optax

from jaxtl.methods.adapt.sides import as_rows, head_of, mean_entropy
from jaxtl.methods.transfer.selective import norm_tuning
from jaxtl.models import apply_flat
from jaxtl.plan import Method, Update


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
        tx: of the scales and shifts.
        norms: their path patterns.

    Wang et al., "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021.
    arXiv:2006.10726.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        loss = mean_entropy(*as_rows((output["logits"][head_of(batch)], batch.present)))
        return loss, (state, {"entropy": loss})

    updates = (Update(loss_fn, per_example=True),)
    return dataclasses.replace(norm_tuning(tx, norms=norms, heads=()), updates=updates)
