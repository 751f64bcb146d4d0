"""The supervised objective: one weighted sum for every head, domain and example."""

from collections.abc import Mapping

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


def task_losses(
    heads: Mapping[str, Head], logits: Mapping[str, jax.Array], batch: Batch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(the terms of `supervised` [tasks], {"<head>_loss": []}), a task for each head with labels.

    They stand in the order of `heads`; their sum is the objective.
    """
    terms = supervised(heads, logits, batch)[1]
    return jnp.stack(list(terms.values())), terms


def _weighted(head: Head, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    outputs = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return weighted_losses(head, outputs, labels, weights).sum() / weights.shape[0]


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
