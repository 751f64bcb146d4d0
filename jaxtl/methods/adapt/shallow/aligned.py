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
from scipy.linalg import eigh, solve_triangular
from scipy.sparse.linalg import eigsh

from jaxtl.models import outputs
from jaxtl.plan import Columns, Method, Model, Params, State
from jaxtl.plan.batch import sides_of


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


logger = logging.getLogger(__name__)

Classify = Callable[[Aligned], np.ndarray]
Align = Callable[[np.ndarray, np.ndarray, np.ndarray, Classify], Aligned]


class Classifier(NamedTuple):
    """What is fitted on the aligned source examples, and how it is deployed.

    Attributes:
        predict: (aligned, labels [n_source], weights [n_source], classes, target [n_target,
            width]) -> predicted classes [n_target], on the host.
        deploy: (aligned, labels, weights, classes, head, params, state) -> (params, state).
        attributes: width of the shared space, None for that of the features -> the attributes of a
            Method that predicts with what was deployed.
    """

    predict: Callable[..., np.ndarray]
    deploy: Callable[..., tuple[Params, State]]
    attributes: Callable[[int | None], dict]


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
        ValueError: when it runs, on domains that do not fit (see `read_sample`).
    """

    def prepare(model: Model, params: Params, state: State, domains: list[Columns]):
        sample = read_sample(model, params, state, domains)
        unlabelled(sample)
        if np.ptp(sample.weights) > 0:
            logger.warning(
                "an alignment takes examples alike; their weights count in its classifier"
            )

        def classify(aligned: Aligned) -> np.ndarray:
            target = sample.target @ aligned.projection + aligned.offset
            weights = _weights(aligned, sample)
            return classifier.predict(aligned, sample.labels, weights, sample.classes, target)

        aligned = align(sample.source, sample.labels, sample.target, classify)
        weights = _weights(aligned, sample)
        return classifier.deploy(
            aligned, sample.labels, weights, sample.classes, sample.head, params, state
        )

    return Method(prepare=prepare, aligns=True, **classifier.attributes(width))


def _weights(aligned: Aligned, sample: Sample) -> np.ndarray:
    return sample.weights if aligned.weights is None else sample.weights * aligned.weights


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
        found = outputs(model, params, state, domain.inputs, "features")
        features.append(np.asarray(found, np.float64).reshape(len(found), -1))
    if not all(np.isfinite(part).all() for part in features):
        raise ValueError("the features that are to be aligned are not finite.")

    def pooled(side: Sequence[int]) -> list[np.ndarray]:
        return [np.concatenate([p[d] for d in side]) for p in (features, labels, weights)]

    (source, classes, counts), (target, others, seen) = pooled(sources), pooled(targets)
    known = counts > 0
    if not known.any():
        raise ValueError(f"no source example has a label for head {head!r}.")
    return Sample(
        head,
        model.heads[head].size,
        source[known],
        classes[known],
        counts[known],
        target,
        np.where(seen > 0, others, -1),
        seen,
    )


def unlabelled(sample: Sample) -> None:
    """Raises ValueError if a target has labels."""
    if (sample.target_labels >= 0).any():
        raise ValueError(
            "a target has labels, which an alignment does not read: make it `unlabelled`, or a "
            "source by leaving out its role"
        )


def at_least_one(rounds: int) -> None:
    """Raises ValueError if there is no round."""
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1; got {rounds}")


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """[n, classes] float64; zeros for label -1."""
    return (labels[:, None] == np.arange(classes)).astype(np.float64)


def principal(x: np.ndarray, dim: int) -> np.ndarray:
    """[features, dim], the orthonormal directions of largest variance, largest first.

    Raises:
        ValueError: the examples do not span so many.
    """
    most = min(len(x) - 1, x.shape[1])
    if not 0 < dim <= most:
        raise ValueError(
            f"dim must be between 1 and {most} for {len(x)} examples of {x.shape[1]} features; "
            f"got {dim}"
        )
    return pencil((x - x.mean(0)).T)(np.zeros((0, x.shape[1])), dim)[0]


Leading = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def pencil(factor: np.ndarray, base: np.ndarray | None = None) -> Leading:
    """Solver of the generalised eigenproblems F F' v = value * (base + G'G) v for several G.

    What does not depend on G is computed once, and G, of few rows, enters by Woodbury's identity.

    Args:
        factor: F [size, r].
        base: [size, size], positive definite; None for the identity.

    Returns:
        (G [rows, size], dim) -> (vectors [size, dim], values [dim]), largest first, with
        v' (base + G'G) v = 1.

    Raises:
        ValueError: by the solver, dim is not between 1 and the smaller size of the factor.
    """
    most = min(factor.shape)
    if factor.shape[1] > factor.shape[0]:
        values, vectors = eigh(factor @ factor.T)
        factor = vectors * np.sqrt(np.maximum(values, 0))
    root = None if base is None else np.linalg.cholesky(base)

    def halved(columns: np.ndarray, trans: int = 0) -> np.ndarray:
        return columns if root is None else solve_triangular(root, columns, trans, lower=True)

    white = halved(factor)
    gram = white.T @ white

    def leading(gaps: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 < dim <= most:
            raise ValueError(f"dim must be between 1 and {most}; got {dim}")
        apart = halved(gaps.T)
        share = np.linalg.solve(np.eye(len(gaps)) + apart.T @ apart, apart.T @ white)
        values, vectors = _largest(gram - (apart.T @ white).T @ share, dim)
        found = halved(white @ vectors - apart @ (share @ vectors), trans=1)
        return found / np.sqrt(np.maximum(values, np.finfo(np.float64).tiny)), values

    return leading


def _largest(matrix: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues [dim] of a symmetric matrix, descending, and their vectors."""
    size = len(matrix)
    if 5 * dim < size:
        values, vectors = eigsh(matrix, dim, v0=np.ones(size))
        order = np.argsort(-values)
        return values[order], vectors[:, order]
    values, vectors = eigh(matrix, subset_by_index=[size - dim, size - 1])
    return values[::-1], vectors[:, ::-1]


def unit_scale(*parts: np.ndarray) -> float:
    """The factor that gives the rows of all parts together a mean squared length of 1."""
    squares = sum((part**2).sum() for part in parts)
    return float(np.sqrt(sum(map(len, parts)) / squares)) if squares else 1.0
