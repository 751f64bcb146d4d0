"""Distillation losses against SciPy and their gradients in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import rel_entr, softmax

from jaxtl.losses import hint, softened_divergence

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(2, 4, 3, 5)).astype(np.float32) * 3


def test_divergence_agrees_with_scipy():
    expected = rel_entr(softmax(TEACHER / 3, -1), softmax(STUDENT / 3, -1)).sum(-1) * 9
    found = softened_divergence(STUDENT, TEACHER, temperature=3.0)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_gradient_is_t_times_the_difference_of_the_softened_outputs():
    def total(student, teacher):
        return softened_divergence(student, teacher, temperature=2.0).sum()

    student, teacher = jax.grad(total, (0, 1))(jnp.asarray(STUDENT), jnp.asarray(TEACHER))
    expected = 2 * (softmax(STUDENT / 2, -1) - softmax(TEACHER / 2, -1))
    np.testing.assert_allclose(student, expected, atol=2e-6)
    np.testing.assert_array_equal(teacher, 0)


def test_hot_temperature_compares_centred_logits():
    """For T >> logits the gradient is (s - t) / classes of centred logits (Section 2.1)."""
    s, t = (x - x.mean(-1, keepdims=True) for x in (STUDENT, TEACHER))
    found = softened_divergence(s, t, temperature=300.0)
    np.testing.assert_allclose(found, ((s - t) ** 2).sum(-1) / (2 * 5), rtol=0.05)


def test_hint_by_hand():
    student, teacher = jnp.array([[1.0, 2.0], [0.0, -1.0]]), jnp.array([[0.0, 4.0], [3.0, -1.0]])
    np.testing.assert_allclose(hint(student, teacher), [2.5, 4.5])
    moved = jax.grad(lambda s, t: hint(s, t).sum(), (0, 1))(student, teacher)
    np.testing.assert_allclose(moved[0], student - teacher)
    np.testing.assert_array_equal(moved[1], 0)
