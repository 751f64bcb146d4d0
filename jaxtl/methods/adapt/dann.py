"""Domain-adversarial training: features that a domain classifier cannot tell apart."""

import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.adversary import (
    DISCRIMINATOR,
    domain_classifier,
    domain_confusion_loss,
    domain_index,
)
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features, sources_first
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

    Each domain of the stage is a class of the classifier. Its softmax cross-entropy is the mean
    over the examples of all domains; with two domains it is the paper's binary one, the mean of
    source and target. Example weights count in it, so that a domain whose weights have another
    mean than 1 counts as so much larger.

    Args:
        reversal: the paper's lambda_p >= 0, such as `losses.reversal_schedule`.
        discriminator: features [..., features] -> [..., domains]; by default one hidden layer of
            100, the paper's for small images.

    Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016. arXiv:1505.07818,
    Eq. 9, 10 and 18.
    """
    network = domain_classifier(discriminator, (100,))

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        examples = (flat_features(output), domain_index(batch), batch.present)
        confusion, metrics = domain_confusion_loss(
            network, params[DISCRIMINATOR], *sources_first(examples, batch), at_step(reversal, step)
        )
        loss = task + at_step(weight, step) * confusion
        return loss, (state, {"task_loss": task, **metrics})

    modules = {DISCRIMINATOR: network}
    return one_update(as_groups(tx), loss_fn, per_example=True, modules=modules)
