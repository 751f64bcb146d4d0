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
from jaxtl.train.feed.episodes import groups_of

logger = logging.getLogger(__name__)


def as_domain(evaluation: Evaluation) -> Domain:
    """The domain whose labels an evaluation reads."""
    heads = {evaluation.head: evaluation.column}
    return Domain(evaluation.dataset, heads, episodes=evaluation.episodes)


def check_domain(domain: Domain, heads: Mapping[str, Head], seeds: tuple[int, ...]) -> None:
    """Raises ValueError if a domain has no examples, or labels and weights that cannot be used."""
    dataset = domain.dataset
    validate(dataset)
    _check_weights(dataset, "weight", domain.weight)
    blind = {}  # {head: seeds for which it has no label}
    for head, column in domain.heads.items():
        if head not in heads:
            raise ValueError(unknown("head", head, heads))
        if domain.episodes is not None:
            _check_episodes(domain, head, heads[head], seeds)
        if domain.labelled and not (domain.episodes and heads[head].integer):
            blind[head] = check_labels(dataset, column, head, heads[head], seeds)
    if nowhere := set(seeds).intersection(*blind.values()) if blind else ():
        raise ValueError(no_labels(dataset, domain.heads, sorted(nowhere)))
    for head, missing in blind.items():
        if missing:  # a head may train by other means, such as a former model's outputs
            logger.warning("%s", no_labels(dataset, {head: domain.heads[head]}, missing))
    _check_draw(domain, seeds)
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


def _check_draw(domain: Domain, seeds: tuple[int, ...]) -> None:
    """Raises ValueError if rows cannot be drawn by group."""
    if domain.draw is None:
        return
    dataset, column = domain.dataset, domain.draw.groups
    place = f"dataset {dataset.name}: draw={domain.draw}"
    if domain.episodes is not None or not domain.labelled:
        what = "are drawn as episodes" if domain.episodes else "have labels that nobody may see"
        raise ValueError(f"{place}: its examples {what}; leave `draw` out")
    table = dataset.table()
    if column not in table.labels:
        raise ValueError(f"{place}: {unknown('label column', column, table.labels)}")
    if column not in table.classes or table.labels[column].ndim > 1:
        raise ValueError(f"{place}: groups are the classes of a column, and {column!r} has none")
    for seed in seeds:
        if missing := int((table.labels[column][dataset.rows(seed)] < 0).sum()):
            raise ValueError(
                f"{place}: {missing} examples (seed {seed}) have no {column!r} and would never be "
                "drawn; leave them out or let them be a class of their own"
            )


def _check_episodes(domain: Domain, name: str, head: Head, seeds: tuple[int, ...]) -> None:
    """Raises ValueError if a seed's examples make no episode, or the head has no such classes."""
    dataset, form = domain.dataset, domain.episodes
    labels = dataset.table().labels
    if form.groups not in labels:
        raise ValueError(unknown(f"label column of {dataset.name}:", form.groups, labels))
    if np.asarray(labels[form.groups]).dtype.kind not in "iu" or labels[form.groups].ndim > 1:
        raise ValueError(
            f"dataset {dataset.name}: episodes draw from the classes of a label column; "
            f"{form.groups!r} has none"
        )
    if head.integer and head.size < form.most_ways:
        raise ValueError(
            f"dataset {dataset.name}: episodes of {form.most_ways} classes need a head of as "
            f"many; head {name!r} has {head.size} outputs: classes({form.most_ways})"
        )
    if not head.integer and domain.heads[name] == form.groups:
        raise ValueError(
            f"dataset {dataset.name}: head {name!r} predicts values, but {form.groups!r} says "
            f"which episode an example belongs to: name the values, as in {{{name!r}: 'value'}}"
        )
    needed = form.most_shots + form.queries
    for seed in seeds:
        groups = groups_of(dataset, form, seed)
        if len(groups) < form.most_ways:
            raise ValueError(
                f"dataset {dataset.name} has {len(groups)} classes (seed {seed}); an episode needs "
                f"{form.most_ways} ways"
            )
        smallest = min(groups, key=len)
        if len(smallest) < needed:
            number = labels[form.groups][smallest[0]]
            names = dataset.class_names(form.groups)
            which = names[number] if number < len(names) else number
            raise ValueError(
                f"dataset {dataset.name} has {len(smallest)} examples of its class {which!r} "
                f"(seed {seed}); an episode needs {needed}: {form.most_shots} shots and "
                f"{form.queries} queries"
            )


def _check_weights(dataset: Dataset, what: str, weights: np.ndarray | float) -> None:
    weights = np.asarray(weights)
    bad = weights[~(np.isfinite(weights) & (weights >= 0))]
    if bad.size:
        raise ValueError(f"dataset {dataset.name}: {what} must be finite and >= 0, got {bad[0]}")
