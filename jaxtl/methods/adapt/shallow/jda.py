"""Transfer component analysis and joint distribution adaptation: small differences of means."""

import numpy as np

from jaxtl.methods.adapt.shallow.aligned import (
    Aligned,
    Classifier,
    Classify,
    alignment,
    check_rounds,
)
from jaxtl.methods.adapt.shallow.classifiers import nearest_neighbour
from jaxtl.methods.adapt.shallow.eigenproblems import Leading, pencil, unit_scale
from jaxtl.plan import Method


def tca(
    classifier: Classifier | None = None,
    *,
    dim: int = 30,
    regularization: float = 1.0,
) -> Method:
    """Components of large variance in which the domains' means agree.

    The kernel is linear, so that new examples have a place too. Features are first scaled by one
    number, to a mean squared length of 1, which gives `regularization` its meaning.

    Args:
        classifier: by default the nearest neighbour by cosine, as is usual on these components.
        dim: number of components.
        regularization: > 0, the paper's mu.

    Pan, Tsang, Kwok, Yang, "Domain Adaptation via Transfer Component Analysis", IEEE TNN 2011.
    """
    return jda(classifier, dim=dim, regularization=regularization, rounds=1)


def jda(
    classifier: Classifier | None = None,
    *,
    dim: int = 30,
    regularization: float = 1.0,
    rounds: int = 10,
) -> Method:
    """TCA, repeated with the means of each class too, by pseudo-labels of the target.

    Args:
        classifier: gives the pseudo-labels and the predictions; by default the nearest neighbour
            by cosine, as in the paper's experiments.
        dim: number of components.
        regularization: > 0, the paper's lambda; features are scaled as for `tca`.
        rounds: of components and pseudo-labels; the first has no pseudo-labels.

    Long, Wang, Ding, Sun, Yu, "Transfer Feature Learning with Joint Distribution Adaptation",
    ICCV 2013, Algorithm 1.
    """
    check_rounds(rounds)

    def align(source, labels, target, classify: Classify) -> Aligned:
        factor, pseudo = unit_scale(source, target), None
        x = factor * np.concatenate([source, target])
        leading = transfer_components(x, regularization)
        for _ in range(rounds):
            components, _ = leading(mean_gaps(labels, pseudo, len(target)) @ x, dim)
            aligned = Aligned(factor * source @ components, factor * components, np.zeros(dim))
            pseudo = classify(aligned)
        return aligned

    chosen = classifier or nearest_neighbour(cosine=True)
    return alignment(align, chosen, width=dim)


def mean_gaps(labels: np.ndarray, pseudo: np.ndarray | None, n_target: int) -> np.ndarray:
    """E [gaps, n_source + n_target] with M = E'E: each row takes one difference of two means.

    The first row is source minus target, the others are the same for each class that both have.

    Args:
        labels: [n_source].
        pseudo: [n_target] predicted classes, None for the first row only.
        n_target: number of target examples.
    """

    def gap(source: np.ndarray, target: np.ndarray) -> np.ndarray:
        return np.concatenate([source / source.sum(), -(target / target.sum())])

    rows = [gap(np.ones(len(labels)), np.ones(n_target))]
    if pseudo is not None:
        rows += [gap(labels == c, pseudo == c) for c in np.intersect1d(labels, pseudo)]
    return np.stack(rows)


def transfer_components(x: np.ndarray, regularization: float) -> Leading:
    """Components A that minimise tr(A'(G'G + regularization I)A) for given variance A'X'HXA.

    Args:
        x: X [n, features] of both domains; H centres it.
        regularization: > 0.

    Returns:
        (G [gaps, features], dim) -> (A [features, dim], ratio [dim] of variance to what is
        minimised, largest first), with G = E X for E of `mean_gaps`. The components are scaled to
        minimise to 1 each, so that one with a larger ratio weighs more in distances; the papers
        fix the variance of each to 1.

    Raises:
        ValueError: regularization is not positive; dim is not between 1 and the number of features
            and of examples.
    """
    if regularization <= 0:
        raise ValueError(f"regularization must be positive; got {regularization}")
    return pencil((x - x.mean(0)).T, regularization * np.eye(x.shape[1]))
