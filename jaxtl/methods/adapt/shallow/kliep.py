"""Direct importance estimation: a density ratio of target to source as a sum of Gaussians."""

from collections.abc import Sequence

import numpy as np

from jaxtl.methods.adapt.shallow.aligned import Aligned, Classifier, alignment, with_target_as_it_is
from jaxtl.methods.adapt.shallow.classifiers import linear_ridge
from jaxtl.methods.adapt.shallow.kmm import median_kernels
from jaxtl.methods.transfer.linear_fit import stratified_folds
from jaxtl.plan import Method


def kliep(
    classifier: Classifier | None = None,
    *,
    bandwidths: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
    centres: int = 100,
    folds: int = 5,
) -> Method:
    """The classifier of the source examples weighted by an estimate of the density ratio.

    Args:
        classifier: one that minds weights; by default ridge regression.
        bandwidths: candidates, in medians of the distance between source and target examples;
            the one of largest likelihood on target examples left out is taken.
        centres: target examples at which the Gaussians stand, drawn at random.
        folds: of the cross-validation.

    Sugiyama, Nakajima, Kashima, von Bünau, Kawanabe, "Direct Importance Estimation with Model
    Selection and Its Application to Covariate Shift Adaptation", NeurIPS 2007.
    """

    def align(source, labels, target, classify) -> Aligned:
        weights = density_ratio(source, target, bandwidths, centres, folds)
        return with_target_as_it_is(source, weights)

    return alignment(align, classifier or linear_ridge())


def density_ratio(
    source: np.ndarray,
    target: np.ndarray,
    bandwidths: Sequence[float],
    centres: int = 100,
    folds: int = 5,
) -> np.ndarray:
    """[n_source], target density by source density at the source examples, of mean 1.

    Args:
        source, target: [n_source, features], [n_target, features].
        bandwidths, centres, folds: as in `kliep`.
    """
    rng = np.random.default_rng(0)
    middle = target[np.sort(rng.permutation(len(target))[:centres])]
    assigned = stratified_folds(np.zeros(len(target), int), folds)
    scores, kernels = [], []
    for bandwidth in bandwidths:
        source_kernel, target_kernel = median_kernels(middle, source, target, bandwidth)
        score = 0.0
        for fold in range(folds) if len(bandwidths) > 1 else ():
            held = assigned == fold
            amounts = likelihood_fit(target_kernel[:, ~held].T, source_kernel.mean(1))
            likelihoods = np.maximum(target_kernel[:, held].T @ amounts, 1e-300)
            score += np.log(likelihoods).mean() / folds
        scores.append(score)
        kernels.append((source_kernel, target_kernel))
    source_kernel, target_kernel = kernels[int(np.argmax(scores))]
    return source_kernel.T @ likelihood_fit(target_kernel.T, source_kernel.mean(1))


def likelihood_fit(
    target: np.ndarray, source_mean: np.ndarray, steps: int = 1000, tolerance: float = 1e-10
) -> np.ndarray:
    """Amounts a [centres] >= 0 that maximise mean_t log(k_t a) with mean_s(k_s) a = 1.

    The paper climbs the gradient and projects. In b = a * source_mean, which sums to 1, this is
    the maximum likelihood of the proportions of a mixture, so EM reaches the same maximum without
    a step size and keeps the constraint at each step.

    Args:
        target: [n_target, centres], kernels of the target examples.
        source_mean: [centres], mean kernel of the source examples.
        steps: most of EM.
        tolerance: it ends when the mean log-likelihood grows by less.
    """
    usable = source_mean > 1e-12
    if not usable.any():
        raise ValueError("no source example is near the target; take a larger bandwidth")
    ratio = target[:, usable] / source_mean[usable]
    # A target example that no centre reaches would have no likelihood.
    ratio = np.maximum(ratio, 1e-300)
    shares, previous = np.full(usable.sum(), 1 / usable.sum()), -np.inf
    for _ in range(steps):
        total = ratio @ shares
        log_likelihood = np.log(total).mean()
        if log_likelihood - previous < tolerance:
            break
        previous = log_likelihood
        shares = shares * (ratio / total[:, None]).mean(0)
    amounts = np.zeros(len(source_mean))
    amounts[usable] = shares / source_mean[usable]
    return amounts
