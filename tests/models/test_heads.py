"""The losses of one example, against scipy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from shapes import SHAPE

from jaxtl.models import binary, classes, mlp_head, regression
from jaxtl.paths import flatten

OUTPUTS = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)


def test_classes_is_the_negative_log_softmax():
    labels = np.array([[0, 1], [2, 2], [1, 0], [0, 2]])
    log_p = scipy.special.log_softmax(OUTPUTS.astype(np.float64), axis=-1)
    expected = -np.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    np.testing.assert_allclose(classes(3).loss(OUTPUTS, labels), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_smoothed_classes_against_the_mixed_labels(smoothing):
    labels = np.array([[0, 1], [2, 2], [1, 0], [0, 2]])
    log_p = scipy.special.log_softmax(OUTPUTS.astype(np.float64), axis=-1)
    mixed = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    head = classes(3, label_smoothing=smoothing)
    np.testing.assert_allclose(head.loss(OUTPUTS, labels), -(mixed * log_p).sum(-1), rtol=1e-5)
    gradient = jax.grad(lambda z: head.loss(z, labels).sum())(OUTPUTS)
    np.testing.assert_allclose(gradient, np.exp(log_p) - mixed, rtol=1e-4, atol=1e-6)
    assert np.isfinite(head.loss(OUTPUTS[0], jnp.array([1, -1]))).all()
    with pytest.raises(ValueError, match=r"in \[0, 1\], got -0.1"):
        classes(3, label_smoothing=-0.1)


def test_a_hidden_class_leaves_loss_and_gradient_finite():
    labels, weights = jnp.array([1, -1]), jnp.array([1.0, 0.0])

    def objective(logits):
        return jnp.where(weights > 0, classes(3).loss(logits, labels), 0).sum()

    value, gradient = jax.value_and_grad(objective)(OUTPUTS[0])
    expected = scipy.special.softmax(OUTPUTS[0, 0]) - np.array([0, 1, 0])
    np.testing.assert_allclose(gradient[0], expected, rtol=1e-5)
    assert np.isfinite(value) and np.all(gradient[1] == 0)


def test_binary_is_the_mean_log_likelihood():
    labels = np.random.default_rng(1).integers(0, 2, OUTPUTS.shape).astype(np.float32)
    p = scipy.special.expit(OUTPUTS.astype(np.float64))
    expected = -np.where(labels == 1, np.log(p), np.log1p(-p)).mean(-1)
    np.testing.assert_allclose(binary(3).loss(OUTPUTS, labels).mean(-1), expected, rtol=1e-5)


def test_regression_by_hand():
    one, two = regression(), regression(2)
    np.testing.assert_array_equal(
        one.loss(jnp.array([[3.0], [1.0]]), jnp.array([1.0, 1.0])), [4, 0]
    )
    np.testing.assert_array_equal(
        two.loss(jnp.array([[3.0, 1.0]]), jnp.array([[1.0, 2.0]])), [[4, 1]]
    )
    gradient = jax.grad(lambda y: one.loss(y, jnp.array([1.0])).sum())(jnp.array([[3.0]]))
    assert gradient[0, 0] == 4


def test_missing_numbers_as_the_docstring_says():
    labels, weights = jnp.array([1.0, jnp.nan]), jnp.array([1.0, 0.0])

    def objective(outputs):
        loss = regression().loss(outputs, jnp.where(weights > 0, labels, 0))
        return jnp.where(weights > 0, loss, 0).sum()

    gradient = jax.grad(objective)(jnp.array([[3.0], [3.0]]))
    np.testing.assert_array_equal(gradient[:, 0], [4, 0])


@pytest.mark.parametrize(
    ("head", "label_shape", "integer"),
    [
        (classes(4), (), True),
        (binary(4), (4,), False),
        (binary(1), (1,), False),
        (regression(), (), False),
        (regression(4), (4,), False),
    ],
)
def test_labels_of_the_declared_shape_give_one_loss_an_element(head, label_shape, integer):
    assert (head.label_shape, head.integer) == (label_shape, integer)
    labels = jnp.zeros((5, 2, *label_shape), jnp.int32 if integer else jnp.float32)
    assert head.loss(jnp.zeros((5, 2, head.size)), labels).shape == (5, 2, *label_shape)


def test_mlp_head_by_hand():
    module = mlp_head((5, 4), 2)
    features = OUTPUTS
    params = module.init(jax.random.key(0), {"features": features, "logits": {}}, SHAPE)
    shapes = {path: leaf.shape for path, leaf in flatten(params).items() if "kernel" in path}
    assert shapes == {
        "dense_0/kernel": (3, 5),
        "dense_1/kernel": (5, 4),
        "output/kernel": (4, 2),
    }
    x = features
    for name in ("dense_0", "dense_1"):
        x = np.maximum(x @ params[name]["kernel"], 0)
    expected = x @ params["output"]["kernel"]
    np.testing.assert_allclose(module.apply(params, features), expected, rtol=1e-5, atol=1e-6)
