"""SHOT: centroids in NumPy, the objective, what stays, and a shift that it undoes."""

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from shapes import SHAPE
from unlabelled_streams import (
    MODEL,
    SGD,
    C,
    assert_gradient,
    cross_entropy,
    draw,
    forward,
    host,
    log_softmax,
    softmax,
    start,
    value_and_gradient,
)

from jaxtl.methods import adapt
from jaxtl.methods.adapt.class_centres import centroids_by_prediction, nearest_centroid
from jaxtl.plan import Columns, State


def public_centroids(features, logits):
    """As the authors' code: cosine distances of features with a 1 appended, two rounds."""
    features = np.concatenate([features, np.ones((len(features), 1))], 1)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    shares = softmax(logits)
    centroids = shares.T @ features / shares.sum(0)[:, None]
    labels = cdist(features, centroids, "cosine").argmin(1)
    shares = np.eye(logits.shape[1])[labels]
    return shares.T @ features / np.maximum(shares.sum(0), 1)[:, None], features


def drawn(seed=0, n=50):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6)), 2 * rng.normal(size=(n, 4))


def test_centroids_and_labels_agree_with_scipy():
    features, logits = drawn()
    expected, lengthened = public_centroids(features, logits)
    found = centroids_by_prediction(features, logits)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    labels = nearest_centroid(features.astype("f"), found.astype("f"))
    np.testing.assert_array_equal(labels, cdist(lengthened, expected, "cosine").argmin(1))
    assert len(set(np.asarray(labels))) == 4


def test_a_class_that_nothing_is_near_has_no_centroid_and_is_never_a_label():
    features, logits = drawn()
    logits[:, 3] = logits[:, 2]  # equal centroids at first, of which the first one counts
    centroids = centroids_by_prediction(features, logits)
    assert not centroids[3].any() and centroids[:3].any(1).all()
    far = -9 * centroids[:3, :-1].sum(0) + features
    labels = nearest_centroid(far.astype("f"), centroids.astype("f"))
    cosines = 1 - cdist(np.append(far, np.ones((50, 1)), 1), centroids[:3], "cosine")
    assert (cosines.max(1) < 0).any()  # where 0 would be nearer
    np.testing.assert_array_equal(labels, cosines.argmax(1))


def kept_after_prepare(method, params, batch):
    columns = [
        Columns(
            batch.inputs[:, d],
            {"c": batch.labels["c"][:, d]},
            {"c": np.zeros(6, "f")},
            np.ones(6, "f"),
        )
        for d in range(batch.inputs.shape[1])
    ]
    state = State({}, method.state(MODEL, params, {}, SHAPE))
    after, state = method.prepare(MODEL, host(params), host(state), columns)
    assert jax.tree.all(jax.tree.map(np.array_equal, after, host(params)))
    return state


def mutual(logits):
    p = softmax(logits)
    mean = p.mean(0)
    return -(p * log_softmax(logits)).sum(-1).mean() + (mean * np.log(mean)).sum()


def test_the_objective_of_shot():
    (params, _), (now, _) = start(), start(seed=8)
    batch = draw(domains=2, unknown=2)
    method = adapt.shot(SGD, weight=0.6)
    state = kept_after_prepare(method, params, batch)
    features, logits = forward(params, batch.inputs)
    # The centroids come domain after domain; the order does not matter.
    expected, _ = public_centroids(features.reshape(-1, 5), logits.reshape(-1, C))
    np.testing.assert_allclose(state.method["centroids"]["c"], expected, atol=1e-5)
    # The encoder of that moment labels, whatever trains since.
    features = np.concatenate([features.reshape(-1, 5), np.ones((12, 1))], 1)
    there = expected[expected.any(1)]
    labels = np.flatnonzero(expected.any(1))[cdist(features, there, "cosine").argmin(1)]

    def value_of(params):
        logits = forward(params, batch.inputs)[1].reshape(-1, C)
        return mutual(logits) + 0.6 * cross_entropy(logits, labels).mean()

    value, _, metrics, gradient = value_and_gradient(method, now, state, batch)
    np.testing.assert_allclose(value, value_of(now), rtol=1e-5)
    np.testing.assert_allclose(
        metrics["information_maximization"] + 0.6 * metrics["pseudo_loss"], value, rtol=1e-6
    )
    assert_gradient(gradient, value_of, now)
    value, _, _, _ = value_and_gradient(adapt.shot_im(SGD), now, State({}), batch)
    np.testing.assert_allclose(
        value, mutual(forward(now, batch.inputs)[1].reshape(-1, C)), rtol=1e-5
    )


@pytest.mark.parametrize("builder", [adapt.shot, adapt.shot_im])
def test_all_but_the_heads_trains(builder):
    from jaxtl.paths import flatten, label

    groups = {name: patterns for name, (patterns, _) in builder(SGD).optimizers.items()}
    labels = label(flatten(start()[0]), groups)
    assert {path for path, group in labels.items() if group == "frozen"} == {
        "heads/c/kernel",
        "heads/c/bias",
    }
