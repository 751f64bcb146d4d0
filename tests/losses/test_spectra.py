"""Largest and summed singular values with weights, against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differences import assert_derivatives
from scipy.special import softmax

from jaxtl.losses import batch_nuclear_norm, largest_singular_values

RNG = np.random.default_rng(0)
WEIGHTS = np.array([1, 2, 0, 0.5, 3, 1])


def singular(rows, weights):
    return np.linalg.svd(np.sqrt(weights)[:, None] * rows, compute_uv=False)


@pytest.mark.parametrize("width, count", [(3, 1), (3, 2), (9, 2)])
def test_largest_singular_values_are_those_of_numpy(width, count):
    features = RNG.normal(size=(6, width)).astype(np.float32)

    def reference(features):
        return np.sum(singular(features, WEIGHTS)[:count] ** 2)

    def loss(features):
        return largest_singular_values(features, WEIGHTS, count=count)

    assert_derivatives(loss, reference, features)


@pytest.mark.parametrize("shape", [(6, 4), (6, 8)])
def test_nuclear_norm_is_that_of_numpy(shape):
    logits = RNG.normal(size=shape).astype(np.float32)

    def reference(logits):
        return -np.sum(singular(softmax(logits, 1), WEIGHTS)) / WEIGHTS.sum()

    assert_derivatives(lambda z: batch_nuclear_norm(z, WEIGHTS), reference, logits)


def test_nuclear_norm_by_hand():
    # n sure predictions, all classes equally often: sqrt(n / classes) for each class, of n.
    logits = 100 * np.tile(np.eye(3, dtype=np.float32), (4, 1))
    np.testing.assert_allclose(batch_nuclear_norm(logits), -3 * (12 / 3) ** 0.5 / 12, rtol=1e-6)
    one = 100 * np.eye(3, dtype=np.float32)[[0] * 12]
    np.testing.assert_allclose(batch_nuclear_norm(one), -(12**0.5) / 12, rtol=1e-6)


@pytest.mark.parametrize("loss", [batch_nuclear_norm, largest_singular_values])
@pytest.mark.parametrize("rows", [np.eye(4), np.zeros((4, 3)), np.ones((3, 5))])
def test_gradients_are_finite_where_singular_values_repeat(loss, rows):
    gradient = jax.jit(jax.grad(loss))(jnp.asarray(rows, jnp.float32))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() <= 2.1


def test_more_largest_values_than_there_are():
    with pytest.raises(ValueError, match="from 1 to 3, the rank, got 4"):
        largest_singular_values(jnp.ones((5, 3)), count=4)
