"""The parts of MEDA against their definitions."""

import numpy as np
import pytest

from jaxtl.methods.adapt.shallow.jda import mean_gaps
from jaxtl.methods.adapt.shallow.meda import (
    aligned_means,
    balance,
    gaussian,
    graph_laplacian,
    solve,
)


def on_sphere(n, seed=0):
    z = np.random.default_rng(seed).normal(size=(n, 3))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_laplacian_one_entry_at_a_time():
    z = on_sphere(9)
    cosine = z @ z.T
    near = [sorted(set(range(9)) - {i}, key=lambda j, i=i: -cosine[i, j])[:2] for i in range(9)]
    graph = np.array(
        [
            [max(cosine[i, j], 0) if j in near[i] or i in near[j] else 0 for j in range(9)]
            for i in range(9)
        ]
    )
    degree = graph.sum(1)
    expected = np.eye(9) - graph / np.sqrt(np.outer(degree, degree))
    found = graph_laplacian(z, 2)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found @ np.sqrt(degree), 0, atol=1e-12)
    assert np.linalg.eigvalsh(found).min() > -1e-12


def test_coefficients_are_a_stationary_point_of_the_structural_risk():
    z, labels = on_sphere(10), np.array([0, 1, 1, 0, 1, 0])
    kernel, truth = gaussian(z, z), np.zeros((10, 2))
    truth[np.arange(6), labels] = 1
    gaps = mean_gaps(labels, np.array([0, 1, 1, 0]), 4)
    penalty = 10 * aligned_means(gaps, 0.3) + graph_laplacian(z, 3)
    found = solve(kernel, truth, 6, penalty, 0.1)

    def risk(b):
        out = kernel @ b
        fit = ((truth - out)[:6] ** 2).sum() + 0.1 * np.trace(b.T @ kernel @ b)
        return fit + np.trace(out.T @ penalty @ out)

    rng = np.random.default_rng(0)
    for _ in range(50):
        assert risk(found + 1e-2 * rng.normal(size=found.shape)) > risk(found)
    system = penalty @ kernel + 0.1 * np.eye(10)
    system[:6] += kernel[:6]
    np.testing.assert_allclose(system @ found, truth, atol=1e-10)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shares_of_marginal_and_class_means(share):
    gaps = mean_gaps(np.array([0, 1, 1]), np.array([0, 1]), 2)
    outer = [np.outer(row, row) for row in gaps]
    expected = (1 - share) * 2 * outer[0] + share * (outer[1] + outer[2])
    found = aligned_means(gaps, share)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected))
    only = aligned_means(gaps[:1], 0.0)
    np.testing.assert_allclose(only, outer[0] / np.linalg.norm(outer[0]))


def test_balance_follows_what_differs():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 50)
    x = rng.normal(size=(100, 2)) * 0.1 + np.where(labels[:, None] == 0, [3, 0], [-3, 0])
    assert 0 <= balance(x, labels, x, labels) <= 1
    apart = balance(
        x, labels, x + np.array([0, 5]), labels
    )  # the whole domains and each class alike
    assert apart == pytest.approx(0.5, abs=1e-9)
    # Classes move against each other, so that no line parts the whole domains.
    moved = x + np.where(labels[:, None] == 0, [0, 3], [0, -3])
    tilted = np.where(labels[:, None] == 0, [0, -3], [0, 3]) + x
    assert balance(moved, labels, tilted, labels) > 0.8


def test_kernel_by_hand():
    one, other = np.array([[1.0, 0]]), np.array([[0.0, 1], [1, 0]])
    np.testing.assert_allclose(gaussian(one, other), [[np.exp(-1), 1]])
