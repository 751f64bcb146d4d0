"""TCA, JDA and JGSA against brute-force matrices and generalised eigenproblems."""

import numpy as np
import pytest
from scipy.linalg import eigh

from jaxtl.methods.adapt.shallow.eigenproblems import pencil
from jaxtl.methods.adapt.shallow.jda import mean_gaps, transfer_components
from jaxtl.methods.adapt.shallow.jgsa import coupled_scatters

RNG = np.random.default_rng(0)
LABELS = np.array([0, 0, 1, 1, 1, 2, 0])
PSEUDO = np.array([1, 1, 0, 3, 1])
SOURCE, TARGET = RNG.normal(size=(7, 4)), RNG.normal(size=(5, 4)) + 1


def test_matrices_of_the_means_one_entry_at_a_time():
    domain = np.array([0] * 7 + [1] * 5)
    both = np.concatenate([LABELS, PSEUDO])
    expected = np.zeros((12, 12))
    for i in range(12):
        for j in range(12):
            size = {0: 7, 1: 5}
            sign = 1 if domain[i] == domain[j] else -1
            expected[i, j] += sign / (size[domain[i]] * size[domain[j]])
            for c in (0, 1):  # class 2 is in the source only, class 3 in the target only
                if both[i] == both[j] == c:
                    counts = [(c == LABELS).sum(), (c == PSEUDO).sum()]
                    expected[i, j] += sign / (counts[domain[i]] * counts[domain[j]])
    gaps = mean_gaps(LABELS, PSEUDO, 5)
    np.testing.assert_allclose(gaps.T @ gaps, expected)
    np.testing.assert_allclose(mean_gaps(LABELS, None, 5), gaps[:1])


def test_transfer_components_solve_the_eigenproblem_and_no_projection_beats_them():
    gaps = mean_gaps(LABELS, PSEUDO, 5)
    x = np.concatenate([SOURCE, TARGET])
    found, ratios = transfer_components(x, 0.3)(gaps @ x, 2)
    centring = np.eye(12) - 1 / 12
    variance, cost = x.T @ centring @ x, x.T @ gaps.T @ gaps @ x + 0.3 * np.eye(4)
    np.testing.assert_allclose(ratios, eigh(variance, cost, eigvals_only=True)[:1:-1])
    np.testing.assert_allclose(variance @ found, cost @ found * ratios, atol=1e-10)

    def objective(a):
        return np.trace(np.linalg.solve(a.T @ cost @ a, a.T @ variance @ a))

    assert objective(found) == pytest.approx(ratios.sum())
    for _ in range(200):
        assert objective(RNG.normal(size=(4, 2))) <= ratios.sum() * (1 + 1e-12)


def means_apart():
    gaps = mean_gaps(LABELS, PSEUDO, 5)
    return np.concatenate([gaps[:, :7] @ SOURCE, gaps[:, 7:] @ TARGET], 1)


def test_jgsa_terms_written_out():
    large, small = coupled_scatters(SOURCE, LABELS, TARGET, 0.7, 1.3, 0.2)
    left, right = RNG.normal(size=(2, 4, 3))
    stacked = np.concatenate([left, right])

    def squares(x):
        return (x**2).sum()

    mean = SOURCE.mean(0)
    parts = {c: SOURCE[c == LABELS] for c in range(3)}
    between = sum(len(p) * squares((p.mean(0) - mean) @ left) for p in parts.values())
    within = sum(squares((p - p.mean(0)) @ left) for p in parts.values())
    spread = squares((TARGET - TARGET.mean(0)) @ right)
    np.testing.assert_allclose(squares(large.T @ stacked), 0.2 * between + 1.3 * spread)
    cost = 0.2 * within + 0.7 * squares(left - right) + 1.3 * squares(right)
    np.testing.assert_allclose(np.trace(stacked.T @ small @ stacked), cost)
    apart = squares(mean @ left - TARGET.mean(0) @ right)
    for c in (0, 1):
        apart += squares(parts[c].mean(0) @ left - TARGET[c == PSEUDO].mean(0) @ right)
    np.testing.assert_allclose(squares(means_apart() @ stacked), apart)


def test_jgsa_projections_solve_their_eigenproblem():
    large, small = coupled_scatters(SOURCE, LABELS, TARGET, 1.0, 1.0, 0.1)
    apart = means_apart()
    found, values = pencil(large, small)(apart, 3)
    cost = small + apart.T @ apart
    np.testing.assert_allclose(values, eigh(large @ large.T, cost, eigvals_only=True)[:-4:-1])
    np.testing.assert_allclose(large @ (large.T @ found), cost @ found * values, atol=1e-9)
