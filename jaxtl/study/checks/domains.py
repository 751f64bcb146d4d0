"""What can be wrong with a domain: its labels, its weights, the rows that seeds draw."""

import logging
from collections.abc import Mapping

import numpy as np

from jaxtl.blame import explain
from jaxtl.data import Dataset, validate
from jaxtl.form import describe
from jaxtl.paths import unknown
from jaxtl.plan import Domain, Evaluation, Head
from jaxtl.study.checks.data import check_labels, no_labels

logger = logging.getLogger(__name__)


def as_domain(evaluation: Evaluation) -> Domain:
    """The domain whose labels an evaluation reads."""
    return Domain(evaluation.dataset, {evaluation.head: evaluation.column})


def check_domain(domain: Domain, heads: Mapping[str, Head], seeds: tuple[int, ...]) -> None:
    """Raises ValueError if a domain has no examples, or labels and weights that cannot be used."""
    dataset = domain.dataset
    validate(dataset)
    _check_weights(dataset, "weight", domain.weight)
    blind = {}  # {head: seeds for which it has no label}
    for head, column in domain.heads.items():
        if head not in heads:
            raise ValueError(unknown("head", head, heads))
        if domain.labelled:
            blind[head] = check_labels(dataset, column, head, heads[head], seeds)
    if nowhere := set(seeds).intersection(*blind.values()) if blind else ():
        raise ValueError(no_labels(dataset, domain.heads, sorted(nowhere)))
    for head, missing in blind.items():
        if missing:  # a head may train by other means, such as a former model's outputs
            logger.warning("%s", no_labels(dataset, {head: domain.heads[head]}, missing))
    for seed in seeds:
        rows = dataset.rows(seed)
        if len(rows) == 0:
            raise ValueError(f"dataset {dataset.name} has no examples (seed {seed})")
        if domain.labelled and domain.example_weights is not None:
            labels = {column: values[rows] for column, values in dataset.table().labels.items()}
            try:
                weights = np.asarray(domain.example_weights(labels))
            except Exception as error:  # whatever a function of the user's raises
                raise ValueError(
                    f"dataset {dataset.name}: example_weights: {explain(error)}"
                ) from error
            if weights.dtype.kind not in "biuf":
                raise ValueError(
                    f"dataset {dataset.name}: example_weights must be numbers [{len(rows)}], got "
                    f"{describe(weights)}"
                )
            _check_weights(dataset, "example_weights", weights)
            if weights.shape != rows.shape:
                raise ValueError(
                    f"dataset {dataset.name}: example_weights have the shape "
                    f"{list(weights.shape)} for {len(rows)} examples"
                )


def _check_weights(dataset: Dataset, what: str, weights: np.ndarray | float) -> None:
    weights = np.asarray(weights)
    bad = weights[~(np.isfinite(weights) & (weights >= 0))]
    if bad.size:
        raise ValueError(f"dataset {dataset.name}: {what} must be finite and >= 0, got {bad[0]}")
