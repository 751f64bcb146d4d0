"""DARN: an adversary for each source, and most weight for sources that are like the target."""

from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from jaxtl.form import POSITIVE, checked
from jaxtl.methods.adapt.adversary import DISCRIMINATOR
from jaxtl.methods.adapt.several_sources import (
    GUESSING,
    as_metrics,
    domain_losses,
    for_each_source,
    losses_by_source,
)
from jaxtl.methods.adapt.sides import Weight, at_step
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, mlp_head
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
    network = for_each_source(discriminator or mlp_head((), 1))

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        tasks, on_target = losses_by_source(model, output, batch)
        domains, metrics = domain_losses(
            network, params[DISCRIMINATOR], output, batch, at_step(reversal, step)
        )
        factor = at_step(weight, step)
        bounds = jax.lax.stop_gradient(tasks - factor * jnp.minimum(domains, GUESSING))
        weights = smallest_bound_shares(bounds, temperature)
        loss = jnp.sum(weights * (tasks + factor * domains)) + on_target
        metrics |= {"task_loss": tasks.sum(), **as_metrics("source_weight", weights)}
        return loss, (state, metrics)

    return one_update(as_groups(tx), loss_fn, per_example=False, modules={DISCRIMINATOR: network})


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
