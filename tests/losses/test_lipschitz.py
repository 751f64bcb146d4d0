import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl.losses import gradient_penalty
from jaxtl.losses.lipschitz import _drawn

KEY = jax.random.key(0)
SOURCE = jax.random.normal(jax.random.key(1), (5, 3))
TARGET = jax.random.normal(jax.random.key(2), (3, 3)) + 1


def test_a_linear_critic_has_one_slope():
    slope = jnp.array([1.0, 2.0, 2.0])
    value, gradient = jax.value_and_grad(
        lambda w: gradient_penalty(lambda x: x @ w, KEY, SOURCE, TARGET)
    )(slope)
    np.testing.assert_allclose(value, (3 - 1) ** 2, rtol=1e-6)
    np.testing.assert_allclose(gradient, 2 * (3 - 1) * slope / 3, rtol=1e-6)


def test_a_flat_critic_costs_1_and_has_no_gradient():
    value, gradient = jax.value_and_grad(
        lambda w: gradient_penalty(lambda x: x @ w, KEY, SOURCE, TARGET)
    )(jnp.zeros(3))
    assert value == 1 and not gradient.any()


def test_points_lie_between_an_example_of_each_side():
    # The slope of |x|^2 / 2 is x, and its norm the place between the sides at 2 and 4.
    source, target = np.full((400, 1), 2, "f"), np.full((300, 1), 4, "f")
    value = gradient_penalty(lambda x: jnp.sum(x**2, 1) / 2, KEY, source, target)
    # E (u - 1)^2 for u uniform on [2, 4] is (27 - 1) / 3 / 2.
    np.testing.assert_allclose(value, 26 / 6, rtol=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_examples_are_drawn_by_their_weights(seed):
    key = jax.random.key(seed)
    np.testing.assert_array_equal(_drawn(key, jnp.ones(7), 7), np.arange(7))
    np.testing.assert_array_equal(np.bincount(_drawn(key, jnp.ones(3), 6)), [2, 2, 2])
    weights = jnp.array([0.0, 2, 1, 0, 5, 0])
    np.testing.assert_array_equal(np.bincount(_drawn(key, weights, 8)), [0, 2, 1, 0, 5])
    counts = np.bincount(_drawn(key, weights, 20), minlength=6)
    assert np.all(np.abs(counts - 20 * np.asarray(weights) / 8) < 1)


def test_a_side_may_weigh_nothing_in_places():
    source = SOURCE.at[0].set(jnp.nan)
    weights = jnp.array([0.0, 1, 1, 0, 2])
    value, gradient = jax.value_and_grad(
        lambda w: gradient_penalty(lambda x: jnp.tanh(x @ w), KEY, source, TARGET, weights)
    )(jnp.ones(3))
    assert np.isfinite(value) and np.isfinite(gradient).all() and gradient.any()
