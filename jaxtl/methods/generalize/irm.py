"""Invariant risk minimisation: features on which one classifier is the best in every domain."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import NOT_NEGATIVE, checked
from jaxtl.methods.adapt.sides import Weight
from jaxtl.methods.generalize.risks import (
    Risks,
    check_sources,
    example_losses,
    mean_risks,
    penalised,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


@checked
def irm(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight,
    l2: Annotated[float, NOT_NEGATIVE] = 0.0,
    rescale: bool = True,
) -> Method:
    """sum_d R_d(z) + weight * (d/ds R_d(s z) at s = 1)^2, the logits z of domain d times a dummy s.

    The penalty is 0 where rescaling the logits lowers no domain's risk. It is that of the whole
    batch, as in the paper's coloured MNIST: biased upwards by the variance of the slope over
    batches, and not for steps of full batches. `irm_two_halves` is unbiased. A domain's weight is a
    factor of both terms.

    Args:
        weight: lambda. The paper's coloured MNIST has 1, from step 190 on 91,000, with l2 0.0011
            and domains of weight 1/2; DomainBed 1, from step 500 on 100 (10^-1 to 10^5), with Adam
            `restarted` there, and does not rescale.

    Arjovsky et al., "Invariant Risk Minimization", 2019. arXiv:1907.02893, IRMv1.
    """

    def loss_fn(model, params, state, batch, rng, step):
        check_sources(batch)
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        losses, slopes, weights = losses_and_slopes(model.heads, output["logits"], batch)
        risks, risk_slopes = mean_risks(losses, weights), mean_risks(slopes, weights)
        penalty = jnp.sum(risks.weights * risk_slopes.values**2)
        loss, metrics = penalised(
            risks.objective, penalty, weight, step, params, l2=l2, rescale=rescale
        )
        return loss, (state, metrics)

    return one_update(as_groups(tx), loss_fn, per_example=False)


@checked
def irm_two_halves(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight,
    l2: Annotated[float, NOT_NEGATIVE] = 0.0,
    rescale: bool = True,
) -> Method:
    """`irm` whose square is the product of the slopes of two halves of the batch.

    The halves, the even and the odd rows, are independent, so that the penalty is unbiased; it may
    be negative. A domain with labels in one half only has penalty 0.

    Args:
        weight: as in `irm`.

    The same paper, Appendix D; DomainBed's estimator.
    """

    def loss_fn(model, params, state, batch, rng, step):
        check_sources(batch)
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        losses, slopes, weights = losses_and_slopes(model.heads, output["logits"], batch)
        risks = mean_risks(losses, weights)
        even = (jnp.arange(weights.shape[1]) % 2 == 0)[None, :, None]
        first, second = (half_means(slopes, weights, rows) for rows in (even, ~even))
        penalty = jnp.sum(risks.weights * first.values * second.values)
        loss, metrics = penalised(
            risks.objective, penalty, weight, step, params, l2=l2, rescale=rescale
        )
        return loss, (state, metrics)

    return one_update(as_groups(tx), loss_fn, per_example=False)


def losses_and_slopes(heads, logits, batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Weighted losses, their derivatives by a factor of the logits, at 1, and the weights.

    Args:
        heads, logits, batch: as in `domain_risks`.

    Returns:
        Three of [heads, batch, domains].
    """

    def losses_at(factor: jax.Array):
        scaled = {name: factor.astype(values.dtype) * values for name, values in logits.items()}
        return example_losses(heads, scaled, batch)

    # Forward, as one number goes in: the derivatives of all examples in one pass.
    at_one = jnp.ones(())
    (losses, weights), (slopes, _) = jax.jvp(losses_at, (at_one,), (at_one,))
    return losses, slopes, weights


def half_means(slopes: jax.Array, weights: jax.Array, rows: jax.Array) -> Risks:
    """`mean_risks` of the rows that are chosen, which leaves them on their devices."""
    return mean_risks(jnp.where(rows, slopes, 0), jnp.where(rows, weights, 0))
