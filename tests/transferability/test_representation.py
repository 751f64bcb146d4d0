"""Effective rank, nearest neighbours and a linear probe: NumPy in float64, loops, scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl.transferability import effective_rank, neighbour_accuracy, probe_accuracy


def rank_by_hand(features):
    values = np.linalg.svd(np.float64(features), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return np.exp(-(shares * np.log(shares)).sum())


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_effective_rank(scale):
    features = np.random.default_rng(0).normal(size=(30, 6)) * np.arange(1, 7)
    rank = effective_rank(jnp.float32(features * scale))
    np.testing.assert_allclose(rank, rank_by_hand(features), rtol=1e-5)
    assert 1 < rank < 6


def test_rank_of_equal_directions_and_of_one():
    np.testing.assert_allclose(effective_rank(jnp.eye(5)), 5, rtol=1e-6)
    collapsed = jnp.tile(jnp.arange(1.0, 5.0), (9, 1)) * jnp.arange(1.0, 10.0)[:, None]
    np.testing.assert_allclose(effective_rank(collapsed), 1, atol=1e-4)
    assert effective_rank(jnp.zeros((4, 3))) == 0


def accuracy_by_loop(features, labels, count):
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    right = []
    for i in range(len(labels)):
        if labels[i] < 0:
            continue
        others = [j for j in range(len(labels)) if j != i and labels[j] >= 0]
        others.sort(key=lambda j, i=i: -directions[i] @ directions[j])
        votes = np.bincount(labels[others[:count]])
        right.append(votes.argmax() == labels[i])
    return np.mean(right)


@pytest.mark.parametrize("count", [1, 4, 99])
def test_the_vote_of_the_nearest(count):
    rng = np.random.default_rng(1)
    labels = rng.integers(-1, 3, 40)
    features = rng.normal(size=(40, 3)) + 1.5 * np.eye(3)[labels]
    accuracy = neighbour_accuracy(jnp.float32(features), jnp.asarray(labels), count=count)
    np.testing.assert_allclose(accuracy, accuracy_by_loop(features, labels, count), rtol=1e-6)


def test_nobody_to_ask():
    features = jax.random.normal(jax.random.key(0), (3, 2))
    assert np.isnan(neighbour_accuracy(features, jnp.full(3, -1)))
    assert np.isnan(neighbour_accuracy(features, jnp.array([-1, 2, -1])))
    assert neighbour_accuracy(features, jnp.array([1, 1, -1])) == 1


def probe_by_loop(features, labels, classes, penalties):
    """scikit-learn's ridge, fitted once for each example that is left out."""
    from sklearn.linear_model import Ridge

    rows = np.flatnonzero(labels >= 0)
    features, goals = np.float64(features)[rows], np.eye(classes)[labels[rows]]
    scatter = ((features - features.mean(0)) ** 2).sum() / features.shape[1]
    predictions = []
    for penalty in penalties:
        model = Ridge(alpha=penalty * scatter)
        others = [np.delete(np.arange(len(rows)), i) for i in range(len(rows))]
        fits = [
            model.fit(features[o], goals[o]).predict(features[[i]]) for i, o in enumerate(others)
        ]
        predictions.append(np.concatenate(fits))
    best = np.argmin([((p - goals) ** 2).sum() for p in predictions])
    return best, np.mean(predictions[best].argmax(1) == labels[rows])


@pytest.mark.parametrize("width", [3, 60])
@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e18])
def test_a_linear_probe_leaves_each_example_out(width, scale):
    rng = np.random.default_rng(width)
    labels = rng.integers(-1, 4, 50)
    features = 2 + rng.normal(size=(50, width)) * np.geomspace(0.3, 3, width)
    features[:, :2] += 2 * np.stack([labels == 1, labels == 3], 1)
    picked = set()
    for penalties in [(1e-3,), (300.0,), (1e-3, 1e-1, 1.0, 300.0)]:
        best, expected = probe_by_loop(features, labels, 4, penalties)
        accuracy = probe_accuracy(
            jnp.float32(features * scale), jnp.asarray(labels), 4, penalties=penalties
        )
        np.testing.assert_allclose(accuracy, expected, rtol=1e-6)
        picked.add(expected)
    assert len(picked) > 1 and best < 3 and 0.3 < expected < 1


def test_what_a_linear_probe_says_of_features_that_say_nothing():
    labels = jnp.array([0, 0, 0, 1, -1])
    assert probe_accuracy(jnp.ones((5, 2)), labels, 2) == 0.75  # the most frequent class
    assert np.isnan(probe_accuracy(jnp.ones((5, 2)), jnp.full(5, -1), 2))
    assert np.isnan(probe_accuracy(jnp.ones((5, 2)), jnp.array([-1, 1, -1, -1, -1]), 2))
    assert np.isnan(probe_accuracy(jnp.full((5, 2), jnp.nan), labels, 2))
