"""Plans of optimal transport against their marginals, linear programming and a hand case."""

import numpy as np
import pytest
from scipy.optimize import linprog

from jaxtl.methods.adapt.shallow.ot_map import sinkhorn_plan


def cost_of(n, m, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, m))


@pytest.mark.parametrize("regularization", [0.02, 1.0])
def test_marginals_are_uniform(regularization):
    plan = sinkhorn_plan(cost_of(7, 5), regularization, steps=20_000, tolerance=1e-10)
    np.testing.assert_allclose(plan.sum(1), 1 / 7, rtol=1e-9)
    np.testing.assert_allclose(plan.sum(0), 1 / 5, rtol=1e-9)


def test_the_plan_is_a_scaled_kernel():
    cost = cost_of(6, 4)
    plan = sinkhorn_plan(cost, 0.3, steps=5000, tolerance=1e-12)
    logs = np.log(plan) + cost / 0.3  # row number + column number
    np.testing.assert_allclose(logs - logs[:1] - logs[:, :1] + logs[0, 0], 0, atol=1e-9)


def test_little_entropy_is_linear_programming():
    cost = cost_of(5, 4)
    rows = np.kron(np.eye(5), np.ones(4)), np.kron(np.ones(5), np.eye(4))
    marginals = np.concatenate([np.full(5, 1 / 5), np.full(4, 1 / 4)])
    exact = linprog(cost.ravel(), A_eq=np.concatenate(rows), b_eq=marginals)
    plan = sinkhorn_plan(cost, 1e-3, steps=100_000, tolerance=1e-8)
    assert (plan * cost).sum() == pytest.approx(exact.fun, abs=2e-3)
    np.testing.assert_allclose(plan.ravel(), exact.x, atol=1e-3)


def test_much_entropy_is_independence_and_none_is_an_error():
    np.testing.assert_allclose(sinkhorn_plan(cost_of(3, 4), 1e6, tolerance=1e-9), 1 / 12, rtol=1e-5)
    with pytest.raises(ValueError, match="regularization must be positive"):
        sinkhorn_plan(cost_of(3, 4), 0.0)


def test_two_by_two_by_hand():
    # p on the diagonal: log(p^2 / (1/2 - p)^2) = 2 / regularization.
    plan = sinkhorn_plan(np.array([[0.0, 1], [1, 0]]), 0.5, tolerance=1e-9)
    odds = np.exp(2.0)
    np.testing.assert_allclose(plan[0], [odds / (1 + odds) / 2, 1 / (1 + odds) / 2], rtol=1e-6)
