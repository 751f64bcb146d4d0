"""Effective rank and nearest neighbours against NumPy in float64 and a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl.transferability import effective_rank, neighbour_accuracy


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
