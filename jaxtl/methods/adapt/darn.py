"""DARN: an adversary for each source, and most weight for sources that are like the target."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import POSITIVE, checked
from jaxtl.methods.adapt.several_sources import weighted_by_bounds
from jaxtl.methods.adapt.sides import Weight
from jaxtl.methods.transfer.fine_tuning import Groups
from jaxtl.plan import Method, Module


@checked
def darn(
    tx: optax.GradientTransformation | Groups,
    *,
    weight: Weight = 0.01,
    reversal: Weight = 1.0,
    temperature: Annotated[float, POSITIVE] = 1.0,
    discriminator: Module | None = None,
) -> Method:
    """sum_i w_i (task loss_i + weight * domain loss_i), most for sources that are easy and near.

    w minimises sum_i w_i g_i + temperature * |w| among shares, with the measured bounds
    g_i = task loss_i - weight * min(domain loss_i, log 2) as constants: a low temperature leaves
    the nearest source alone, a high one makes all equal. Domain losses, scales and labels of a
    target are as in `mdan`. The paper's discrepancy is one of hypotheses, estimated by such
    discriminators.

    Args:
        weight: factor of the domain losses, which their discriminators also get; as in `mdan`.
        temperature: the paper's tau > 0, in units of the loss. The paper searches it.
        discriminator: as in `mdan`.

    Raises:
        ValueError: the stage has fewer than two sources, or no target.

    Wen et al., "Domain Aggregation Networks for Multi-Source Domain Adaptation", ICML 2020.
    arXiv:1909.05352, Section 4.
    """

    def shares(bounds: jax.Array) -> jax.Array:
        return smallest_bound_shares(bounds, temperature)

    return weighted_by_bounds(tx, weight, reversal, discriminator, shares)


def smallest_bound_shares(bounds: jax.Array, temperature: float) -> jax.Array:
    """The shares w >= 0 [n], sum 1, that minimise w . bounds + temperature * |w|.

    w is proportional to max(0, level - bounds), whose Euclidean norm is the temperature: so the k
    smallest bounds of mean m and variance v have level m + sqrt(temperature^2 / k - v).
    """
    # In units of the temperature; what is 1 above the smallest bound or more has no share.
    bounds = jnp.minimum((bounds - bounds.min()) / temperature, 2)
    ascending = jnp.sort(bounds)
    count = jnp.arange(1, len(bounds) + 1)
    means = jnp.cumsum(ascending) / count
    squares = jnp.sum(jnp.tril(ascending[None] - means[:, None]) ** 2, 1)
    root = (1 - squares) / count
    levels = means + jnp.sqrt(jnp.maximum(root, 0))
    # Those sources count whose bound is below the level that they would give.
    active = jnp.sum((root > 0) & (levels > ascending))
    shares = jnp.maximum(levels[active - 1] - bounds, 0)
    return shares / shares.sum()
