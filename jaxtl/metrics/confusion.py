"""Classification: confusion matrix, F1, balanced accuracy, cross-entropy and calibration."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.metrics.sums import defined_mean, grouped_sum, weighted_sum
from jaxtl.plan import Evaluation

BINS = 15
SCORES = ("accuracy", "balanced_accuracy", "f1_macro", "f1_weighted")
DIRECTIONS = dict.fromkeys(SCORES, "max") | {"loss": "min", "ece": "min"}


def classification(dataset: Any, head: str, *, column: str = "label") -> Evaluation:
    """Metrics of a head whose outputs are logits over classes.

    `accuracy`; `balanced_accuracy`, the mean recall of the classes that occur in the labels;
    `f1_macro`, the mean F1 of the classes that occur in the labels or the predictions
    (scikit-learn's default); `f1_weighted`, weighted by the labels of each class; `loss`, the mean
    cross-entropy; `ece`, the expected calibration error over 15 right-closed bins of confidence
    (Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599, Eq. 3).

    The summed pytree holds the confusion matrix under `"confusion"`: [classes, classes], rows are
    labels, columns are predictions.

    Args:
        dataset: a `jaxtl.data.Dataset`.
        head: the head that predicts; its size is the number of classes.
        column: the label column, integers in [0, classes).
    """
    return Evaluation(dataset, head, column, _sums, _results, DIRECTIONS)


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each class, and how many labels it has.

    Args:
        confusion: [classes, classes], rows are labels, columns are predictions.

    Returns:
        `precision`, `recall`, `f1` and `support`, each [classes] float64. NaN where undefined:
        precision of a class never predicted, recall of one that has no labels, F1 of one with
        neither. (scikit-learn puts 0 there.)
    """
    confusion = np.asarray(confusion, np.float64)
    hits, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        return {
            "precision": hits / predicted,
            "recall": hits / support,
            "f1": 2 * hits / (support + predicted),
            "support": support,
        }


def _sums(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
    labelled = weights > 0
    logits = jnp.where(labelled[:, None], logits, 0).astype(jnp.float32)
    labels = jnp.where(labelled, labels, 0)
    weights = weights.astype(jnp.float32)
    predictions = logits.argmax(-1)
    confidence = jax.nn.softmax(logits).max(-1)
    # Side "left" counts the inner edges below the confidence: bins are (lower, upper].
    bins = jnp.searchsorted(jnp.linspace(0, 1, BINS + 1)[1:-1], confidence, side="left")
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    size = logits.shape[-1]
    per_example = jnp.stack([jnp.ones_like(confidence), confidence, predictions == labels], 1)
    return {
        "confusion": grouped_sum(
            labels, size, weights[:, None] * jax.nn.one_hot(predictions, size)
        ),
        "calibration": grouped_sum(bins, BINS, weights[:, None] * per_example),
        "loss": weighted_sum(weights, losses),
    }


def _results(sums: dict[str, np.ndarray]) -> dict[str, float]:
    confusion = np.asarray(sums["confusion"], np.float64)
    # Columns: examples, summed confidence, correct predictions; rows: bins.
    examples, confidence, correct = np.asarray(sums["calibration"], np.float64).T
    classes, total = per_class(confusion), examples.sum()
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": float(confusion.trace() / total),
            "balanced_accuracy": defined_mean(classes["recall"]),
            "f1_macro": defined_mean(classes["f1"]),
            "f1_weighted": float(np.nansum(classes["f1"] * classes["support"]) / total),
            "loss": float(np.float64(sums["loss"]) / total),
            "ece": float(np.abs(confidence - correct).sum() / total),
        }
