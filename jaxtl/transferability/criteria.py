"""Criteria to choose a step, or a point of a sweep, without labels of the target.

Each builder returns a `jaxtl.plan.Criterion`, better when larger. Give them a few hundred to a few
thousand examples, `dataset.take(1000)`: source examples that the model does not train on, and
target examples, whose labels are hidden from all of them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxtl.plan import Criterion, labelled, unlabelled
from jaxtl.transferability.domain_classifier import importance_weights
from jaxtl.transferability.representation import (
    effective_rank,
    neighbour_accuracy,
    probe_accuracy,
)
from jaxtl.transferability.validation import (
    deep_embedded_risk,
    mixed_agreement,
    soft_neighborhood_density,
)


def source_accuracy(source: Any, head: str) -> Criterion:
    """Accuracy on held-out source examples, blind to the target; of several sources the mean.

    Args:
        source: labelled `Dataset` that no stage trains on, or a list of them.
        head: of classes.
    """
    sources = source if isinstance(source, list | tuple) else [source]

    def score(predict, *examples) -> jax.Array:
        return 1 - jnp.stack([_errors(each, head).mean() for each in examples]).mean()

    return Criterion([labelled(each, head) for each in sources], score)


def importance_weighted_validation(source: Any, target: Any, head: str) -> Criterion:
    """Minus the importance-weighted error on held-out source examples.

    The weights are odds of a linear domain classifier between the features of `target` and of one
    half of the source examples, at the other half; they are divided by their mean.

    Args:
        source: labelled `Dataset` that no stage trains on.
        target: `Dataset` of the target; its labels are hidden.
        head: of classes.

    Sugiyama, Krauledat & Mueller, "Covariate Shift Adaptation by Importance Weighted Cross
    Validation", JMLR 2007.
    """

    def score(predict, source, target) -> jax.Array:
        errors, weights = _held_out(source, target, head)
        return -(weights / weights.mean() * errors).mean()

    return Criterion((labelled(source, head), unlabelled(target, head)), score)


def deep_embedded_validation(source: Any, target: Any, head: str) -> Criterion:
    """Minus the deep embedded validation risk, of errors, on held-out source examples.

    Args:
        source, target, head: as in `importance_weighted_validation`.
    """

    def score(predict, source, target) -> jax.Array:
        return -deep_embedded_risk(*_held_out(source, target, head))

    return Criterion((labelled(source, head), unlabelled(target, head)), score)


def neighborhood_density(target: Any, head: str, *, temperature: float = 0.05) -> Criterion:
    """Soft neighbourhood density (SND) of target predictions.

    Args:
        target: `Dataset` of the target; its labels are hidden.
        head: of classes.
        temperature: of the similarities.
    """
    return Criterion(
        (unlabelled(target, head),),
        lambda predict, target: soft_neighborhood_density(
            target["logits"][head], temperature=temperature
        ),
    )


def certainty(target: Any, head: str) -> Criterion:
    """Minus the mean entropy of target predictions, in nats.

    Args:
        target: `Dataset` of the target; its labels are hidden.
        head: of classes.

    Morerio, Cavazza & Murino, "Minimal-Entropy Correlation Alignment for Unsupervised Deep Domain
    Adaptation", ICLR 2018, choose by it.
    """

    def score(predict, target) -> jax.Array:
        logged = jax.nn.log_softmax(target["logits"][head])
        return (jnp.exp(logged) * logged).sum(1).mean()

    return Criterion((unlabelled(target, head),), score)


def mixed_validation(target: Any, head: str, *, share: float = 0.55) -> Criterion:
    """How often a mixture of two target examples is given the class of its larger part (MixVal).

    The mean of the probes within predicted classes, where each is mixed with another of its class,
    and between them, where it is mixed with one half the dataset away. The paper averages ranks of
    both instead.

    Args:
        target: `Dataset` of the target with float or image inputs; its labels are hidden.
        head: of classes.
        share: of the larger part, in (0.5, 1).
    """

    def score(predict, target) -> jax.Array:
        logits, n = target["logits"][head], len(target["logits"][head])
        order = jnp.argsort(logits.argmax(1))
        neighbours = jnp.zeros(n, jnp.int32).at[order].set(jnp.roll(order, 1).astype(jnp.int32))
        distant = (jnp.arange(n) + n // 2) % n

        def agreement(partners: jax.Array) -> tuple[jax.Array, jax.Array]:
            mixed = jax.tree.map(
                lambda leaf: share * leaf + (1 - share) * leaf[partners], target["inputs"]
            )
            return mixed_agreement(logits, partners, predict(mixed)["logits"][head])

        return (agreement(neighbours)[0] + agreement(distant)[1]) / 2

    return Criterion((unlabelled(target, head),), score)


def nearest_neighbours(dataset: Any, head: str, *, count: int = 5) -> Criterion:
    """Accuracy of the vote of the nearest neighbours among the features: needs no trained head.

    Args:
        dataset: labelled `Dataset`, of data that decide nothing; each example is left out in turn.
        head: of classes, whose labels are read.
        count: of the neighbours.
    """

    def score(predict, examples) -> jax.Array:
        return neighbour_accuracy(_flat(examples), examples["labels"][head], count=count)

    return Criterion((labelled(dataset, head),), score)


def linear_probe(dataset: Any, head: str) -> Criterion:
    """Accuracy of a ridge head fitted to the features: needs no trained head.

    Args:
        dataset: labelled `Dataset`, of data that decide nothing; each example is left out in turn.
        head: of classes, whose labels are read; its parameters are not.
    """

    def score(predict, examples) -> jax.Array:
        classes = examples["logits"][head].shape[-1]
        return probe_accuracy(_flat(examples), examples["labels"][head], classes)

    return Criterion((labelled(dataset, head),), score)


def feature_rank(dataset: Any) -> Criterion:
    """The effective rank of the features; 1 of those that have collapsed.

    Args:
        dataset: `Dataset`, whose labels are hidden.
    """
    return Criterion((unlabelled(dataset),), lambda predict, x: effective_rank(_flat(x)))


def criteria(source: Any, target: Any, head: str) -> Mapping[str, Criterion]:
    """All of them under their short names, for `Experiment(criteria=...)`.

    Args:
        source: labelled `Dataset` that no stage trains on.
        target: `Dataset` of the target; its labels are hidden.
        head: of classes.
    """
    return {
        "source": source_accuracy(source, head),
        "iwv": importance_weighted_validation(source, target, head),
        "dev": deep_embedded_validation(source, target, head),
        "snd": neighborhood_density(target, head),
        "entropy": certainty(target, head),
        "mixval": mixed_validation(target, head),
    }


def _errors(examples: Mapping[str, Any], head: str) -> jax.Array:
    """0 or 1 for each example, NaN where a logit is."""
    logits = examples["logits"][head]
    wrong = (logits.argmax(1) != examples["labels"][head]).astype(jnp.float32)
    return jnp.where(jnp.isnan(logits).any(1), jnp.nan, wrong)


def _held_out(source: Mapping[str, Any], target: Mapping[str, Any], head: str):
    """(errors, importance weights) of every other source example, weighted by the rest."""
    features, others = _flat(source), _flat(target)
    weights = importance_weights(features[::2], others, features[1::2])
    return _errors(source, head)[1::2], weights


def _flat(examples: Mapping[str, Any]) -> jax.Array:
    """Features [n, width]."""
    return examples["features"].reshape(len(examples["features"]), -1)
