"""Several yes-or-no labels of one input."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.metrics.sums import defined_mean, per_output, weighted_sum
from jaxtl.plan import Evaluation

SCORES = ("accuracy", "exact_match", "f1_micro", "f1_macro")
DIRECTIONS = dict.fromkeys(SCORES, "max") | {"loss": "min"}


def multilabel(dataset: Any, head: str, *, column: str = "label") -> Evaluation:
    """Metrics of a head of independent binary outputs; a positive logit predicts 1.

    `accuracy`, the fraction of all known labels predicted right; `exact_match`, of examples with
    all known labels right; `f1_micro` over all labels together; `f1_macro`, the mean F1 of the
    outputs that occur (as 1) in the labels or the predictions; `loss`, the mean binary
    cross-entropy of the known labels.

    Args:
        dataset: a `jaxtl.data.Dataset`.
        head: the head that predicts, of size `size`.
        column: the label column, 0 or 1: [n, size], or [n] for a head of size 1.
    """
    return Evaluation(dataset, head, column, _sums, _results, DIRECTIONS)


def _sums(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
    weights = per_output(weights, logits)
    labelled = weights > 0
    logits = jnp.where(labelled, logits, 0).astype(jnp.float32)
    labels = jnp.where(labelled, labels.reshape(logits.shape), 0).astype(jnp.float32)
    predictions = (logits > 0).astype(jnp.float32)
    columns = {
        "hits": predictions * labels,
        "labels": labels,
        "predictions": predictions,
        "correct": predictions == labels,
        "loss": optax.sigmoid_binary_cross_entropy(logits, labels),
        "count": jnp.ones_like(logits),
    }
    totals = {name: weighted_sum(weights, values) for name, values in columns.items()}
    examples = weights.max(1)
    exact = ((predictions == labels) | ~labelled).all(1)
    return totals | {"exact": weighted_sum(examples, exact), "examples": examples.sum()}


def _results(sums: dict[str, np.ndarray]) -> dict[str, float]:
    sums = {name: np.asarray(values, np.float64) for name, values in sums.items()}
    hits, occurrences, count = sums["hits"], sums["labels"] + sums["predictions"], sums["count"]
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": float(sums["correct"].sum() / count.sum()),
            "exact_match": float(sums["exact"] / sums["examples"]),
            "f1_micro": float(2 * hits.sum() / occurrences.sum()),
            "f1_macro": defined_mean(2 * hits / occurrences),
            "loss": float(sums["loss"].sum() / count.sum()),
        }
