"""Risks of the domains of a stage, and the objective that a penalty on them is added to."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtl.losses import weighted_losses
from jaxtl.methods.adapt.sides import Weight, at_step
from jaxtl.methods.generalize.sources import source_positions
from jaxtl.plan import Batch, Head, Params


class Risks(NamedTuple):
    """Of each head with labels, in the order of the model's heads.

    Attributes:
        values: [heads, domains] mean losses of the examples with a label; 0 where none has one.
        weights: [heads, domains] mean weights over the batch, so that the sum of values * weights
            is the supervised objective; 0 where no example has a label.
    """

    values: jax.Array
    weights: jax.Array

    @property
    def objective(self) -> jax.Array:
        """The supervised objective []."""
        return jnp.sum(self.weights * self.values)

    @property
    def mean(self) -> jax.Array:
        """The sum over heads [] of the means over domains, where weights of heads are alike."""
        total = self.weights.sum()
        return self.objective * len(self.weights) / jnp.where(total > 0, total, 1)


def check_sources(batch: Batch) -> None:
    """Refuse a stage whose domains are not several labelled sources.

    Raises:
        ValueError: there are fewer than two sources, there is a target, or none names a head.
    """
    sources = source_positions(batch.roles)
    if len(sources) != len(batch.roles):
        raise ValueError(
            f"a target has no risk: of the {len(batch.roles)} domains here "
            f"({', '.join(batch.roles)}) all must be labelled(data, head); methods.adapt learns "
            "from a target without labels"
        )
    if not batch.labels:
        raise ValueError("no domain names a head: labelled(data, head) does")


def example_losses(
    heads: Mapping[str, Head], logits: Mapping[str, jax.Array], batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """Weighted losses of examples and their weights, both [heads, batch, domains]."""
    losses, weights = [], []
    for name, head in heads.items():
        if name in batch.labels:
            labels, known = batch.labels[name], batch.weights[name]
            outputs = logits[name].astype(jnp.promote_types(logits[name].dtype, jnp.float32))
            losses.append(weighted_losses(head, outputs, labels, known))
            weights.append(known.reshape(*known.shape[:2], -1).mean(-1))
    return jnp.stack(losses), jnp.stack(weights).astype(losses[0].dtype)


def domain_risks(
    heads: Mapping[str, Head], logits: Mapping[str, jax.Array], batch: Batch
) -> tuple[Risks, dict[str, jax.Array]]:
    """The risks, and {"domain_<number>_loss": []}, each domain's part of the objective.

    Args:
        heads: {head: Head}; those without labels in the batch are left out.
        logits: {head: [B, D, size]} float.
        batch: of several labelled sources.

    Raises:
        ValueError: the domains are not several labelled sources.
    """
    check_sources(batch)
    risks = mean_risks(*example_losses(heads, logits, batch))
    parts = jnp.sum(risks.weights * risks.values, 0)
    return risks, {f"domain_{number}_loss": part for number, part in enumerate(parts)}


def mean_risks(losses: jax.Array, weights: jax.Array) -> Risks:
    """Risks of weighted losses and weights [heads, batch, domains]."""
    totals = weights.sum(1)
    return Risks(losses.sum(1) / jnp.where(totals > 0, totals, 1), totals / weights.shape[1])


def penalised(
    objective: jax.Array,
    penalty: jax.Array,
    weight: Weight,
    step: jax.Array,
    params: Params,
    *,
    l2: float = 0.0,
    rescale: bool = True,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """objective + l2 |params|^2 + weight * penalty, divided by a weight above 1 with `rescale`.

    Returns:
        The loss [] and what is logged, {metric: []}.
    """
    factor = at_step(weight, step)
    loss = objective + factor * penalty
    if l2:
        loss += l2 * optax.tree.norm(params, squared=True)
    if rescale:
        loss /= jnp.maximum(factor, 1)
    return loss, {"task_loss": objective, "penalty": penalty, "penalty_weight": factor}
