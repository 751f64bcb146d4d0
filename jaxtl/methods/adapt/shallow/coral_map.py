"""Correlation alignment: the source gets the covariance of the target."""

import numpy as np

from jaxtl.methods.adapt.shallow.aligned import Aligned, Classifier, alignment, with_target_as_it_is
from jaxtl.methods.adapt.shallow.classifiers import linear_ridge
from jaxtl.plan import Method


def coral_map(classifier: Classifier | None = None, *, regularization: float = 1.0) -> Method:
    """Source features whitened, then coloured like the target, on which the classifier is fitted.

    Args:
        classifier: by default ridge regression, where the paper has a linear SVM.
        regularization: as in `recolour`; the paper's 1 is meant for features of unit variance.

    Sun, Feng, Saenko, "Return of Frustratingly Easy Domain Adaptation", AAAI 2016.
    arXiv:1511.05547, Algorithm 1.
    """

    def align(source, labels, target, classify) -> Aligned:
        return with_target_as_it_is(recolour(source, target, regularization))

    return alignment(align, classifier or linear_ridge())


def recolour(source: np.ndarray, target: np.ndarray, regularization: float = 1.0) -> np.ndarray:
    """Source examples with the mean and the regularised covariance of the target.

    They are (x - mean_s) C_s^-1/2 C_t^1/2 + mean_t with C = cov + regularization * I. The paper
    assumes features that were centred in each domain; elsewhere the means are aligned as well.

    Args:
        source: [n_source, features].
        target: [n_target, features].
        regularization: > 0.

    Returns:
        [n_source, features] float64.
    """
    if regularization <= 0:
        raise ValueError(f"regularization must be positive; got {regularization}")

    def root(x: np.ndarray, exponent: float) -> np.ndarray:
        covariance = np.atleast_2d(np.cov(x, rowvar=False))
        values, vectors = np.linalg.eigh(covariance + regularization * np.eye(len(covariance)))
        return (vectors * np.maximum(values, regularization) ** exponent) @ vectors.T

    centred = source - source.mean(0)
    return centred @ root(source, -0.5) @ root(target, 0.5) + target.mean(0)
