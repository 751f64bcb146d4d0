"""CORAL, subspace alignment and the geodesic flow kernel against their definitions."""

import numpy as np
import pytest
from scipy.integrate import quad_vec
from scipy.linalg import eigh, sqrtm

from jaxtl.methods.adapt.shallow.coral_map import recolour
from jaxtl.methods.adapt.shallow.eigenproblems import pencil, principal
from jaxtl.methods.adapt.shallow.gfk import align_on_geodesic, geodesic_factor
from jaxtl.methods.adapt.shallow.subspace_alignment import align_subspaces


def two_domains(n_source=40, n_target=30, width=6, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(n_source, width)) @ rng.normal(size=(width, width)) + 1
    return source, rng.normal(size=(n_target, width)) @ rng.normal(size=(width, width)) - 2


def basis(width, dim, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, dim)))[0]


def test_recoloured_source_has_the_target_mean_and_covariance():
    source, target = two_domains()
    tiny = recolour(source, target, 1e-10)
    np.testing.assert_allclose(np.cov(tiny.T), np.cov(target.T), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(tiny.mean(0), target.mean(0), atol=1e-12)


def test_recolouring_with_the_paper_s_identity_is_its_matlab_line():
    source, target = two_domains()
    own, other = (np.cov(x.T) + np.eye(6) for x in (source, target))
    centred = source - source.mean(0)
    expected = centred @ np.linalg.inv(sqrtm(own)) @ sqrtm(other) + target.mean(0)
    np.testing.assert_allclose(recolour(source, target), expected, atol=1e-9)
    with pytest.raises(ValueError, match="must be positive"):
        recolour(source, target, 0.0)


@pytest.mark.parametrize(("size", "columns"), [(8, 3), (8, 20), (40, 25), (40, 90)])
def test_leading_solutions_are_those_of_scipy(size, columns):
    rng = np.random.default_rng(1)
    factor, root = rng.normal(size=(size, columns)), rng.normal(size=(size, size))
    base = root @ root.T + np.eye(size)
    leading = pencil(factor, base)
    for rows in (4, 0):
        gaps = rng.normal(size=(rows, size))
        vectors, values = leading(gaps, 3)
        cost = base + gaps.T @ gaps
        expected = eigh(factor @ factor.T, cost, eigvals_only=True)[::-1][:3]
        np.testing.assert_allclose(values, expected, rtol=1e-9)
        np.testing.assert_allclose(vectors.T @ cost @ vectors, np.eye(3), atol=1e-8)
        left, right = factor @ (factor.T @ vectors), cost @ vectors * values
        np.testing.assert_allclose(left, right, atol=1e-7)
    with pytest.raises(ValueError, match=f"dim must be between 1 and {min(size, columns)}; got 91"):
        leading(gaps, 91)


@pytest.mark.parametrize("n", [4, 50])
def test_principal_directions_are_those_of_the_singular_value_decomposition(n):
    x, _ = two_domains(n_source=n)
    found, (_, _, rows) = principal(x, 3), np.linalg.svd(x - x.mean(0))
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(np.abs(np.diag(found.T @ rows[:3].T)), 1, atol=1e-9)
    for dim in (0, min(n - 1, 6) + 1):
        with pytest.raises(ValueError, match=f"dim must be between 1 and {min(n - 1, 6)} for {n}"):
            principal(x, dim)


def test_aligned_subspaces_by_hand():
    # Variance along the first axis in the source, along a diagonal in the target.
    source = np.array([[3.0, 1, 5], [-1, 1, 5]])
    target = np.array([[1.0, 1, 0], [-1, -1, 0], [0, 0, 0]])
    found = align_subspaces(source, target, 1)
    sign = np.sign(found.projection[0, 0])
    np.testing.assert_allclose(found.projection[:, 0], sign * np.array([1, 1, 0]) / np.sqrt(2))
    np.testing.assert_allclose(found.source[:, 0], sign * np.array([2, -2]) / np.sqrt(2))
    shifted = align_subspaces(source, target + 7, 1)
    np.testing.assert_allclose(shifted.offset, -7 * np.sqrt(2) * np.sign(shifted.projection[0, 0]))
    np.testing.assert_allclose(np.abs(shifted.source), np.abs(found.source))


@pytest.mark.parametrize("dim", [1, 3])
def test_geodesic_kernel_is_the_integral_along_the_flow(dim):
    start, end = basis(7, dim, 0), basis(7, dim, 1)
    left, cosine, right = np.linalg.svd(start.T @ end)
    angle = np.arccos(cosine)
    leaving = (end @ right.T - start @ left * cosine) / np.sin(angle)

    def flow(t):
        return start @ left * np.cos(t * angle) + leaving * np.sin(t * angle)

    np.testing.assert_allclose(flow(1) @ flow(1).T, end @ end.T, atol=1e-9)
    integral, _ = quad_vec(lambda t: flow(t) @ flow(t).T, 0, 1)
    factor = geodesic_factor(start, end)
    assert factor.shape == (7, 2 * dim)
    np.testing.assert_allclose(factor @ factor.T, integral, atol=1e-9)


def test_geodesic_between_equal_subspaces_is_their_projection():
    start = basis(6, 2, 0)
    turned = start @ basis(2, 2, 1)
    factor = geodesic_factor(start, turned)
    np.testing.assert_allclose(factor @ factor.T, start @ start.T, atol=1e-9)
    with pytest.raises(ValueError, match="dim must be at most 3, half of the features; got 4"):
        geodesic_factor(basis(7, 4, 0), basis(7, 4, 1))


def test_examples_on_the_geodesic_have_the_kernel_as_inner_product():
    source, target = two_domains()
    found = align_on_geodesic(source, target, 2)
    kernel = geodesic_factor(principal(source, 2), principal(target, 2))
    own, other = source - source.mean(0), target - target.mean(0)
    placed = target @ found.projection + found.offset
    np.testing.assert_allclose(found.source @ placed.T, own @ kernel @ kernel.T @ other.T)
