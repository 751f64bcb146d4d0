"""Bi-Tuning against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import SHAPE
from two_layers import (
    MODEL,
    SGD,
    B,
    differs_as,
    draw,
    forward,
    initial,
    moved,
    numbers,
    objective,
    value_and_gradient,
)

from jaxtl.losses import queue_places
from jaxtl.methods import transfer
from jaxtl.paths import flatten
from jaxtl.plan import State


def test_bi_tuning_is_three_losses_and_fills_its_queues():
    method = transfer.bi_tuning(
        SGD, head="target", weight=0.5, projection=2, queue=3, momentum=0.9, temperature=0.5
    )
    params = initial(modules=method.modules)
    state = State({}, method.state(MODEL, params, {}, SHAPE))
    batch = draw()
    _, state, metrics, _ = value_and_gradient(method, params, state, batch)
    labels = batch.labels["target"].reshape(-1)
    weights = batch.weights["target"].reshape(-1)
    assert metrics["projection_loss"] == 0  # nothing is queued yet, and one's own key is positive

    def encode(params):
        features = forward(params, batch.inputs)[0]["second"].reshape(-1, 5)
        p = numbers(params)
        projected = features @ p["projector/output/kernel"] + p["projector/output/bias"]
        both = np.concatenate([features, np.ones((len(features), 1))], 1), projected
        return [v / np.linalg.norm(v, axis=1, keepdims=True) for v in both]

    features, projected = encode(params)
    kept = state.method
    np.testing.assert_array_equal(kept["count"], np.bincount(labels[weights > 0], minlength=3))
    queues = {"features": np.zeros((3, 3, 6)), "projections": np.zeros((3, 3, 2))}
    for label in range(3):
        rows = np.flatnonzero((labels == label) & (weights > 0))
        for place, row in enumerate(rows):
            queues["features"][label, place % 3] = features[row]
            queues["projections"][label, place % 3] = projected[row]
    for name, queue in queues.items():
        np.testing.assert_allclose(kept[name], queue, atol=1e-5)

    later = moved(params)
    average = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, params, later)
    keys = encode(average)[1]
    filled = np.arange(3) < np.asarray(kept["count"])[:, None]

    def contrast(own, queries, queue):
        total = 0.0
        for i in np.flatnonzero(weights):
            s = np.append(own[i], (queue[filled] @ queries[i])) / 0.5
            positive = np.append(True, np.repeat(np.arange(3), filled.sum(1)) == labels[i])
            total += weights[i] * np.mean(np.log(np.exp(s).sum()) - s[positive]) / B
        return total

    def expected(params):
        features, projected = encode(params)
        p = numbers(params)
        planes = np.append(p["heads/target/kernel"], p["heads/target/bias"][None], 0).T
        planes = (planes / np.linalg.norm(planes, axis=1, keepdims=True))[labels]
        first = contrast(np.sum(projected * keys, 1), projected, queues["projections"])
        second = contrast(np.sum(planes * features, 1), planes, queues["features"])
        return objective(params, batch) + 0.5 * (first + second)

    value, new, _, gradient = value_and_gradient(method, later, state, batch)
    np.testing.assert_allclose(value, expected(later), rtol=1e-4)
    for path in ("backbone/first/kernel", "heads/target/bias", "projector/output/kernel"):
        differs_as(gradient, expected, later, path)
    for path, leaf in flatten(new.method["teacher"]).items():
        np.testing.assert_allclose(leaf, flatten(average)[path], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no domain of the stage names head 'target'"):
        value_and_gradient(method, params, state, batch.replace(labels={}))


@pytest.mark.parametrize("length", [1, 2, 5])
def test_places_are_those_of_a_ring(length):
    rng, count, queues = np.random.default_rng(0), np.zeros(3, int), {}
    ours = np.full((3, length), -1)
    for step in range(4):
        labels = rng.integers(0, 4, 7)  # 3 goes nowhere
        (label, place), after = queue_places(jnp.asarray(labels), jnp.asarray(count), length)
        keys = 100 * step + np.arange(7)
        ours = np.asarray(jnp.asarray(ours).at[label, place].set(keys, mode="drop"))
        for key, own in zip(keys, labels, strict=True):
            if own < 3:
                queues[own, count[own] % length] = key
                count[own] += 1
        np.testing.assert_array_equal(after, count)
    for (label, place), key in queues.items():
        assert ours[label, place] == key
