import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtl.losses import focal, logit_adjusted

P = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
LOGITS, LABELS = jnp.log(jnp.array(P, jnp.float32)), jnp.array([0, 2])


def test_focal_by_hand():
    expected = [-(0.3**2) * np.log(0.7), -(0.9**2) * np.log(0.1)]
    np.testing.assert_allclose(focal(LOGITS, LABELS), expected, rtol=1e-5)
    np.testing.assert_allclose(
        focal(LOGITS, LABELS, gamma=0.5), [-(0.3**0.5) * np.log(0.7), -(0.9**0.5) * np.log(0.1)],
        rtol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_gradient_is_finite_when_certain(gamma):
    certain = jnp.array([[200.0, 0.0, 0.0]])
    loss, gradient = jax.value_and_grad(lambda z: focal(z, LABELS[:1], gamma=gamma).sum())(certain)
    assert loss == 0 and not gradient.any()
    # d/dz of (1-p)^g (-log p) along the true logit: p (1-p)^g (g log p - (1-p) / p).
    slope = jax.grad(lambda z: focal(z, LABELS, gamma=gamma).sum())(LOGITS)[0, 0]
    np.testing.assert_allclose(
        slope, 0.7 * 0.3**gamma * (gamma * np.log(0.7) - 0.3 / 0.7), rtol=1e-5
    )


def test_logit_adjusted_by_hand():
    prior = np.array([0.5, 0.3, 0.2])
    q = P * prior / (P * prior).sum(1, keepdims=True)
    expected = -np.log([q[0, 0], q[1, 2]])
    np.testing.assert_allclose(logit_adjusted(LOGITS, LABELS, prior=prior), expected, rtol=1e-5)
    counts = logit_adjusted(LOGITS, LABELS, prior=20 * prior)
    np.testing.assert_allclose(counts, expected, rtol=1e-5)
    q = P * prior**0.5 / (P * prior**0.5).sum(1, keepdims=True)
    half = logit_adjusted(LOGITS, LABELS, prior=prior, temperature=0.5)
    np.testing.assert_allclose(half, -np.log([q[0, 0], q[1, 2]]), rtol=1e-5)


@pytest.mark.parametrize("loss", [
    functools.partial(focal, gamma=0.0),
    functools.partial(logit_adjusted, prior=np.full(3, 1 / 3)),
])  # fmt: skip
def test_neutral_setting_is_the_cross_entropy_in_the_layout_of_a_batch(loss):
    logits = jax.random.normal(jax.random.key(0), (4, 2, 3))
    labels = jax.random.randint(jax.random.key(1), (4, 2), 0, 3)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(loss(logits, labels), expected, rtol=1e-5, atol=1e-6)
