import jax
import numpy as np

from jaxtl.losses import attended_distance


def test_value_and_gradient_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    features, reference = rng.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    features, reference = features[..., :5], reference[..., :5]
    attention = rng.dirichlet(np.ones(5)).astype(np.float32)
    expected = 0.0
    for i in range(3):
        for c in range(5):
            gap = features[i, ..., c].astype(float) - reference[i, ..., c]
            expected += attention[c] * 5 / (4 * 5) * np.sum(gap**2) / 3
    distance = jax.value_and_grad(attended_distance, argnums=(0, 1))
    value, (gradient, constant) = distance(features, reference, attention)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    closed = 2 * attention * 5 / (4 * 5) / 3 * (features - reference)
    np.testing.assert_allclose(gradient, closed, rtol=1e-4, atol=1e-7)
    assert not constant.any()


def test_repeated_positions_and_channels_change_nothing():
    rng = np.random.default_rng(1)
    features, reference = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
    attention = rng.dirichlet(np.ones(6)).astype(np.float32)
    value = attended_distance(features, reference, attention)
    repeated = [np.repeat(x, 3, 1) for x in (features, reference)]
    np.testing.assert_allclose(attended_distance(*repeated, attention), value, rtol=1e-5)
    # Twice as many channels with half the attention each: the same distance, twice the channels.
    wider = [np.repeat(x, 2, 2) for x in (features, reference)]
    twice = attended_distance(*wider, np.repeat(attention, 2) / 2)
    np.testing.assert_allclose(twice, 2 * value, rtol=1e-5)
    assert attended_distance(features, features, attention) == 0
