"""Margin disparity discrepancy: no second classifier can disagree on the target alone."""

import jax.numpy as jnp
import optax

from jaxtl.losses import margin_disparity, reverse_gradient, supervised
from jaxtl.methods.adapt.adversary import second_classifier
from jaxtl.methods.adapt.sides import (
    Weight,
    at_step,
    flat_features,
    head_of,
    rows_by_side,
    sources_first,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method, Module

ADVERSARY = "adversary"


def mdd(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight,
    weight: Weight = 1.0,
    margin: float = 4.0,
    adversary: Module | None = None,
) -> Method:
    """The supervised objective + weight * the loss of an adversarial classifier behind a reversal.

    The adversary learns to agree with the model's predictions on the source and to disagree on
    the target; the features learn the contrary. The predictions are constants of the gradient.

    Args:
        reversal: in the authors' code a rise to 0.1, `losses.reversal_schedule(num_steps,
            high=0.1)`.
        weight: the paper's eta.
        margin: factor of the loss on the source, the paper's gamma = exp(margin).
        adversary: features [..., features] -> [..., classes]; by default linear, of the kind of
            the model's head. The paper has a hidden layer of 1024 in both.

    Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019.
    arXiv:1904.05801, Section 5.
    """
    network = second_classifier(adversary)

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        coefficient = at_step(reversal, step)
        features = reverse_gradient(sources_first(flat_features(output), batch), coefficient)
        source, target = rows_by_side((output["logits"][head_of(batch)], batch.present), batch)
        (source_logits, source_present), (target_logits, target_present) = source, target
        adversarial = network.apply(params[ADVERSARY], features)
        # The disparity minds proportions within a side only, a mean over examples their sums too.
        source_mean = source_present.mean()
        target_mean = jnp.maximum(target_present.mean(), 1e-12)
        disparity = target_mean * margin_disparity(
            source_logits,
            adversarial[: len(source_logits)],
            target_logits,
            adversarial[len(source_logits) :],
            source_present,
            target_present,
            margin=margin * source_mean / target_mean,
        )
        loss = task + at_step(weight, step) * disparity
        metrics = {"task_loss": task, "disparity_loss": disparity, "reversal": coefficient}
        return loss, (state, metrics)

    modules = {ADVERSARY: network}
    return one_update(as_groups(tx), loss_fn, per_example=True, modules=modules)
