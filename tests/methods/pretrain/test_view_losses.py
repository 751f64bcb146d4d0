"""Losses of two views against NumPy in float64: pair by pair, by corrcoef, var and cov."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl.methods.pretrain.barlow_twins import cross_correlation
from jaxtl.methods.pretrain.masked_autoencoder import hidden_patches
from jaxtl.methods.pretrain.rotation import quarter_turns
from jaxtl.methods.pretrain.scarf import swap_values
from jaxtl.methods.pretrain.simclr import view_contrast
from jaxtl.methods.pretrain.vicreg import lack_of_spread, shared_covariance
from jaxtl.methods.pretrain.views import other_views, spread, two_views

N, WIDTH = 7, 5


def draw(seed=0, n=N, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=(n, WIDTH))).astype(np.float32)


def contrast_by_pairs(projections, temperature):
    n, total = len(projections) // 2, 0.0
    for i in range(2 * n):
        cosines = {}
        for j in range(2 * n):
            if j != i:
                a, b = projections[i].astype(np.float64), projections[j].astype(np.float64)
                cosines[j] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        partner = i + n if i < n else i - n
        shares = np.exp([value / temperature for value in cosines.values()]).sum()
        total -= np.log(np.exp(cosines[partner] / temperature) / shares)
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_contrast_of_every_pair(temperature):
    projections = draw(n=2 * N)
    value = view_contrast(projections, temperature)
    np.testing.assert_allclose(value, contrast_by_pairs(projections, temperature), rtol=1e-5)


def test_contrast_of_collapsed_views_is_that_of_a_guess():
    np.testing.assert_allclose(view_contrast(jnp.ones((2 * N, 3)), 0.2), np.log(2 * N - 1), 1e-5)
    gradient = jax.grad(view_contrast)(jnp.zeros((2 * N, 3)), 0.2)
    assert np.isfinite(gradient).all()


def test_correlations_of_two_views():
    first, second = draw(1), draw(2)
    expected = np.corrcoef(first, second, rowvar=False)[:WIDTH, WIDTH:]
    np.testing.assert_allclose(cross_correlation(first, second), expected, atol=1e-5)
    constant = cross_correlation(np.ones_like(first), second)
    np.testing.assert_array_equal(constant, np.zeros((WIDTH, WIDTH)))


def test_variance_and_covariance_of_a_view():
    rows = draw(3, scale=0.7)
    expected = np.maximum(0, 1 - np.sqrt(np.var(rows, 0, ddof=1) + 1e-4)).mean()
    assert expected > 0
    np.testing.assert_allclose(lack_of_spread(rows), expected, rtol=1e-4)
    covariances = np.cov(rows, rowvar=False)
    expected = (np.sum(covariances**2) - np.sum(np.diag(covariances) ** 2)) / WIDTH
    np.testing.assert_allclose(shared_covariance(rows), expected, rtol=1e-4)


def test_spread_of_uniform_and_of_collapsed_directions():
    rows = np.random.default_rng(0).normal(size=(4000, 16)).astype(np.float32)
    np.testing.assert_allclose(spread(rows), 1, rtol=0.02)
    assert spread(rows * 0.001 + 1) < 0.01
    assert spread(jnp.zeros((4, 3))) == 0


def test_views_stand_in_two_halves():
    inputs = {"x": jnp.arange(3.0), "y": jnp.ones((3, 2))}
    rng = jax.random.key(0)

    def augment(rng, inputs):
        return {"x": inputs["x"] + jax.random.uniform(rng), "y": inputs["y"]}

    views = two_views(augment, rng, inputs)
    shifts = [float(jax.random.uniform(key)) for key in jax.random.split(rng)]
    assert shifts[0] != shifts[1]
    expected = np.concatenate([np.arange(3) + shift for shift in shifts])
    np.testing.assert_allclose(views["x"], expected, rtol=1e-6)
    assert views["y"].shape == (6, 2)
    np.testing.assert_array_equal(other_views(views["x"])[:3], views["x"][3:])
    np.testing.assert_array_equal(other_views(views["x"])[3:], views["x"][:3])


def test_quarter_turns():
    image = np.arange(4.0).reshape(1, 2, 2, 1)
    turned = quarter_turns(image)[..., 0]
    np.testing.assert_array_equal(turned, [np.rot90(image[0, ..., 0], k) for k in range(4)])
    with pytest.raises(ValueError, match=r"square images .* got \[2, 3, 1\]"):
        quarter_turns(np.zeros((1, 2, 3, 1)))
    with pytest.raises(ValueError, match="square images"):
        quarter_turns(np.zeros((1, 4)))


def test_swapped_values_are_those_of_their_column():
    rows = np.arange(4000.0).reshape(1000, 4)
    swapped = np.asarray(swap_values(0.3)(jax.random.key(0), rows))
    assert abs((swapped != rows).mean() - 0.3) < 0.02
    np.testing.assert_array_equal(swapped % 4, rows % 4)  # the column
    moved = swapped != rows
    assert abs((moved[:, 0] & moved[:, 1]).mean() - 0.09) < 0.03  # each value by itself
    np.testing.assert_array_equal(swap_values(0.0)(jax.random.key(0), rows), rows)


def test_hidden_patches():
    hidden = np.asarray(hidden_patches(jax.random.key(0), (200, 4, 6, 3), 0.25, 2))
    blocks = hidden.reshape(200, 2, 2, 3, 2, 3)
    assert (blocks == blocks[:, :, :1, :, :1, :1]).all()
    assert abs(hidden.mean() - 0.25) < 0.04
    assert hidden_patches(jax.random.key(0), (5, 7), 0.5, 1).shape == (5, 7)
    with pytest.raises(ValueError, match="patches of 4 x 4 do not fit"):
        hidden_patches(jax.random.key(0), (2, 4, 6, 3), 0.5, 4)
    with pytest.raises(ValueError, match="do not fit"):
        hidden_patches(jax.random.key(0), (2, 4), 0.5, 2)
