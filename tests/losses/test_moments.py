"""Covariances against NumPy, moments against SciPy."""

import numpy as np
import pytest
from differences import assert_derivatives
from scipy import stats

from jaxtl.losses import central_moment_discrepancy, coral, covariance

RNG = np.random.default_rng(0)
SOURCE = RNG.uniform(size=(6, 3)).astype(np.float32)
TARGET = RNG.uniform(size=(5, 3)).astype(np.float32) ** 2
A, B = np.array([1, 2, 1, 3, 1, 1]), np.array([2, 1, 1, 2, 1])


def test_covariance_is_that_of_numpy_far_from_the_origin_too():
    np.testing.assert_allclose(covariance(SOURCE), np.cov(SOURCE.T), rtol=1e-5, atol=1e-7)
    expected = np.cov(SOURCE.T.astype(float), fweights=A)
    np.testing.assert_allclose(covariance(SOURCE, A), expected, rtol=1e-5, atol=1e-7)
    far = SOURCE + np.float32(4096)
    np.testing.assert_allclose(covariance(far), np.cov(far.T.astype(float)), rtol=1e-5, atol=1e-7)
    assert not covariance(SOURCE[:1]).any() and not covariance(SOURCE, 0 * A).any()


def test_coral_is_the_paper_s():
    def reference(source, target):
        gap = np.cov(source.T, fweights=A) - np.cov(target.T, fweights=B)
        return np.sum(gap**2) / (4 * 3**2)

    assert_derivatives(lambda s, t: coral(s, t, A, B), reference, SOURCE, TARGET, atol=1e-7)


def test_coral_of_a_doubled_and_of_a_shifted_domain():
    expected = 9 * np.sum(np.cov(SOURCE.T) ** 2) / 36  # cov(2x) = 4 cov(x)
    np.testing.assert_allclose(coral(SOURCE, 2 * SOURCE), expected, rtol=1e-5)
    np.testing.assert_allclose(coral(SOURCE, SOURCE + 3), 0, atol=1e-10)


@pytest.mark.parametrize("order, low, high", [(5, 0.0, 1.0), (3, -1.0, 2.0), (1, 0.0, 1.0)])
def test_central_moments_are_those_of_scipy(order, low, high):
    def reference(source, target):
        x, y = np.repeat(source, A, 0), np.repeat(target, B, 0)
        total = np.linalg.norm(x.mean(0) - y.mean(0)) / (high - low)
        for k in range(2, order + 1):
            gap = stats.moment(x, k, axis=0) - stats.moment(y, k, axis=0)
            total += np.linalg.norm(gap) / (high - low) ** k
        return total

    def loss(source, target):
        return central_moment_discrepancy(source, target, A, B, order=order, low=low, high=high)

    assert_derivatives(loss, reference, SOURCE, TARGET)


def test_central_moments_of_coins_by_hand():
    # A fair coin's central moments are 0, 1/4, 0, 1/16, 0; a constant's are all 0.
    coin, constant = np.float32([[0], [1]]), np.float32([[0.5], [0.5]])
    np.testing.assert_allclose(
        central_moment_discrepancy(coin, constant), 1 / 4 + 1 / 16, rtol=1e-6
    )


@pytest.mark.parametrize("options", [{"order": 0}, {"low": 1.0, "high": 1.0}])
def test_central_moments_say_what_they_need(options):
    with pytest.raises(ValueError, match="order >= 1 and low < high expected"):
        central_moment_discrepancy(SOURCE, TARGET, **options)
