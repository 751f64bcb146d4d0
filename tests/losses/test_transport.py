"""Optimal transport against SciPy's linear programs, assignments and distances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import assert_derivatives
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist

from jaxtl.losses import sinkhorn, sliced_wasserstein, squared_distances

RNG = np.random.default_rng(0)
SOURCE = RNG.normal(size=(5, 2)).astype(np.float32)
TARGET = RNG.normal(size=(4, 2)).astype(np.float32) + 0.5
A, B = np.array([1, 2, 0, 3, 1.0]), np.array([2, 1, 1, 2.0])
COST = cdist(SOURCE, TARGET, "sqeuclidean")
KEY = jax.random.key(0)


def scaled(cost, a, b, regularization, steps):
    """Plain Sinkhorn scalings in float64."""
    a, b, kernel = a / a.sum(), b / b.sum(), np.exp(-cost / regularization)
    v = b
    for _ in range(steps):
        u = a / (kernel @ v)
        v = b / (kernel.T @ u)
    return u[:, None] * kernel * v


def exact(cost, a, b):
    """The least cost of transport, a linear program."""
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    ends = np.concatenate([a / a.sum(), b / b.sum()])
    return linprog(cost.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=ends).fun


def test_squared_distances_are_those_of_scipy():
    np.testing.assert_allclose(squared_distances(SOURCE, TARGET), COST, rtol=1e-5)
    assert squared_distances(SOURCE + 1e3, SOURCE + 1e3).min() >= 0


@pytest.mark.parametrize("steps", [3, 60])
def test_sinkhorn_is_the_plain_one_and_so_is_its_gradient(steps):
    table = RNG.normal(size=COST.shape)

    def reference(cost):
        return np.sum(table * scaled(cost, A, B, 0.5, steps))

    def loss(cost):
        plan = sinkhorn(cost, A, B, regularization=0.5, num_steps=steps)
        return jnp.sum(plan * table.astype("f"))

    assert_derivatives(loss, reference, COST.astype("f"))


def test_sinkhorn_keeps_its_margins_and_hides_what_has_no_weight():
    cost = COST.astype("f").copy()
    cost[2] = np.nan
    plan, slope = jax.value_and_grad(lambda c: jnp.sum(sinkhorn(c, A, B, regularization=0.5) ** 2))(
        cost
    )
    assert np.isfinite(plan) and np.isfinite(slope).all() and not slope[2].any()
    plan = sinkhorn(cost, A, B, regularization=0.5)
    np.testing.assert_allclose(plan.sum(0), B / B.sum(), rtol=1e-5)
    np.testing.assert_allclose(plan.sum(1), A / A.sum(), rtol=1e-4, atol=1e-7)
    assert not plan[2].any() and not sinkhorn(cost, 0 * A, B).any()
    np.testing.assert_allclose(
        sinkhorn(COST, regularization=1.0).sum(0), np.full(4, 1 / 4), rtol=1e-5
    )


def test_a_small_regularization_comes_near_the_linear_program():
    plan = sinkhorn(COST, A, B, regularization=0.01, num_steps=3000)
    np.testing.assert_allclose(np.sum(plan * COST), exact(COST, A, B), rtol=1e-3)
    assert np.isfinite(sinkhorn(1e4 * COST, A, B, regularization=0.01)).all()


def test_a_large_regularization_makes_the_sides_independent():
    plan = sinkhorn(COST, A, B, regularization=1e5)
    np.testing.assert_allclose(plan, np.outer(A / A.sum(), B / B.sum()), rtol=1e-3, atol=1e-7)


def quantile_loops(x, y, a, b):
    """Squared 2-Wasserstein distance on a line: repeat to one size, sort, compare."""
    x, y = np.repeat(x, a * round(b.sum())), np.repeat(y, b * round(a.sum()))
    return np.mean((np.sort(x) - np.sort(y)) ** 2)


def test_sliced_wasserstein_on_a_line_is_exact_for_any_sizes_and_weights():
    a, b = A.astype(int), B.astype(int)

    def reference(x, y):
        return quantile_loops(x[:, 0], y[:, 0], a, b)

    def loss(x, y):
        return sliced_wasserstein(KEY, x, y, A, B, projections=2)

    assert_derivatives(loss, reference, SOURCE[:, :1], TARGET[:, :1])
    np.testing.assert_allclose(
        exact(cdist(SOURCE[:, :1], TARGET[:, :1], "sqeuclidean"), A, B),
        loss(SOURCE[:, :1], TARGET[:, :1]),
        rtol=1e-4,
    )


def test_sliced_wasserstein_of_equal_sizes_is_the_mean_over_lines_of_assignments():
    x, y = SOURCE[:4], TARGET
    directions = jax.random.normal(KEY, (16, 2))
    directions = np.asarray(directions / jnp.linalg.norm(directions, axis=1, keepdims=True))
    costs = []
    for direction in directions:
        cost = np.subtract.outer(x @ direction, y @ direction) ** 2
        costs.append(cost[linear_sum_assignment(cost)].mean())
    actual = sliced_wasserstein(KEY, x, y, projections=16)
    np.testing.assert_allclose(actual, np.mean(costs), rtol=1e-5)


def test_sliced_wasserstein_of_a_shift():
    shift = np.float32([3.0, -4.0])
    loss = jax.jit(functools.partial(sliced_wasserstein, projections=4000))
    np.testing.assert_allclose(loss(KEY, SOURCE, SOURCE + shift), 25 / 2, rtol=0.05)
    np.testing.assert_allclose(loss(KEY, SOURCE, SOURCE[::-1]), 0, atol=1e-10)
