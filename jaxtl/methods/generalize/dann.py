"""Domain-adversarial training without a target: features that do not tell the sources apart."""

import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.adversary import (
    DISCRIMINATOR,
    domain_classifier,
    domain_confusion_loss,
    domain_index,
)
from jaxtl.methods.adapt.sides import Weight, as_rows, at_step, flat_features
from jaxtl.methods.generalize.risks import check_sources
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method, Module


def dann(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight,
    weight: Weight = 1.0,
    discriminator: Module | None = None,
) -> Method:
    """The supervised objective + weight * the loss of a domain classifier behind a reversal.

    As `adapt.dann`, with the sources for classes of the classifier; any number of heads.

    Args:
        reversal: coefficient >= 0 of the gradient, or step -> coefficient, such as
            `losses.reversal_schedule(num_steps)`.
        discriminator: features [..., features] -> [..., domains]; by default one hidden layer of
            100.

    Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016. arXiv:1505.07818.
    """
    network = domain_classifier(discriminator, (100,))

    def loss_fn(model, params, state, batch, rng, step):
        check_sources(batch)
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        examples = as_rows((flat_features(output), domain_index(batch), batch.present))
        confusion, metrics = domain_confusion_loss(
            network, params[DISCRIMINATOR], *examples, at_step(reversal, step)
        )
        loss = task + at_step(weight, step) * confusion
        return loss, (state, {"task_loss": task, **metrics})

    modules = {DISCRIMINATOR: network}
    return one_update(as_groups(tx), loss_fn, per_example=True, modules=modules)
