"""Batch spectral penalisation: transferable features without a few dominant directions."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import largest_singular_values, supervised
from jaxtl.methods.adapt.adversary import (
    DISCRIMINATOR,
    domain_classifier,
    domain_confusion_loss,
    domain_index,
)
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features, rows_by_side
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method, Module


def bsp(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight,
    weight: Weight = 2e-4,
    count: int = 1,
    domain_weight: Weight = 1.0,
    discriminator: Module | None = None,
) -> Method:
    """`dann` + weight * the largest squared singular values of the features of each side.

    Args:
        reversal, discriminator: as in `dann`.
        weight: the paper's beta.
        count: how many singular values of the source's and of the target's features, the paper's
            k = 1.
        domain_weight: factor of the domain classifier's loss.

    Chen et al., "Transferability vs. Discriminability: Batch Spectral Penalization for Adversarial
    Domain Adaptation", ICML 2019.
    """
    network = domain_classifier(discriminator, (100,))

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        examples = (flat_features(output), domain_index(batch), batch.present)
        sides = rows_by_side(examples, batch)
        examples = jax.tree.map(lambda *rows: jnp.concatenate(rows), *sides)
        confusion, metrics = domain_confusion_loss(
            network, params[DISCRIMINATOR], *examples, at_step(reversal, step)
        )
        spectral = sum(
            largest_singular_values(features, present, count=count)
            for features, _, present in sides
        )
        adversarial = at_step(domain_weight, step) * confusion
        loss = task + (adversarial + at_step(weight, step) * spectral)
        return loss, (state, {"task_loss": task, **metrics, "spectral_loss": spectral})

    modules = {DISCRIMINATOR: network}
    return one_update(as_groups(tx), loss_fn, per_example=False, modules=modules)
