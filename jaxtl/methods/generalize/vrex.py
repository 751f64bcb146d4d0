"""Risk extrapolation: the domains' risks shall be equal."""

from typing import Annotated

import jax.numpy as jnp
import optax

from jaxtl.form import NOT_NEGATIVE, checked
from jaxtl.methods.adapt.sides import Weight
from jaxtl.methods.generalize.risks import domain_risks, penalised
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method


@checked
def vrex(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight,
    l2: Annotated[float, NOT_NEGATIVE] = 0.0,
    rescale: bool = True,
) -> Method:
    """sum_d R_d + weight * sum_d (R_d - mean R)^2: with D domains, D times the mean + the variance.

    With weights of domains, both sums and the mean have them. Only domains with labels of a head
    count in that head's variance.

    Args:
        weight: of the variance where the risk is a mean over domains, as in public code; the
            paper's beta, beside a sum of risks, is D times as much. Its code for coloured MNIST
            takes (R_1 - R_2)^2, 4 times the variance of two domains, by 1 and from step 190 on
            10,000 (4 and 40,000 here); DomainBed 1, from step 500 on 10, with Adam `restarted`
            there, and does not rescale.

    Krueger et al., "Out-of-Distribution Generalization via Risk Extrapolation (REx)", ICML 2021.
    arXiv:2003.00688, Eq. 8 (V-REx).
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        risks, metrics = domain_risks(model.heads, output["logits"], batch)
        totals = risks.weights.sum(1, keepdims=True)
        means = jnp.sum(risks.weights * risks.values, 1, keepdims=True)
        means /= jnp.where(totals > 0, totals, 1)
        penalty = jnp.sum(risks.weights * (risks.values - means) ** 2)
        loss, more = penalised(
            risks.objective, penalty, weight, step, params, l2=l2, rescale=rescale
        )
        return loss, (state, metrics | more)

    return one_update(as_groups(tx), loss_fn, per_example=False)
