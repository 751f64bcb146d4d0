"""IWAN: an adversary for the source examples that a first discriminator takes for the target."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import entropy
from jaxtl.methods.adapt.adversary import both, domain_loss, is_target, reversed_domain_loss
from jaxtl.methods.adapt.dann import DISCRIMINATOR
from jaxtl.methods.adapt.sides import Side, Weight, adapted, at_step
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.models import mlp_head
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
        tx: optax transformation of all parameters, or groups as in `transfer.grouped`.
        reversal, weight: as in `dann`.
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

    def term(params: Params, source: Side, target: Side, rng: jax.Array, step: jax.Array):
        del rng
        features = both(source, target, "features")
        truth = is_target(source, target)
        constant, present = jax.lax.stop_gradient(features), both(source, target, "present")
        estimated, _ = domain_loss(modules[ESTIMATOR], params[ESTIMATOR], constant, truth, present)
        logits = modules[ESTIMATOR].apply(params[ESTIMATOR], constant[: len(source.features)])
        likeness = jax.lax.stop_gradient(jax.nn.softmax(logits)[:, 1])
        mean = jnp.sum(source.present * likeness) / jnp.maximum(source.present.sum(), 1e-12)
        likeness /= jnp.maximum(mean, 1e-12)
        weights = present * jnp.concatenate([likeness, jnp.ones(len(target.features))])
        loss, metrics = reversed_domain_loss(
            modules[DISCRIMINATOR],
            params[DISCRIMINATOR],
            features,
            truth,
            at_step(reversal, step),
            weights,
        )
        unsure = target.present.mean() * entropy(target.logits, target.present)
        metrics |= {"estimator_loss": estimated, "target_entropy": unsure}
        return estimated + at_step(weight, step) * loss + entropy_weight * unsure, metrics

    return adapted(tx, term, modules=modules)
