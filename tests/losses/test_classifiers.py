import jax
import numpy as np
import pytest
from differences import assert_derivatives
from scipy.special import softmax

from jaxtl.losses import adaptive_feature_norm, classifier_discrepancy, margin_disparity

RNG = np.random.default_rng(0)
LOGITS, ADVERSARY = RNG.normal(size=(2, 5, 3)).astype(np.float32) * 2
TARGET_LOGITS, TARGET_ADVERSARY = RNG.normal(size=(2, 4, 3)).astype(np.float32) * 2
A, B = np.array([1, 2, 0, 0.5, 3]), np.array([1, 0, 2, 1.0])


def test_classifier_discrepancy_is_the_mean_gap_of_probabilities():
    def reference(logits, others):
        gaps = np.abs(softmax(logits, 1) - softmax(others, 1))
        return np.average(gaps.mean(1), weights=A)

    def loss(logits, others):
        return classifier_discrepancy(logits, others, A)

    assert_derivatives(loss, reference, LOGITS, ADVERSARY)
    opposite = 100 * np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(classifier_discrepancy(opposite, opposite[::-1]), 2 / 4, rtol=1e-6)


@pytest.mark.parametrize(("margin", "floor"), [(1.0, 0.0), (4.0, 1e-6), (2.0, 0.1)])
def test_margin_disparity_is_the_adversary_s(margin, floor):
    def reference(logits, adversary, target_logits, target_adversary):
        p, q = softmax(adversary, 1), softmax(target_adversary, 1)
        agreed = [-np.log(p[i, y]) for i, y in enumerate(logits.argmax(1))]
        avoided = [-np.log(1 - q[i, y] + floor) for i, y in enumerate(target_logits.argmax(1))]
        return margin * np.average(agreed, weights=A) + np.average(avoided, weights=B)

    def loss(*arrays):
        return margin_disparity(*arrays, A, B, margin=margin, floor=floor)

    arrays = LOGITS, ADVERSARY, TARGET_LOGITS, TARGET_ADVERSARY
    assert_derivatives(loss, reference, *arrays)


def test_margin_disparity_of_a_sure_adversary_has_its_gradient_or_none():
    logits = np.float32([[60, 0, 0]])
    exact, floored = (
        jax.value_and_grad(
            lambda adversary, f=floor: margin_disparity(logits, logits, logits, adversary, floor=f)
        )(logits)
        for floor in (0.0, 1e-6)
    )
    # -log(1 - p) = 60 - log 2, where 1 - p is 0 in float32.
    np.testing.assert_allclose(exact[0], 60 - np.log(2), rtol=1e-6)
    np.testing.assert_allclose(exact[1], [[1, -0.5, -0.5]], rtol=1e-6)
    np.testing.assert_allclose(floored[0], -np.log(1e-6), rtol=1e-6)
    np.testing.assert_allclose(floored[1], np.zeros((1, 3)), atol=1e-6)
    with pytest.raises(ValueError, match="2 classes or more expected, got 1"):
        margin_disparity(*[np.ones((3, 1))] * 4)


def test_adaptive_feature_norm_pushes_all_norms_alike():
    features = np.float32([[3, 4], [0, 0.5], [0, 0], [1, 1]])
    weights = np.float32([1, 2, 1, 0])
    value, gradient = jax.value_and_grad(adaptive_feature_norm)(features, weights, increment=0.5)
    np.testing.assert_allclose(value, 0.25, rtol=1e-6)
    # -2 * 0.5 along the unit vector, times the share of the weight.
    expected = [[-0.6 / 4, -0.8 / 4], [0, -2 / 4], [0, 0], [0, 0]]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)
