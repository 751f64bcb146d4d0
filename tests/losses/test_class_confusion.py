import functools

import jax
import numpy as np
import pytest
from differences import assert_derivatives
from scipy import stats
from scipy.special import softmax

from jaxtl.losses import class_confusion, entropy, information_maximization

LOGITS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32) * 2
WEIGHTS = np.array([1, 2, 0, 0.5, 3])


def test_entropy_is_the_weighted_mean_of_scipy_s():
    def reference(logits):
        return np.average(stats.entropy(softmax(logits, 1), axis=1), weights=WEIGHTS)

    assert_derivatives(lambda z: entropy(z, WEIGHTS), reference, LOGITS)


def test_information_is_the_entropy_of_the_mean_less_the_mean_entropy():
    def reference(logits):
        p = softmax(logits, 1)
        mean = np.average(p, axis=0, weights=WEIGHTS)
        return np.average(stats.entropy(p, axis=1), weights=WEIGHTS) - stats.entropy(mean)

    assert_derivatives(lambda z: information_maximization(z, WEIGHTS), reference, LOGITS)


def confusion(p, certainty):
    """By the steps of the paper, with its matrices."""
    certainty = len(p) * certainty / certainty.sum()
    matrix = p.T @ np.diag(certainty) @ p
    matrix /= matrix.sum(1, keepdims=True)
    return (matrix.sum() - np.trace(matrix)) / p.shape[1]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_class_confusion_is_that_of_the_matrix_with_constant_certainty(temperature):
    constant = 1 + np.exp(-stats.entropy(softmax(LOGITS / temperature, 1), axis=1))

    def reference(logits):
        return confusion(softmax(logits / temperature, 1), WEIGHTS * constant)

    def loss(logits):
        return class_confusion(logits, WEIGHTS, temperature=temperature)

    assert_derivatives(loss, reference, LOGITS)


def test_certain_predictions_by_hand():
    sure = 200 * np.eye(4, dtype=np.float32)
    information = jax.jit(information_maximization)
    confused = jax.jit(functools.partial(class_confusion, temperature=1.0))
    assert jax.jit(entropy)(sure) == 0 and confused(sure) == 0
    np.testing.assert_allclose(information(sure), -np.log(4), rtol=1e-6)
    # One class takes all: nothing is confused with it, and the others are confused with it alone.
    one = np.tile(np.float32([200, 0, 0, 0]), (4, 1))
    np.testing.assert_allclose(information(one), 0, atol=1e-6)
    np.testing.assert_allclose(confused(one), 3 / 4, rtol=1e-6)


@pytest.mark.parametrize("loss", [entropy, information_maximization, class_confusion])
def test_gradients_are_finite_where_probabilities_underflow(loss):
    logits = np.float32([[1e4, 0, -1e4], [0, -1e4, -1e4], [3e4, 1e4, 0]])
    value, gradient = jax.value_and_grad(loss)(logits)
    assert np.isfinite(value) and np.isfinite(gradient).all()
