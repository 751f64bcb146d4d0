import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl.losses import reversal_schedule, reverse_gradient

INPUTS = jnp.array([[1.0, -2.0], [3.0, 0.5]])


@pytest.mark.parametrize("coefficient", [0.0, 0.3, 2.0])
def test_inputs_pass_and_their_gradient_turns_round(coefficient):
    np.testing.assert_array_equal(reverse_gradient(INPUTS, coefficient), INPUTS)

    def loss(x):
        return jnp.sum(reverse_gradient(x, coefficient) ** 3)

    for gradient in (jax.grad(loss)(INPUTS), jax.jit(jax.grad(loss))(INPUTS)):
        np.testing.assert_allclose(gradient, -coefficient * 3 * INPUTS**2, rtol=1e-6)


def test_the_coefficient_may_be_traced_and_has_no_gradient():
    def loss(x, coefficient):
        return jnp.sum(jnp.sin(reverse_gradient(x, coefficient)))

    slope, none = jax.jit(jax.grad(loss, (0, 1)))(INPUTS, jnp.float32(0.7))
    np.testing.assert_allclose(slope, -0.7 * jnp.cos(INPUTS), rtol=1e-6)
    assert none == 0


def test_each_of_a_batch_has_its_coefficient():
    coefficients = jnp.array([0.5, 2.0])
    slopes = jax.vmap(jax.grad(lambda x, c: jnp.sum(reverse_gradient(x, c))))(INPUTS, coefficients)
    np.testing.assert_allclose(slopes, [[-0.5, -0.5], [-2, -2]])


def test_what_follows_learns_and_what_comes_before_unlearns():
    def loss(before, after):
        return jnp.sum(after * reverse_gradient(before * INPUTS, 0.1))

    before, after = jax.grad(loss, (0, 1))(jnp.full((2, 2), 2.0), jnp.full((2, 2), 3.0))
    np.testing.assert_allclose(after, 2 * INPUTS)
    np.testing.assert_allclose(before, -0.1 * 3 * INPUTS, rtol=1e-6)


def test_schedule_is_the_paper_s_from_0_to_1():
    schedule = reversal_schedule(200)
    assert schedule(0) == 0
    for step in (1, 50, 100, 200):
        expected = 2 / (1 + np.exp(-10 * step / 200)) - 1
        np.testing.assert_allclose(schedule(jnp.int32(step)), expected, rtol=1e-5)
    np.testing.assert_allclose(schedule(200), 0.99990920, rtol=1e-6)
    assert schedule(1000) == schedule(200)
    values = jax.jit(jax.vmap(schedule))(jnp.arange(200))
    assert np.all(np.diff(values) > 0)


def test_schedule_between_other_ends():
    schedule = reversal_schedule(10, low=0.2, high=0.7, steepness=1.0)
    np.testing.assert_allclose(schedule(0), 0.2, rtol=1e-6)
    np.testing.assert_allclose(schedule(10), 0.2 + 0.5 * np.tanh(0.5), rtol=1e-6)
    assert np.isfinite(reversal_schedule(0)(0))
