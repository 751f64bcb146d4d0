"""IWAN: an adversary for the source examples that a first discriminator takes for the target."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.methods.adapt.adversary import (
    DISCRIMINATOR,
    domain_confusion_loss,
    domain_loss,
    is_target,
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
from jaxtl.models import apply_flat, mlp_head
from jaxtl.plan import Method, Module, Params

ESTIMATOR = "estimator"


def iwan(
    tx: optax.GradientTransformation | Groups,
    *,
    reversal: Weight,
    weight: Weight = 1.0,
    entropy_weight: float = 0.1,
    discriminator: Module | None = None,
    estimator: Module | None = None,
) -> Method:
    """The supervised objective + an adversary with weights + the entropy on the target.

    The weight of a source example is the probability of "target" that the estimator, a
    discriminator whose gradient the features do not get, gives it; over the mean of the batch. The
    adversary discriminates the weighted sources from the targets, all of them one domain, behind a
    reversal.

    The paper has two feature extractors, that of the source frozen; here one serves both, as in
    public code. Its discriminators' losses are sums of both sides, here means, half as large.

    Args:
        reversal: as in `dann`.
        entropy_weight: factor of the targets' mean entropy, the paper's gamma.
        discriminator, estimator: features [..., features] -> [..., 2]; by default one hidden layer
            of 100. Class 1 is the target.

    Zhang et al., "Importance Weighted Adversarial Nets for Partial Domain Adaptation", CVPR 2018.
    arXiv:1803.09210, Eq. 6 to 13.
    """
    modules = {
        DISCRIMINATOR: discriminator or mlp_head((100,), 2),
        ESTIMATOR: estimator or mlp_head((100,), 2),
    }

    def target_likeness(params: Params, features: jax.Array, present: jax.Array) -> jax.Array:
        """Probabilities [n] of "target" for features [n, width], over their mean: constants."""
        logits = modules[ESTIMATOR].apply(params[ESTIMATOR], jax.lax.stop_gradient(features))
        likeness = jax.lax.stop_gradient(jax.nn.softmax(logits)[:, 1])
        mean = jnp.sum(present * likeness) / jnp.maximum(present.sum(), 1e-12)
        return likeness / jnp.maximum(mean, 1e-12)

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        examples = (flat_features(output), is_target(batch), batch.present)
        features, domains, present = sources_first(examples, batch)
        constant = jax.lax.stop_gradient(features)
        estimated, _ = domain_loss(
            modules[ESTIMATOR], params[ESTIMATOR], constant, domains, present
        )
        source, target = rows_by_side((flat_features(output), batch.present), batch)
        likeness = jnp.concatenate([target_likeness(params, *source), jnp.ones(len(target[0]))])
        confusion, metrics = domain_confusion_loss(
            modules[DISCRIMINATOR],
            params[DISCRIMINATOR],
            features,
            domains,
            present * likeness,
            at_step(reversal, step),
        )
        logits = output["logits"][head_of(batch)]
        target_entropy = mean_entropy(*target_rows((logits, batch.present), batch))
        adversarial = estimated + at_step(weight, step) * confusion
        loss = task + (adversarial + entropy_weight * target_entropy)
        metrics |= {"task_loss": task, "estimator_loss": estimated}
        return loss, (state, {**metrics, "target_entropy": target_entropy})

    return one_update(as_groups(tx), loss_fn, per_example=False, modules=modules)
