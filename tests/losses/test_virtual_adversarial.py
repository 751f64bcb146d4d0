"""Virtual adversarial loss: direction and value for linear models, against a search, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from jaxtl.losses import virtual_adversarial


def linear(classes, features=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(features, classes)).astype("f"), rng.normal(size=(7, features)).astype(
        "f"
    )


def divergence(x, moved):
    p = softmax(x, -1)
    return (p * (log_softmax(x, -1) - log_softmax(moved, -1))).sum(-1)


def value(kernel, inputs, radius, seed=0, steps=1):
    def predict(x):
        return x @ kernel

    return virtual_adversarial(
        predict, jax.random.key(seed), inputs, predict(inputs), radius=radius, steps=steps
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_two_classes_are_exact_after_one_step(seed):
    """A second derivative of rank one: the direction is that of the kernel's difference."""
    kernel, inputs = linear(2)
    direction = kernel[:, 0] - kernel[:, 1]
    direction /= np.linalg.norm(direction)
    both = [divergence(inputs @ kernel, (inputs + s * direction) @ kernel) for s in (0.3, -0.3)]
    found = value(kernel, inputs, 0.3, seed)
    assert both[0].mean() != pytest.approx(both[1].mean(), rel=1e-2)  # the sign is left to chance
    ends = np.minimum(*both).mean(), np.maximum(*both).mean()
    assert ends[0] * (1 - 1e-4) <= found <= ends[1] * (1 + 1e-4)
    small = value(kernel, inputs, 1e-2, seed)
    p = softmax(inputs @ kernel, -1)
    length = np.sum((kernel[:, 0] - kernel[:, 1]) ** 2)
    np.testing.assert_allclose(small, 0.5e-4 * length * np.mean(p[:, 0] * p[:, 1]), rtol=0.03)


def test_many_steps_find_the_worst_direction():
    kernel, inputs = linear(3)
    radius, expected = 0.05, []
    for x in inputs.astype(np.float64):
        p = softmax(x @ kernel)
        bent = kernel @ (np.diag(p) - np.outer(p, p)) @ kernel.T
        worst = np.linalg.eigh(bent)[1][:, -1]
        expected.append([divergence(x @ kernel, (x + s * radius * worst) @ kernel)
                         for s in (1, -1)])  # fmt: skip
    found = value(kernel, inputs, radius, steps=60)
    low, high = np.min(expected, 1).mean(), np.max(expected, 1).mean()
    assert low * 0.999 <= found <= high * 1.001
    assert value(kernel, inputs, radius) < found
    around = np.random.default_rng(1).normal(size=(500, 5))
    around *= radius / np.linalg.norm(around, axis=1, keepdims=True)
    moved = (inputs[None] + around[:, None]) @ kernel
    assert divergence(inputs @ kernel, moved).max(0).mean() < found * 1.02


def test_the_gradient_holds_direction_and_prediction_constant():
    kernel, inputs = linear(2)
    difference = kernel[:, 0] - kernel[:, 1]
    key = jax.random.key(3)
    first = np.asarray(jax.random.normal(key, inputs.shape))
    signs = np.sign(first @ difference)[:, None]
    moved = inputs + 0.3 * signs * difference / np.linalg.norm(difference)
    gap = softmax(moved @ kernel, -1) - softmax(inputs @ kernel, -1)

    def loss(kernel, logits):
        return virtual_adversarial(lambda x: x @ kernel, key, inputs, logits, radius=0.3)

    found = jax.grad(loss, (0, 1))(kernel, inputs @ kernel)
    np.testing.assert_allclose(found[0], moved.T @ gap / 7, atol=1e-5)
    assert not found[1].any()


def test_sure_and_constant_models_are_finite():
    kernel, inputs = linear(3)
    for factor in (0.0, 1e-12, 60.0):
        loss = jax.value_and_grad(lambda k: value(k, inputs, 0.5))
        found, gradient = loss(jnp.asarray(factor * kernel))
        assert np.isfinite(found) and np.isfinite(gradient).all()
    assert value(jnp.asarray(0 * kernel), inputs, 0.5) == 0


def test_the_length_is_that_of_a_whole_image():
    kernel = np.random.default_rng(0).normal(size=(12, 2)).astype("f")
    images = np.random.default_rng(1).normal(size=(4, 2, 3, 2)).astype("f")

    def loss(inputs):
        return virtual_adversarial(
            lambda x: x.reshape(4, -1) @ kernel,
            jax.random.key(0),
            inputs,
            images.reshape(4, -1) @ kernel,
            radius=0.3,
        )

    flat = value(kernel, images.reshape(4, -1), 0.3)
    same_key = jax.random.normal(jax.random.key(0), images.shape).reshape(4, -1)
    np.testing.assert_array_equal(same_key, jax.random.normal(jax.random.key(0), (4, 12)))
    np.testing.assert_allclose(loss(images), flat, rtol=1e-5)
