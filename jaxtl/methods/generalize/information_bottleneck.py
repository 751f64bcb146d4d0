"""Information bottleneck: features that vary no more than they must."""

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import supervised
from jaxtl.losses.weighting import weigh, weighted_mean
from jaxtl.methods.adapt.sides import Weight, at_step, flat_features
from jaxtl.methods.generalize.irm import losses_and_slopes
from jaxtl.methods.generalize.risks import check_sources, mean_risks
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Batch, Method


def ib_erm(tx: optax.GradientTransformation | Groups, *, weight: Weight) -> Method:
    """The supervised objective + weight * the variance of the features within domains.

    The mean over the features of their variances, and over the domains. Variance stands for
    entropy, of which it is a bound; it is that of the sample, divided by its number, in DomainBed
    by one less.

    Args:
        weight: DomainBed has 0, from step 500 on 100 (10^-1 to 10^5), with Adam `restarted` there:
            `optax.join_schedules([optax.constant_schedule(0.0), optax.constant_schedule(100.0)],
            [500])`.

    Ahuja et al., "Invariance Principle Meets Information Bottleneck for Out-of-Distribution
    Generalization", NeurIPS 2021. arXiv:2106.06607.
    """

    def loss_fn(model, params, state, batch, rng, step):
        check_sources(batch)
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        spread = variance_within_domains(flat_features(output), batch)
        task, _ = supervised(model.heads, output["logits"], batch)
        loss = task + at_step(weight, step) * spread
        return loss, (state, {"task_loss": task, "feature_variance": spread})

    return one_update(as_groups(tx), loss_fn, per_example=False)


def ib_irm(
    tx: optax.GradientTransformation | Groups, *, weight: Weight, irm_weight: Weight
) -> Method:
    """`ib_erm` with the penalty of `irm`, on the whole batch, added.

    Args:
        weight: of the variance, as in `ib_erm`.
        irm_weight: of the penalty; DomainBed has 1, from step 500 on 100.
    """

    def loss_fn(model, params, state, batch, rng, step):
        check_sources(batch)
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        losses, slopes, weights = losses_and_slopes(model.heads, output["logits"], batch)
        risks = mean_risks(losses, weights)
        penalty = jnp.sum(risks.weights * mean_risks(slopes, weights).values ** 2)
        spread = variance_within_domains(flat_features(output), batch)
        task = risks.objective
        loss = task + at_step(irm_weight, step) * penalty + at_step(weight, step) * spread
        return loss, (state, {"task_loss": task, "penalty": penalty, "feature_variance": spread})

    return one_update(as_groups(tx), loss_fn, per_example=False)


def variance_within_domains(features: jax.Array, batch: Batch) -> jax.Array:
    """The mean over domains with examples, and over features, of the variances: [].

    Args:
        features: [batch, domains, width].
        batch: whose `present` are the weights.
    """

    def variance(rows: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows, weights, some = weigh(rows, weights)
        gaps = rows - weighted_mean(rows, weights)[None]
        return jnp.where(some, weighted_mean(gaps**2, weights).mean(), 0), some

    variances, occur = jax.vmap(variance, in_axes=1)(features, batch.present)
    return variances.sum() / jnp.maximum(occur.sum(), 1)
