"""Open sets: known classes told apart, and all others told to be unknown."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.metrics.confusion import classification, per_class
from jaxtl.metrics.sums import defined_mean
from jaxtl.plan import Evaluation


def open_set(dataset: Any, head: str, *, column: str = "label") -> Evaluation:
    """Metrics of a head whose last output is the class "unknown".

    With C known classes the head is of size C + 1, and every label from C on counts as C.
    `known_accuracy`, the mean recall of the known classes that occur in the labels (OS* in the
    literature), in which a prediction of "unknown" is wrong; `unknown_accuracy`, the recall of
    "unknown"; `hos`, their harmonic mean 2ab / (a + b), 0 where both are 0; and those of
    `classification`, for C + 1 classes: its `balanced_accuracy` is the literature's OS.

    Args:
        dataset: a `jaxtl.data.Dataset`.
        head: the head that predicts.
        column: the label column, integers >= 0. An experiment checks that labels are below the
            head's size: let `Dataset.relabel` give all unknown classes the label C.

    Bucci, Loghmani & Tommasi, "On the Effectiveness of Image Rotation for Open Set Domain
    Adaptation", ECCV 2020, for the harmonic mean. arXiv:2007.12360.
    """
    whole = classification(dataset, head, column=column)

    def sums(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
        return whole.sums(logits, jnp.minimum(labels, logits.shape[-1] - 1), weights)

    def results(sums: dict[str, np.ndarray]) -> dict[str, float]:
        recall = per_class(sums["confusion"])["recall"]
        known, unknown = defined_mean(recall[:-1]), float(recall[-1])
        total = known + unknown
        return whole.results(sums) | {
            "known_accuracy": known,
            "unknown_accuracy": unknown,
            "hos": 0.0 if total == 0 else 2 * known * unknown / total,
        }

    more = dict.fromkeys(("known_accuracy", "unknown_accuracy", "hos"), "max")
    directions = {**whole.directions, **more}
    return dataclasses.replace(whole, sums=sums, results=results, directions=directions)
