"""Domains brought together on the host: what an alignment is, and a method made of one.

An alignment sees the features of all domains and says where the source examples come to lie, how
much each counts, and which affine map takes the features of the target there. A classifier fitted
on the aligned source examples then predicts the target. Several sources are one sample, and so are
several targets.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxtl.features import backbone_features
from jaxtl.plan import Columns, Method, Model, Params, State
from jaxtl.plan.batch import sides_of

logger = logging.getLogger(__name__)


class Aligned(NamedTuple):
    """Source examples and the affine map of the target, in the space that they share.

    Attributes:
        source: [n_source, width] float64.
        projection: [features, width]; a target example x lies at x @ projection + offset.
        offset: [width].
        weights: [n_source] >= 0 with mean 1, how much each source example counts; None for ones.
    """

    source: np.ndarray
    projection: np.ndarray
    offset: np.ndarray
    weights: np.ndarray | None = None


def with_target_as_it_is(source: np.ndarray, weights: np.ndarray | None = None) -> Aligned:
    """Source examples and weights of `Aligned` in the space of the target's features."""
    width = source.shape[1]
    return Aligned(source, np.eye(width), np.zeros(width), weights)


class Sample(NamedTuple):
    """What the domains of a stage hold for one head.

    Attributes:
        head: its name.
        classes: number of its classes.
        source: [n_source, features] float64, the labelled examples of the sources.
        labels: [n_source] int.
        weights: [n_source] float64 > 0.
        target: [n_target, features] float64, the examples of the targets.
        target_labels: [n_target] int, -1 where hidden.
        target_weights: [n_target] float64 >= 0, 0 where hidden.
    """

    head: str
    classes: int
    source: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    target: np.ndarray
    target_labels: np.ndarray
    target_weights: np.ndarray


class Classifier(NamedTuple):
    """What is fitted on the aligned source examples, and how it is deployed.

    It gets a sample whose source and target are aligned and whose weights are those of both.

    Attributes:
        predict: sample -> predicted classes [n_target], on the host; None where no alignment asks
            for pseudo-labels.
        deploy: (aligned, sample, params, state) -> (params, state).
        attributes: width of the shared space, None for that of the features -> the attributes of a
            Method that predicts with what was deployed.
    """

    predict: Callable[[Sample], np.ndarray] | None
    deploy: Callable[[Aligned, Sample, Params, State], tuple[Params, State]]
    attributes: Callable[[int | None], dict]


Classify = Callable[[Aligned], np.ndarray]
Align = Callable[[np.ndarray, np.ndarray, np.ndarray, Classify], Aligned]


def alignment(align: Align, classifier: Classifier, *, width: int | None = None) -> Method:
    """A stage without steps: the domains are aligned, then the classifier is fitted.

    The alignment takes all examples alike, weights of theirs count in the classifier; a warning
    says so where there are any.

    Args:
        align: (source [n_source, features], labels [n_source], target [n_target, features],
            classify) -> Aligned, all float64; classify(aligned) are the target's pseudo-labels
            [n_target].
        classifier: such as `nearest_neighbour()` or `linear_ridge()`.
        width: of the space that the domains share; None for that of the features.

    Raises:
        ValueError: when it runs, on domains that do not fit (see `read_sample`) or a target that
            has labels.
    """

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        sample = read_sample(model, params, state, domains)
        if (sample.target_labels >= 0).any():
            raise ValueError(
                "a target has labels, which an alignment does not read: make it `unlabelled`, or a "
                "source by leaving out its role"
            )
        if np.ptp(sample.weights) > 0:
            logger.warning(
                "an alignment takes examples alike; their weights count in its classifier"
            )

        def moved(aligned: Aligned) -> Sample:
            weights = 1 if aligned.weights is None else aligned.weights
            return sample._replace(
                source=aligned.source,
                weights=sample.weights * weights,
                target=sample.target @ aligned.projection + aligned.offset,
            )

        def classify(aligned: Aligned) -> np.ndarray:
            return classifier.predict(moved(aligned))

        aligned = align(sample.source, sample.labels, sample.target, classify)
        return classifier.deploy(aligned, moved(aligned), params, state)

    return Method(prepare=prepare, aligns=True, **classifier.attributes(width))


def read_sample(model: Model, params: Params, state: State, domains: list[Columns]) -> Sample:
    """The features and labels of a stage's domains.

    Raises:
        ValueError: there are no sources or no targets, several heads or one without classes, no
            labelled source example, or features that are not finite.
    """
    sources, targets = sides_of([domain.role for domain in domains])
    names = sorted({name for domain in domains for name in domain.labels})
    if len(names) != 1 or not model.heads[names[0]].integer:
        raise ValueError(
            f"alignment needs one head of classes that all domains name; these name "
            f"{', '.join(names)}"
        )
    (head,) = names
    labels = [np.asarray(domain.labels[head]) for domain in domains]
    weights = [np.asarray(domain.weights[head], np.float64) for domain in domains]
    features = []
    for domain in domains:
        rows = backbone_features(model, params, state, domain.inputs)
        features.append(np.asarray(rows, np.float64).reshape(len(rows), -1))
    if not all(np.isfinite(rows).all() for rows in features):
        raise ValueError("the features that are to be aligned are not finite.")

    def pooled(side: Sequence[int]) -> list[np.ndarray]:
        return [np.concatenate([part[d] for d in side]) for part in (features, labels, weights)]

    source, source_labels, source_weights = pooled(sources)
    target, target_labels, target_weights = pooled(targets)
    labelled = source_weights > 0
    if not labelled.any():
        raise ValueError(f"no source example has a label for head {head!r}.")
    return Sample(
        head,
        model.heads[head].size,
        source[labelled],
        source_labels[labelled],
        source_weights[labelled],
        target,
        np.where(target_weights > 0, target_labels, -1),
        target_weights,
    )


def check_rounds(rounds: int) -> None:
    """Raises ValueError if there is no round."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1; got {rounds}")
