"""Empirical quantile risk minimisation: the risk of a domain is small with a given probability."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import AT_LEAST_0, Limit, checked
from jaxtl.methods.generalize.risks import domain_risks
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat
from jaxtl.plan import Method

BETWEEN_0_AND_1 = Limit("{} in (0, 1)", lambda value: 0 < value < 1)
HALVINGS = 40
"""Of the interval in which the quantile is looked for."""


@checked
def eqrm(
    tx: optax.GradientTransformation | Groups,
    *,
    burn_in: Annotated[int, AT_LEAST_0],
    probability: Annotated[float, BETWEEN_0_AND_1] = 0.75,
) -> Method:
    """Number of domains * the quantile of the distribution of their risks; first their sum.

    The distribution is a Gaussian kernel estimate on the risks of the domains, as in the authors'
    code, with their bandwidth 1.06 * standard deviation * domains^(-1/5). Domains count by their
    weights, also in the number of domains. The quantile of equal risks is that risk. Public code
    goes on with Adam `restarted` and a rate of 1e-6 after the burn-in.

    Args:
        burn_in: steps of ordinary training before; 2,500 of 5,001 in DomainBed.
        probability: of the quantile, the paper's alpha.

    Eastwood et al., "Probable Domain Generalization via Quantile Risk Minimization", NeurIPS 2022.
    arXiv:2207.09944.
    """

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        risks, metrics = domain_risks(model.heads, output["logits"], batch)
        quantiles = jax.vmap(lambda values, weights: kernel_quantile(values, weights, probability))(
            *risks
        )
        tail = jnp.sum(risks.weights.sum(1) * quantiles)
        loss = jnp.where(step < burn_in, risks.objective, tail)
        return loss, (state, {**metrics, "task_loss": risks.objective, "quantile_loss": tail})

    return one_update(as_groups(tx), loss_fn, per_example=False)


def kernel_quantile(values: jax.Array, weights: jax.Array, probability: float) -> jax.Array:
    """Where a Gaussian kernel estimate of the distribution of values reaches a probability.

    Args:
        values: [n] float.
        weights: [n] float >= 0, only their proportions count.
        probability: in (0, 1).

    Returns:
        [], with the gradient of the implicit function, that of the bandwidth included; 0 where no
        value has a weight.
    """
    total = weights.sum()
    shares = weights / jnp.where(total > 0, total, 1)
    count = jnp.sum(weights > 0)
    mean = jnp.sum(shares * values)
    variance = jnp.sum(shares * (values - mean) ** 2) * count / jnp.maximum(count - 1, 1)
    # A root has no slope at 0: the least bandwidth is far below what the risks resolve.
    floor = 1e-6 * (1 + jax.lax.stop_gradient(jnp.abs(mean)))
    width = jnp.sqrt(1.06**2 * variance * jnp.maximum(count, 1) ** -0.4 + floor**2)

    def reached(point: jax.Array, values: jax.Array, width: jax.Array) -> jax.Array:
        return jnp.sum(shares * jax.scipy.special.ndtr((point - values) / width)) - probability

    constants = jax.lax.stop_gradient((values, width))
    reach = jax.scipy.special.ndtri(jnp.float32(probability)) * constants[1]
    among = jnp.where(weights > 0, constants[0], mean)
    ends = jax.lax.stop_gradient((among.min() + reach, among.max() + reach))

    def halve(_, ends):
        middle = (ends[0] + ends[1]) / 2
        above = reached(middle, *constants) > 0
        return jnp.where(above, ends[0], middle), jnp.where(above, middle, ends[1])

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, ends)
    point = jax.lax.stop_gradient((low + high) / 2)
    # One step of Newton's method, at the solution, is the implicit function theorem.
    density = jax.grad(reached)(point, *constants)
    quantile = point - reached(point, values, width) / jnp.maximum(density, 1e-30)
    return jnp.where(total > 0, quantile, 0)
