"""The supervised objective: one weighted sum for every head, domain and example."""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jaxtl.paths import unknown
from jaxtl.plan import Batch, Head


def supervised(
    heads: Mapping[str, Head],
    logits: Mapping[str, jax.Array],
    batch: Batch,
    lambdas: Mapping[str, jax.Array | float] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sum over heads h of lambda_h * sum_d (1 / B) sum_i weights[h][i, d] * loss_h[i, d].

    A label of E elements has a weight for each: its loss is 1 / E of their weighted sum.

    Linear in the weights, so that the mean over micro-batches (or shards) of equal size is the
    value of the whole batch. A label of weight 0 may be anything, NaN included: it contributes
    exactly 0 to the value and to the gradient.

    Args:
        heads: {head: Head}; those without labels in the batch contribute nothing.
        logits: {head: [B, D, size]} float.
        batch: with `labels` {head: [B, D, ...]} and `weights` {head: [B, D, ...]}.
        lambdas: {head: factor}, a float or [] array (it may be learned); 1 where absent.

    Returns:
        The objective [] and {"<head>_loss": []}, the terms before the lambdas.

    Raises:
        ValueError: a lambda names no head, or no domain of the batch does.
    """
    if not batch.labels:
        raise ValueError(
            "the supervised objective reads labels, and no domain names a head: "
            "labelled(dataset, head) does; methods.pretrain learns without"
        )
    lambdas = lambdas or {}
    for name in sorted(lambdas.keys() - heads.keys()):
        raise ValueError(unknown("head", name, heads))
    total, metrics = jnp.zeros(()), {}
    for name, head in heads.items():
        if name in batch.labels:
            term = _weighted(head, logits[name], batch.labels[name], batch.weights[name])
            total += lambdas.get(name, 1.0) * term
            metrics[f"{name}_loss"] = term
    return total, metrics


Task = Literal["head", "domain", "pair"]
"""What has a loss of its own: a head, a domain, or a head of a domain."""


def task_losses(
    heads: Mapping[str, Head],
    logits: Mapping[str, jax.Array],
    batch: Batch,
    per: Task = "head",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The terms of `supervised` one by one; their sum is the objective.

    Args:
        per: whose losses: of heads with labels, in the order of `heads`; of domains, in the order
            of the stage; or of pairs, head after head, each in all domains. A domain without labels
            has loss 0.

    Returns:
        Losses [tasks], and {metric: []} that names them in their order: "<head>_loss",
        "domain_<number>_loss", "<head>_<number>_loss".

    Raises:
        ValueError: no domain of the batch names a head.
    """
    terms = supervised(heads, logits, batch)[1]
    if per != "head":
        each = {
            name: weighted_losses(
                heads[name], _floats(logits[name]), batch.labels[name], batch.weights[name]
            )
            for name in heads
            if name in batch.labels
        }
        pairs = {name: losses.sum(0) / len(losses) for name, losses in each.items()}  # [domains]
        if per == "domain":
            pairs = {"domain": sum(pairs.values())}
        terms = {
            f"{name}_{number}_loss": term
            for name, losses in pairs.items()
            for number, term in enumerate(losses)
        }
    return jnp.stack(list(terms.values())), terms


def _floats(logits: jax.Array) -> jax.Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _weighted(head: Head, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    return weighted_losses(head, _floats(logits), labels, weights).sum() / weights.shape[0]


def weighted_losses(
    head: Head, outputs: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
    """The losses of examples [...]: the weighted sum over a label's elements / their number.

    Args:
        outputs: [..., size] float.
        labels: [..., *label_shape]; a label of weight 0 may be anything.
        weights: likewise, or [...] where those of a label are equal.
    """
    weights = jnp.expand_dims(weights, tuple(range(weights.ndim, labels.ndim)))
    labelled = weights > 0
    # A valid label in place of a hidden one: `where` after the loss alone would leave 0 * NaN in
    # the gradient.
    losses = head.loss(outputs, jnp.where(labelled, labels, 0))
    losses = jnp.where(labelled, weights * losses, 0)
    elements = tuple(range(losses.ndim - len(head.label_shape), losses.ndim))
    return losses.mean(elements) if elements else losses
