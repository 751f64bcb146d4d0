"""Weights of source examples against SciPy's solvers."""

import numpy as np
import pytest
from scipy.optimize import minimize

from jaxtl.methods.adapt.shallow.kliep import density_ratio, likelihood_fit
from jaxtl.methods.adapt.shallow.kmm import into_simplex, mean_matching, median_kernels


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(12, 2)), rng.normal(size=(9, 2)) * 0.5 + 1


@pytest.mark.parametrize(("bound", "slack"), [(1000.0, None), (2.0, 0.1), (1.5, 0.0)])
def test_mean_matching_against_sequential_quadratic_programming(bound, slack):
    source, target = drawn()
    kernel, across = median_kernels(source, source, target, 0.5)
    cross = across.mean(1)
    found = mean_matching(kernel, cross, bound, slack, steps=20_000)
    room = 1 - 1 / np.sqrt(12) if slack is None else slack

    def objective(w):
        return w @ kernel @ w / 2 - 12 * cross @ w

    limits = [
        {"type": "ineq", "fun": lambda w: 1 + room - w.mean()},
        {"type": "ineq", "fun": lambda w: w.mean() - 1 + room},
    ]
    options = {"ftol": 1e-14, "maxiter": 1000}
    other = minimize(
        objective,
        np.ones(12),
        jac=lambda w: kernel @ w - 12 * cross,
        bounds=[(0, bound)] * 12,
        constraints=limits,
        method="SLSQP",
        options=options,
    )
    assert other.success
    assert objective(found) <= other.fun + 1e-6 * abs(other.fun)
    np.testing.assert_allclose(found, other.x, atol=2e-2)
    assert found.min() >= 0 and found.max() <= bound
    assert abs(found.mean() - 1) <= room + 1e-9


def test_mean_matching_of_the_same_sample_keeps_the_weights():
    source, _ = drawn()
    kernel, across = median_kernels(source, source, source, 1.0)
    np.testing.assert_allclose(mean_matching(kernel, across.mean(1), 10.0), 1, atol=1e-8)
    with pytest.raises(ValueError, match="bound must be at least 1"):
        mean_matching(kernel, across.mean(1), 0.5)


def test_projection_into_the_simplex_by_hand():
    np.testing.assert_allclose(into_simplex(np.array([3.0, 1, -1]), 10.0, 0.0), [2.5, 0.5, 0])
    np.testing.assert_allclose(into_simplex(np.array([9.0, 0, 0]), 2.0, 0.0), [2, 0.5, 0.5])
    np.testing.assert_allclose(into_simplex(np.array([1.0, 0.9]), 5.0, 0.1), [1.0, 0.9])


def test_kernels_by_hand():
    one, two = np.array([[0.0], [1.0]]), np.array([[2.0], [4.0]])
    own, across = median_kernels(one, one, two, 0.5)  # squares 4, 16, 1, 9: the median is 6.5
    np.testing.assert_allclose(own[0, 1], np.exp(-1 / (2 * 0.25 * 6.5)))
    np.testing.assert_allclose(across[1, 1], np.exp(-9 / (2 * 0.25 * 6.5)))


def test_likelihood_fit_against_scipy_and_its_constraint():
    rng = np.random.default_rng(3)
    target, source_mean = rng.uniform(0.1, 1, (15, 4)), rng.uniform(0.2, 0.6, 4)
    found = likelihood_fit(target, source_mean, steps=50_000, tolerance=0.0)
    assert found.min() >= 0
    assert found @ source_mean == pytest.approx(1, abs=1e-12)
    other = minimize(
        lambda a: -np.log(target @ a).mean(),
        np.full(4, 1 / source_mean.sum()),
        bounds=[(0, None)] * 4,
        constraints=[{"type": "eq", "fun": lambda a: a @ source_mean - 1}],
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert np.log(target @ found).mean() == pytest.approx(-other.fun, abs=1e-7)
    np.testing.assert_allclose(found, other.x, atol=1e-3)


def test_density_ratio_is_larger_where_the_target_is():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(400, 1)), rng.normal(size=(300, 1)) * 0.5 + 1
    found = density_ratio(source, target, (0.25, 0.5, 1.0), centres=50)
    assert found.mean() == pytest.approx(1, abs=1e-9)
    x = source[:, 0]
    truth = np.exp(-((x - 1) ** 2) / 0.5 + x**2 / 2) / 0.5
    assert np.corrcoef(found, truth)[0, 1] > 0.9
    np.testing.assert_array_equal(found, density_ratio(source, target, (0.25, 0.5, 1.0), 50))


def test_sources_out_of_reach_are_an_error():
    with pytest.raises(ValueError, match="take a larger bandwidth"):
        likelihood_fit(np.ones((3, 2)), np.zeros(2))
