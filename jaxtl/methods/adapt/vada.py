"""VADA: an adversary for the domains, and decision boundaries away from the target's examples."""

import jax
import optax

from jaxtl.losses import supervised, virtual_adversarial
from jaxtl.methods.adapt.adversary import (
    DISCRIMINATOR,
    domain_classifier,
    domain_confusion_loss,
    domain_index,
)
from jaxtl.methods.adapt.sides import (
    Weight,
    at_step,
    flat_features,
    head_of,
    mean_entropy,
    rows_by_side,
    sources_first,
    target_rows,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method, Module


def vada(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight = 1.0,
    domain_weight: float = 0.01,
    source_weight: float = 1.0,
    target_weight: float = 0.01,
    radius: float = 3.5,
    discriminator: Module | None = None,
) -> Method:
    """The supervised objective + an adversary + conditional entropy + smoothness.

    Adds domain_weight * the term of `dann`, source_weight * `virtual_adversarial` of the sources,
    and target_weight * (that of the targets + the entropy of their predictions). The paper's
    adversary trains in steps of its own, here behind a reversal of the gradient, whose coefficient
    grows by default not at all. Its images are normalised each by itself, which is up to the model
    here. The model that the paper evaluates is an average of what trains: `Method.ema`.

    Args:
        domain_weight: the paper's lambda_d.
        source_weight: its lambda_s, 0 or 1 there.
        target_weight: its lambda_t.
        radius: of the perturbations, in the units of the inputs.
        discriminator: as in `dann`.

    Shu et al., "A DIRT-T Approach to Unsupervised Domain Adaptation", ICLR 2018. arXiv:1802.08735,
    Eq. 8.
    """
    network = domain_classifier(discriminator, (100,))

    def loss_fn(model, params, state, batch, rng, step):
        statistics, head = state.statistics, head_of(batch)
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        examples = (flat_features(output), domain_index(batch), batch.present)
        confusion, metrics = domain_confusion_loss(
            network, params[DISCRIMINATOR], *sources_first(examples, batch), at_step(reversal, step)
        )

        def predict(inputs: jax.Array) -> jax.Array:
            output, _ = model.apply(params, statistics, inputs, rng=rng, train=True)
            return output["logits"][head]

        logits = output["logits"][head]
        keys = jax.random.split(jax.random.fold_in(rng, 1))
        source, target = rows_by_side((batch.inputs, logits, batch.present), batch)
        source_smoothness = virtual_adversarial(predict, keys[0], *source, radius=radius)
        target_smoothness = virtual_adversarial(predict, keys[1], *target, radius=radius)
        target_entropy = mean_entropy(*target_rows((logits, batch.present), batch))
        loss = task + at_step(domain_weight, step) * confusion
        loss += source_weight * source_smoothness
        loss += target_weight * (target_smoothness + target_entropy)
        metrics |= {
            "task_loss": task,
            "source_smoothness": source_smoothness,
            "target_smoothness": target_smoothness,
            "target_entropy": target_entropy,
        }
        return loss, (state, metrics)

    modules = {DISCRIMINATOR: network}
    return one_update(as_groups(tx), loss_fn, per_example=True, modules=modules)
