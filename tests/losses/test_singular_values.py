import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl.losses import smallest_singular_values


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (4, 4)])
@pytest.mark.parametrize("count", [1, 3])
def test_value_and_gradient_are_those_of_an_svd(shape, count):
    features = draw(shape)
    left, values, right = np.linalg.svd(features.astype(float), full_matrices=False)
    loss = functools.partial(smallest_singular_values, count=count)
    value, gradient = jax.jit(jax.value_and_grad(loss))(features)
    np.testing.assert_allclose(value, np.sum(values[-count:] ** 2), rtol=1e-4)
    expected = 2 * (left[:, -count:] * values[-count:]) @ right[-count:]
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "features",
    [np.eye(4, 6), np.zeros((4, 3)), np.tile(draw((1, 5)), (4, 1)), 2 * np.eye(6)[:, :3]],
    ids=["repeated", "zero", "rank one", "tall"],
)
def test_gradient_is_finite_and_right_where_values_repeat(features):
    features = features.astype(np.float32)
    loss = functools.partial(smallest_singular_values, count=2)
    value, gradient = jax.value_and_grad(loss)(features)
    values = np.linalg.svd(features, compute_uv=False)
    np.testing.assert_allclose(value, np.sum(values[-2:] ** 2), atol=1e-5)
    # Homogeneous of degree 2, and |gradient|^2 = 4 * value by its closed form.
    np.testing.assert_allclose(np.sum(gradient * features), 2 * value, atol=1e-4)
    np.testing.assert_allclose(np.sum(gradient**2), 4 * value, atol=1e-4)


def test_rotations_change_nothing():
    features, (rotation, _) = draw((6, 4)), np.linalg.qr(draw((4, 4), 1))
    np.testing.assert_allclose(
        smallest_singular_values(jnp.asarray(features @ rotation), count=2),
        smallest_singular_values(jnp.asarray(features), count=2),
        rtol=1e-4,
    )


@pytest.mark.parametrize("count", [0, 4])
def test_more_values_than_there_are(count):
    with pytest.raises(ValueError, match=f"from 1 to 3, the rank, got {count}"):
        smallest_singular_values(jnp.ones((5, 3)), count=count)
