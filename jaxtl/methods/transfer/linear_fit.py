"""Linear maps fitted in float64 on the host: ridge and multinomial logistic regression.

The penalty is chosen by the prediction of examples left out: one at a time in closed form (ridge),
or one fold at a time (logistic regression). Penalties are relative to *sums* over the examples, as
in scikit-learn's `Ridge(alpha=penalty)` and `LogisticRegression(C=1 / penalty)`; the intercept is
not penalised.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Fit(NamedTuple):
    """A linear map and how it was chosen.

    Attributes:
        kernel: [features, size] float64.
        bias: [size] float64.
        penalty: the one chosen; ties go to the largest.
        errors: [penalties], the error of each on examples left out: the mean square for ridge,
            the mean cross-entropy for logistic regression. Infinite where it is not defined, NaN
            where it was not needed.
    """

    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
    errors: np.ndarray


def ridge_fit(
    features: np.ndarray,
    targets: np.ndarray,
    penalties: Sequence[float],
    weights: np.ndarray | None = None,
    prior: np.ndarray | None = None,
) -> Fit:
    """Minimise sum_i w_i |y_i - x_i W - b|^2 + penalty * |W - prior|^2 over W and b.

    That is W = prior + (X'X + penalty I)^-1 X'(Y - X prior) for X and Y centred by their weighted
    means. One eigendecomposition serves all penalties. Penalty 0 gives the solution nearest to the
    prior.

    Args:
        features: [n, features].
        targets: [n, size].
        penalties: >= 0; several are compared by leaving out one example at a time with its whole
            weight, in closed form (`RidgeCV`).
        weights: [n] >= 0, frequency weights; ones if None.
        prior: [features, size], where W shrinks to; zeros if None.
    """
    features, targets = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    prior = np.zeros((features.shape[1], targets.shape[1])) if prior is None else prior
    prior, weights = np.asarray(prior, np.float64), _float_weights(weights, len(features))
    residuals, present = targets - features @ prior, weights > 0
    solve, leave_one_out = _decompose(features[present], residuals[present], weights[present])
    errors = np.full(1, np.nan)
    if len(penalties) > 1:
        errors = np.array([leave_one_out(penalty) for penalty in penalties])
    penalty = _best(penalties, errors)
    kernel, bias = solve(penalty)
    return Fit(prior + kernel, bias, penalty, errors)


def _decompose(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> tuple[Callable[[float], tuple[np.ndarray, np.ndarray]], Callable[[float], float]]:
    """penalty -> (kernel, bias), and penalty -> mean squared leave-one-out error."""
    total = weights.sum()
    feature_mean, target_mean = weights @ features / total, weights @ targets / total
    root = np.sqrt(weights)[:, None]
    centred, goals = root * (features - feature_mean), root * (targets - target_mean)
    # centred = scores @ directions.T with orthogonal scores of squared length `values`.
    n, width = centred.shape
    if n > width:
        values, directions = np.linalg.eigh(centred.T @ centred)
    else:
        values, left = np.linalg.eigh(centred @ centred.T)
    significant = values > values[-1] * max(n, width) * np.finfo(np.float64).eps
    values = values[significant]
    if n > width:
        directions = directions[:, significant]
        scores = centred @ directions
    else:
        scores = left[:, significant] * np.sqrt(values)
        directions = centred.T @ (left[:, significant] / np.sqrt(values))
    projected = scores.T @ goals

    def solve(penalty: float) -> tuple[np.ndarray, np.ndarray]:
        kernel = directions @ (projected / (values + penalty)[:, None])
        return kernel, target_mean - feature_mean @ kernel

    def leave_one_out(penalty: float) -> float:
        # Diagonal of the hat matrix, with the intercept's part.
        leverage = scores**2 @ (1 / (values + penalty)) + weights / total
        missed = goals - scores @ (projected / (values + penalty)[:, None])
        if leverage.max() > 1 - 1e-10:
            return np.inf  # without that example nothing determines its prediction
        return float(((missed / (1 - leverage)[:, None]) ** 2).mean(1).sum() / total)

    return solve, leave_one_out


def logistic_fit(
    features: np.ndarray,
    labels: np.ndarray,
    size: int,
    penalties: Sequence[float],
    weights: np.ndarray | None = None,
    folds: np.ndarray | None = None,
) -> Fit:
    """Minimise sum_i w_i cross_entropy(x_i W + b, y_i) + penalty / 2 * |W|^2 over W and b.

    By scikit-learn's `LogisticRegression(C=1 / penalty)`. Two classes are its binary case, where
    the penalty acts on the difference of the two columns of W. A class without examples has zero
    kernel and a logit 20 below the mean of the others: probability < 1e-8 for all inputs.

    Args:
        features: [n, features].
        labels: [n] int in [0, size).
        size: number of classes.
        penalties: > 0; several are compared by cross-entropy on each fold in turn.
        weights: [n] >= 0, frequency weights; ones if None.
        folds: [n] int, the fold of each example; needed if there are several penalties.
    """
    features = np.asarray(features, np.float64)
    weights = _float_weights(weights, len(features))
    present = weights > 0

    def solve(penalty: float, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _logistic(features[rows], labels[rows], size, penalty, weights[rows])

    def cross_entropy(kernel: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> float:
        logits = features[rows] @ kernel + bias
        chosen = np.take_along_axis(logits, labels[rows, None], 1)[:, 0]
        return weights[rows] @ (np.logaddexp.reduce(logits, 1) - chosen)

    if len(penalties) == 1:
        return Fit(*solve(penalties[0], present), float(penalties[0]), np.full(1, np.nan))
    errors = np.zeros(len(penalties))
    for fold in np.unique(folds[present]):
        left_out, rest = present & (folds == fold), present & (folds != fold)
        if rest.any():
            errors += [cross_entropy(*solve(penalty, rest), left_out) for penalty in penalties]
        else:
            errors[:] = np.inf
    errors /= weights.sum()
    penalty = _best(penalties, errors)
    return Fit(*solve(penalty, present), penalty, errors)


def _logistic(
    features: np.ndarray, labels: np.ndarray, size: int, penalty: float, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    kernel, bias = np.zeros((features.shape[1], size)), np.zeros(size)
    if len(present) > 1:
        model = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10_000)
        model.fit(features, labels, sample_weight=weights)
        coefficients, intercept = model.coef_, model.intercept_
        if len(present) == 2:
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercept = np.concatenate([-intercept, intercept]) / 2
        kernel[:, present], bias[present] = coefficients.T, intercept
    # The columns of the kernel sum to 0, so that the mean logit is the mean bias.
    bias[np.setdiff1d(np.arange(size), present)] = bias[present].mean() - 20
    return kernel, bias


def stratified_folds(classes: np.ndarray, count: int) -> np.ndarray:
    """Fold [n] int of each example: each class is dealt out in turn, in a fixed random order.

    Args:
        classes: [n] int; all equal where there are none.
        count: number of folds.
    """
    order = np.lexsort((np.random.default_rng(0).random(len(classes)), classes))
    folds = np.empty(len(classes), np.int64)
    folds[order] = np.arange(len(classes)) % count
    return folds


def _best(penalties: Sequence[float], errors: np.ndarray) -> float:
    best = min(range(len(penalties)), key=lambda i: (errors[i], -penalties[i]))
    return float(penalties[best])


def _float_weights(weights: np.ndarray | None, count: int) -> np.ndarray:
    return np.ones(count) if weights is None else np.asarray(weights, np.float64)
