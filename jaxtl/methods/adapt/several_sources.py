"""What adaptation from several sources shares: a network for each source, and how far each is."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.losses import reverse_gradient, task_losses
from jaxtl.methods.adapt.adversary import DISCRIMINATOR
from jaxtl.methods.adapt.sides import (
    Weight,
    at_domains,
    at_step,
    example_mean,
    flat_features,
    target_rows,
)
from jaxtl.methods.transfer.fine_tuning import Groups, as_groups, one_update
from jaxtl.models import apply_flat, mlp_head
from jaxtl.plan import Batch, Method, Metrics, Model, Module, Params, StageShape
from jaxtl.plan.batch import sides_of

GUESSING = float(np.log(2))
"""The domain loss of a discriminator that answers 1/2: the best of all has no larger one."""


def source_places(roles: tuple[str, ...]) -> tuple[int, ...]:
    """Positions of the sources of a stage.

    Raises:
        ValueError: there are fewer than two, or no target.
    """
    sources, _ = sides_of(roles)
    if len(sources) < 2:
        raise ValueError(
            f"adaptation from several sources needs two or more, and the domains are "
            f"{', '.join(roles)}: name several labelled(data, head), or use adapt.dann, adapt.mcd "
            "or another method of one source"
        )
    return sources


def for_each_source(network: Module) -> Module:
    """A network of its own for each source: params with a leading axis [sources].

    Its `apply` is (params, inputs [sources, ...]) -> outputs [sources, ...].
    """

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        keys = jax.random.split(rng, len(source_places(shape.roles)))
        return jax.vmap(lambda key: network.init(key, output, shape))(keys)

    return Module(init, jax.vmap(network.apply))


def losses_by_source(model: Model, output: dict, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """(task losses [sources], that of the targets [], 0 if none of them has labels)."""
    losses, _ = task_losses(model.heads, output["logits"], batch, "domain")
    sources = list(source_places(batch.roles))
    is_source = np.isin(np.arange(len(batch.roles)), sources)
    return losses[np.array(sources)], jnp.where(is_source, 0, losses).sum()


def domain_losses(
    discriminators: Module, params: Params, output: dict, batch: Batch, coefficient: jax.Array
) -> tuple[jax.Array, Metrics]:
    """How badly each source is told from the targets [sources], behind a gradient reversal.

    The binary cross-entropy of a source and that of the targets are means over their examples,
    which their own weights multiply; the loss is the mean of both, log 2 where nothing tells them
    apart.

    Args:
        discriminators: a network for each source, [sources, n, width] -> [sources, n, 1].
        output: of the model.
        coefficient: the gradient of the features is times -coefficient.

    Returns:
        The losses, and {"domain_loss_<number>": []} of each source.
    """
    features = reverse_gradient(flat_features(output), coefficient)
    places = source_places(batch.roles)
    on_source, source_weights = (
        jnp.swapaxes(at_domains(x, places), 0, 1) for x in (features, batch.present)
    )
    on_target, target_weights = target_rows((features, batch.present), batch)
    on_target = jnp.broadcast_to(on_target, (len(places), *on_target.shape))
    source_logits, target_logits = (
        discriminators.apply(params, rows) for rows in (on_source, on_target)
    )
    if source_logits.shape[-1] != 1:
        raise ValueError(
            f"a discriminator of a source from the targets has 1 output, this one has "
            f"{source_logits.shape[-1]}: mlp_head(hidden, 1)"
        )
    # Targets are class 1: -log sigmoid of their logits, and of minus those of sources.
    of_source = jax.vmap(example_mean)(jax.nn.softplus(source_logits[..., 0]), source_weights)
    of_target = jax.vmap(example_mean, (0, None))(
        jax.nn.softplus(-target_logits[..., 0]), target_weights
    )
    losses = (of_source + of_target) / 2
    return losses, as_metrics("domain_loss", losses)


def as_metrics(name: str, values: jax.Array) -> Metrics:
    """{"<name>_<number>": []} of [sources]."""
    return {f"{name}_{number}": value for number, value in enumerate(values)}


def weighted_by_bounds(
    tx: optax.GradientTransformation | Groups,
    weight: Weight,
    reversal: Weight,
    discriminator: Module | None,
    shares: Callable[[jax.Array], jax.Array],
) -> Method:
    """sum_i w_i (task loss_i + weight * domain loss_i), the loss of MDAN and DARN.

    Args:
        weight: factor of the domain losses.
        reversal: coefficient of the features' gradient.
        discriminator: features -> [..., 1], one for each source; linear if None.
        shares: bounds [sources], task loss_i - weight * min(domain loss_i, log 2) -> w [sources],
            constants of the gradient.
    """
    network = for_each_source(discriminator or mlp_head((), 1))

    def loss_fn(model, params, state, batch, rng, step):
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        tasks, on_target = losses_by_source(model, output, batch)
        domains, metrics = domain_losses(
            network, params[DISCRIMINATOR], output, batch, at_step(reversal, step)
        )
        factor = at_step(weight, step)
        weights = shares(jax.lax.stop_gradient(tasks - factor * jnp.minimum(domains, GUESSING)))
        loss = jnp.sum(weights * (tasks + factor * domains)) + on_target
        metrics |= {"task_loss": tasks.sum(), **as_metrics("source_weight", weights)}
        return loss, (state, metrics)

    return one_update(as_groups(tx), loss_fn, per_example=False, modules={DISCRIMINATOR: network})
