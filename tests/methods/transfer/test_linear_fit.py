import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV

from jaxtl.methods.transfer.linear_fit import logistic_fit, ridge_fit, stratified_folds

PENALTIES = (1e-3, 0.1, 1.0, 30.0, 1e4)
TIGHT = {"rtol": 1e-6, "atol": 1e-9}


def draw(n=40, width=6, size=3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, width)) + rng.normal(size=width)
    targets = features @ rng.normal(size=(width, size)) + 5 + rng.normal(size=(n, size))
    return features, targets, rng.uniform(0.2, 3, n), rng.normal(size=(width, size))


def normal_equations(features, targets, penalty, weights, prior):
    """Solve for (W, b) jointly, the intercept an unpenalised column."""
    design = np.column_stack([features, np.ones(len(features))])
    shrink = penalty * np.diag([*np.ones(features.shape[1]), 0.0])
    anchored = np.vstack([prior, np.zeros(targets.shape[1])])
    left = design.T @ (weights[:, None] * design) + shrink
    right = design.T @ (weights[:, None] * targets) + shrink @ anchored
    solution = np.linalg.solve(left, right)
    return solution[:-1], solution[-1]


@pytest.mark.parametrize("shape", [(40, 6), (8, 20)])
@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_ridge_is_that_of_scikit_learn(shape, penalty):
    features, targets, weights, _ = draw(*shape)
    reference = Ridge(alpha=penalty).fit(features, targets, sample_weight=weights)
    kernel, bias, chosen, _ = ridge_fit(features, targets, [penalty], weights)
    np.testing.assert_allclose(kernel, reference.coef_.T, **TIGHT)
    np.testing.assert_allclose(bias, reference.intercept_, **TIGHT)
    assert chosen == penalty


@pytest.mark.parametrize("shape", [(40, 6), (12, 20)])
def test_leave_one_out_is_that_of_ridge_cv(shape):
    features, targets, *_ = draw(*shape)
    reference = RidgeCV(PENALTIES, store_cv_results=True).fit(features, targets)
    kernel, bias, penalty, errors = ridge_fit(features, targets, PENALTIES)
    assert penalty == reference.alpha_
    np.testing.assert_allclose(kernel, reference.coef_.T, **TIGHT)
    np.testing.assert_allclose(bias, reference.intercept_, **TIGHT)
    np.testing.assert_allclose(errors, reference.cv_results_.mean((0, 1)), **TIGHT)


@pytest.mark.parametrize("shape", [(15, 4), (6, 9)])
def test_errors_are_those_of_a_loop_over_what_is_left_out(shape):
    features, targets, weights, prior = draw(*shape)
    n = len(features)
    fit = ridge_fit(features, targets, PENALTIES, weights, prior)
    expected = []
    for penalty in PENALTIES:
        squares = np.empty(n)
        for i in range(n):
            rest = np.arange(n) != i
            kernel, bias = normal_equations(
                features[rest], targets[rest], penalty, weights[rest], prior
            )
            squares[i] = np.mean((features[i] @ kernel + bias - targets[i]) ** 2)
        expected.append(weights @ squares / weights.sum())
    np.testing.assert_allclose(fit.errors, expected, **TIGHT)
    assert fit.penalty == PENALTIES[np.argmin(expected)]


@pytest.mark.parametrize("shape", [(40, 6), (8, 20)])
@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_biased_ridge_solves_the_normal_equations(shape, penalty):
    features, targets, weights, prior = draw(*shape)
    kernel, bias = normal_equations(features, targets, penalty, weights, prior)
    fit = ridge_fit(features, targets, [penalty], weights, prior)
    np.testing.assert_allclose(fit.kernel, kernel, **TIGHT)
    np.testing.assert_allclose(fit.bias, bias, **TIGHT)


def test_biased_ridge_goes_from_least_squares_to_the_prior():
    features, targets, weights, prior = draw()
    design = np.sqrt(weights)[:, None] * np.column_stack([features, np.ones(len(features))])
    least = np.linalg.lstsq(design, np.sqrt(weights)[:, None] * targets, rcond=None)[0]
    for penalty in (0.0, 1e-9):
        fit = ridge_fit(features, targets, [penalty], weights, prior)
        np.testing.assert_allclose(np.vstack([fit.kernel, fit.bias]), least, **TIGHT)
    fit = ridge_fit(features, targets, [1e12], weights, prior)
    np.testing.assert_allclose(fit.kernel, prior, **TIGHT)
    mean = np.average(targets - features @ prior, axis=0, weights=weights)
    np.testing.assert_allclose(fit.bias, mean, **TIGHT)


def test_penalty_zero_interpolates_next_to_the_prior():
    features, targets, weights, prior = draw(5, 9)
    fit = ridge_fit(features, targets, [0.0], weights, prior)
    np.testing.assert_allclose(features @ fit.kernel + fit.bias, targets, **TIGHT)
    centred = features - np.average(features, axis=0, weights=weights)
    nearest = prior + np.linalg.pinv(centred) @ (
        targets - features @ prior - (fit.bias + (features - centred)[0] @ (fit.kernel - prior))
    )
    np.testing.assert_allclose(fit.kernel, nearest, **TIGHT)


def test_weights_are_repetitions_and_weight_zero_is_absent():
    features, targets, _, prior = draw()
    weights = np.arange(len(features)) % 4
    rows = np.repeat(np.arange(len(features)), weights)
    targets[weights == 0] = np.nan
    weighted = ridge_fit(features, targets, [2.0], weights, prior)
    repeated = ridge_fit(features[rows], targets[rows], [2.0], None, prior)
    np.testing.assert_allclose(weighted.kernel, repeated.kernel, **TIGHT)
    np.testing.assert_allclose(weighted.bias, repeated.bias, **TIGHT)
    chosen = ridge_fit(features, targets, PENALTIES, weights, prior)
    seen = weights > 0
    without = ridge_fit(features[seen], targets[seen], PENALTIES, weights[seen], prior)
    np.testing.assert_allclose(chosen.errors, without.errors, **TIGHT)


def test_one_example_keeps_the_prior_and_fits_the_bias():
    features, targets, _, prior = draw(1)
    fit = ridge_fit(features, targets, PENALTIES, None, prior)
    assert fit.penalty == max(PENALTIES) and np.isinf(fit.errors).all()
    np.testing.assert_allclose(fit.kernel, prior)
    np.testing.assert_allclose(features @ fit.kernel + fit.bias, targets)


def test_constant_features_predict_the_mean():
    _, targets, *_ = draw()
    fit = ridge_fit(np.ones((len(targets), 2)), targets, [0.0, 1.0])
    np.testing.assert_array_equal(fit.kernel, np.zeros((2, 3)))
    np.testing.assert_allclose(fit.bias, targets.mean(0))


def classes_drawn(size=4, n=60, width=3):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(n, width))
    labels = (features @ rng.normal(size=(width, size)) + rng.gumbel(size=(n, size))).argmax(1)
    return features, labels, rng.uniform(0.2, 3, n)


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_logistic_is_a_stationary_point(penalty):
    features, labels, weights = classes_drawn()
    kernel, bias, *_ = logistic_fit(features, labels, 4, [penalty], weights)
    logits = features @ kernel + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    slope = weights[:, None] * (probabilities - np.eye(4)[labels])
    np.testing.assert_allclose(features.T @ slope + penalty * kernel, 0, atol=1e-5)
    np.testing.assert_allclose(slope.sum(0), 0, atol=1e-5)


@pytest.mark.parametrize("size", [2, 4])
def test_logistic_is_that_of_scikit_learn(size):
    features, labels, weights = classes_drawn(size)
    kernel, bias, *_ = logistic_fit(features, labels, size, [0.5], weights)
    reference = LogisticRegression(C=2.0, tol=1e-8, max_iter=1000).fit(features, labels, weights)
    logits = features @ kernel + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, reference.predict_proba(features), rtol=1e-6)


@pytest.mark.slow
def test_logistic_with_several_penalties_takes_the_best_on_the_folds():
    features, labels, weights = classes_drawn()
    folds, penalties = stratified_folds(labels, 3), (0.01, 1.0, 1e3)
    fit = logistic_fit(features, labels, 4, penalties, weights, folds)
    expected = []
    for penalty in penalties:
        total = 0.0
        for i in range(len(labels)):
            rest = folds != folds[i]
            one = logistic_fit(features[rest], labels[rest], 4, [penalty], weights[rest])
            logits = features[i] @ one.kernel + one.bias
            total -= weights[i] * (logits[labels[i]] - np.log(np.exp(logits).sum()))
        expected.append(total / weights.sum())
    np.testing.assert_allclose(fit.errors, expected, rtol=1e-6)
    assert fit.penalty == penalties[np.argmin(expected)]


@pytest.mark.parametrize("present", [[1], [0, 2], [0, 1, 3]])
def test_logistic_gives_absent_classes_no_probability(present):
    features, labels, _ = classes_drawn()
    rows = np.isin(labels, present)
    kernel, bias, *_ = logistic_fit(features[rows], labels[rows], 5, [1.0])
    logits = 100 * features @ kernel + bias  # far from the training data too
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    absent = np.setdiff1d(np.arange(5), present)
    assert probabilities[:, absent].max() < 1e-8
    np.testing.assert_array_equal(np.unique(probabilities.argmax(1)), present)


def test_folds_hold_the_same_number_of_each_class():
    classes = np.repeat([2, 0, 1], [10, 15, 7])
    folds = stratified_folds(classes, 5)
    for each in range(3):
        counts = np.bincount(folds[classes == each], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(folds)) <= 1
    assert len(np.unique(folds[:10][:5])) > 1  # not the order of the file
