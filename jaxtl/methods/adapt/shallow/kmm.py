"""Kernel mean matching: source examples weighted so that their mean is the target's."""

import numpy as np
import scipy

from jaxtl.methods.adapt.shallow.aligned import Aligned, Classifier, alignment, with_target_as_it_is
from jaxtl.methods.adapt.shallow.classifiers import linear_ridge
from jaxtl.plan import Method


def kmm(
    classifier: Classifier | None = None,
    *,
    bandwidth: float = 1.0,
    bound: float = 1000.0,
) -> Method:
    """The classifier of the source examples with the weights of `mean_matching`.

    Args:
        classifier: one that minds weights; by default ridge regression.
        bandwidth: of a Gaussian kernel, in medians of the distance between examples.
        bound: largest weight, the paper's B.

    Huang, Smola, Gretton, Borgwardt, Schölkopf, "Correcting Sample Selection Bias by Unlabeled
    Data", NeurIPS 2006.
    """

    def align(source, labels, target, classify) -> Aligned:
        kernel, cross = median_kernels(source, source, target, bandwidth)
        weights = mean_matching(kernel, cross.mean(1), bound)
        return with_target_as_it_is(source, weights / weights.mean())

    return alignment(align, classifier or linear_ridge())


def median_kernels(
    x: np.ndarray, source: np.ndarray, target: np.ndarray, bandwidth: float
) -> tuple[np.ndarray, np.ndarray]:
    """exp(-|x - y|^2 / (2 s^2)) of x with the source and with the target.

    Args:
        x: [n, features].
        source, target: [n_source, features], [n_target, features].
        bandwidth: s in medians of the distances between source and target.

    Returns:
        [n, n_source] and [n, n_target].
    """
    cdist = scipy.spatial.distance.cdist
    scale = 2 * bandwidth**2 * max(np.median(cdist(source, target, "sqeuclidean")), 1e-12)
    return tuple(np.exp(-cdist(x, side, "sqeuclidean") / scale) for side in (source, target))


def mean_matching(
    kernel: np.ndarray,
    cross: np.ndarray,
    bound: float,
    slack: float | None = None,
    steps: int = 2000,
) -> np.ndarray:
    """Weights [n] that minimise |1/n sum_i w_i phi(x_i) - mean of the target|^2.

    Subject to 0 <= w <= bound and |mean(w) - 1| <= slack, by accelerated projected gradients.

    Args:
        kernel: K [n, n] of the source examples.
        cross: [n], the mean kernel of each with the target.
        bound: B, at least 1.
        slack: epsilon; the paper's (sqrt(n) - 1) / sqrt(n) if None.
        steps: most gradient steps; fewer once the weights stay.

    Raises:
        ValueError: bound is less than 1.
    """
    if bound < 1:
        raise ValueError(f"bound must be at least 1, the mean of the weights; got {bound}")
    n = len(kernel)
    slack = 1 - 1 / np.sqrt(n) if slack is None else slack
    rate = 1 / max(np.abs(kernel).sum(1).max(), 1e-12)  # at least the largest eigenvalue
    weights = ahead = np.ones(n)
    momentum = 1.0
    for _ in range(steps):
        new = into_simplex(ahead - rate * (kernel @ ahead - n * cross), bound, slack)
        if (ahead - new) @ (new - weights) > 0:  # it went uphill: the momentum starts anew
            momentum = 1.0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / following * (new - weights)
        still = np.abs(new - weights).max() <= 1e-10 * max(1.0, np.abs(new).max())
        weights, momentum = new, following
        if still:
            break
    return weights


def into_simplex(values: np.ndarray, bound: float, slack: float) -> np.ndarray:
    """The nearest weights with 0 <= w <= bound and |mean(w) - 1| <= slack."""
    clipped = np.clip(values, 0, bound)
    goal = np.clip(clipped.mean(), 1 - slack, min(1 + slack, bound))
    if goal == clipped.mean():
        return clipped
    low, high = values.min() - bound, values.max()
    for _ in range(100):  # the mean falls with the shift
        shift = (low + high) / 2
        if np.clip(values - shift, 0, bound).mean() > goal:
            low = shift
        else:
            high = shift
    return np.clip(values - high, 0, bound)
