"""Few-shot learning: means over episodes, with how far chance in their drawing moves them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.metrics.sums import per_output
from jaxtl.plan import Episodes, Evaluation, Learner

NORMAL_95 = 1.959964


def few_shot(
    dataset: Any,
    head: str,
    *,
    ways: int | tuple[int, int],
    shots: int | tuple[int, int],
    queries: int = 15,
    tasks: int = 600,
    learner: Learner | None = None,
    groups: str = "label",
) -> Evaluation:
    """Metrics of a learner on held-out episodes, the same for every arm of a seed.

    `accuracy` and `loss`, the means over episodes of the share of right answers and of the mean
    cross-entropy of an episode's queries; `accuracy_margin`, half the 95% interval of that mean
    over the drawing of episodes, 1.96 standard errors, as papers print it. The interval over seeds
    is that of the verdict.

    Args:
        dataset: its classes are none that an arm was trained on, if that is the question.
        head: has at least as many classes as an episode, which are then its first ones.
        ways, shots, queries, groups: as in `Episodes`.
        tasks: how many episodes.
        learner: answers for every arm, trained in episodes or not; None for each arm's own.
    """
    form = Episodes(ways, shots, queries, groups)
    better, asked = {"accuracy": "max", "loss": "min"}, (form, tasks, learner)
    return Evaluation(dataset, head, groups, _class_sums, _results, better, *asked)


def few_shot_regression(
    dataset: Any,
    head: str,
    *,
    groups: str,
    shots: int | tuple[int, int],
    queries: int = 10,
    tasks: int = 600,
    learner: Learner | None = None,
    column: str = "label",
) -> Evaluation:
    """The same of functions that are learned from a few of their points.

    `mse`, also called `loss`, is the mean over episodes of the mean squared error of an episode's
    queries, and `mse_margin` half its 95% interval.

    Args:
        head: of values.
        groups: label column that says which function an example is of.
        column: label column of the values.
    """
    form = Episodes(1, shots, queries, groups)
    better, asked = {"mse": "min", "loss": "min"}, (form, tasks, learner)
    return Evaluation(dataset, head, column, _value_sums, _results, better, *asked)


def _class_sums(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
    """Of one episode's queries."""
    right = logits.argmax(-1) == labels
    labels = jnp.where(weights > 0, labels, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    return _episode_sums({"accuracy": right, "loss": losses}, weights)


def _value_sums(outputs: jax.Array, labels: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
    weights = per_output(weights, outputs)
    labels = jnp.where(weights > 0, labels.reshape(outputs.shape), 0)
    return _episode_sums({"mse": (outputs - labels) ** 2}, weights)


def _episode_sums(values: dict[str, jax.Array], weights: jax.Array) -> dict[str, jax.Array]:
    total = weights.sum()
    sums = {"episodes": (total > 0).astype(jnp.float32)}
    for name, each in values.items():
        mean = jnp.sum(jnp.where(weights > 0, each, 0) * weights) / jnp.where(total > 0, total, 1)
        sums |= {name: mean, f"{name} squared": mean**2}
    return sums


def _results(sums: dict[str, np.ndarray]) -> dict[str, float]:
    count = float(sums["episodes"])
    results = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name in ("accuracy", "mse", "loss"):
            if name not in sums:
                continue
            mean = np.float64(sums[name]) / count
            variance = np.float64(sums[f"{name} squared"]) / count - mean**2
            results[name] = float(mean)
            if name != "loss":
                error = np.sqrt(np.maximum(variance, 0) / (count - 1))
                results[f"{name}_margin"] = float(NORMAL_95 * error)
    if "mse" in results:
        results["loss"] = results["mse"]
    return results
