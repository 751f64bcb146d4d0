"""CAN: clusters of the target, the labels that a batch gets from them, and its objective."""

import jax
import numpy as np
import pytest
from shapes import SHAPE
from sklearn.cluster import KMeans
from two_domains import (
    CLASSES,
    MODEL,
    SGD,
    WIDTH,
    Forward,
    assert_close,
    computed,
    draw,
    evaluated,
    gradient_of,
    initial,
)

from jaxtl import losses
from jaxtl.methods import adapt
from jaxtl.methods.adapt.class_centres import class_centres, cluster_labels, spherical_k_means
from jaxtl.plan import Columns, State
from jaxtl.plan.batch import make_batch


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def directions(n, seed=0, spread=0.4):
    """[n, 4] of length 1 around three directions, and which of them."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 3
    return unit(np.eye(4)[labels] + spread * rng.normal(size=(n, 4))), labels


def test_clusters_maximise_the_cosine_like_a_plain_loop():
    points, labels = directions(60, spread=0.7)
    begin = unit(np.eye(4)[:3] + 0.5)
    centres, assigned = spherical_k_means(points, begin)
    expected = begin
    for _ in range(100):
        nearest = np.array([np.argmax([c @ p for c in expected]) for p in points])
        expected = unit(np.stack([points[nearest == c].mean(0) for c in range(3)]))
    np.testing.assert_allclose(centres, expected, rtol=1e-12)
    np.testing.assert_array_equal(assigned, nearest)
    assert 0.6 < np.mean(assigned == labels) < 1  # a problem with some doubt


def test_well_separated_clusters_are_those_of_scikit_learn():
    points, labels = directions(60, spread=0.1)
    _, assigned = spherical_k_means(points, unit(np.eye(4)[:3] + 0.5))
    reference = KMeans(3, init=np.eye(4)[:3], n_init=1).fit(points)
    np.testing.assert_array_equal(assigned, reference.labels_)
    np.testing.assert_array_equal(assigned, labels)


def test_a_class_without_source_examples_gets_no_target():
    points, labels = directions(30, spread=0.1)
    centres = class_centres(points, np.where(labels == 1, -1, labels), 3)
    assert not centres[1].any()
    after, assigned = spherical_k_means(points, centres)
    assert set(assigned) == {0, 2} and not after[1].any()


def test_labels_of_a_batch_by_a_loop():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 4)).astype(np.float32) * 3
    centres = unit(rng.normal(size=(3, 4))).astype(np.float32)
    centres[2] = 0  # a class without centre
    known = np.array([True, False, True])
    labels, weights = cluster_labels(features, {"centres": centres, "known": known}, 0.4)
    for x, label, weight in zip(features, np.asarray(labels), np.asarray(weights), strict=True):
        cosines = [x @ c / np.linalg.norm(x) for c in centres[:2]]
        assert label == np.argmax(cosines)
        assert weight == float(known[label] and (1 - max(cosines)) / 2 < 0.4)
    assert 0 < np.mean(weights) < 1


def prepared(method, params):
    """(method's state after its pass over two domains of 30, their features)."""
    rng = np.random.default_rng(5)
    parts = [draw(seed=seed) for seed in range(5)]
    inputs = [np.concatenate([part.inputs[:, d] for part in parts]) for d in (0, 1)]
    labels = rng.integers(0, CLASSES, 30)
    labels[3], weights = -1, np.where(np.arange(30) == 3, 0, 1).astype(np.float32)
    hidden = np.full(30, -1), np.zeros(30, np.float32)
    domains = [
        Columns(inputs[0], {"task": labels}, {"task": weights}, np.ones(len(labels))),
        Columns(inputs[1], {"task": hidden[0]}, {"task": hidden[1]}, np.ones(30), "target"),
    ]
    params = jax.device_get(params)
    after, state = method.prepare(MODEL, params, State({}), domains)
    assert after is params
    none = {"task": np.zeros((30, 1), int)}
    features = [computed(params, make_batch(x[:, None, :], none, none)).fs for x in inputs]
    return state.method, features, labels


def test_prepare_clusters_the_features_of_all_targets():
    method = adapt.can(SGD, every=10, largest_distance=0.1, smallest_class=4)
    params = initial(method)
    kept, (source, target), labels = prepared(method, params)
    start = unit(np.stack([unit(source)[labels == c].sum(0) for c in range(CLASSES)]))
    centres, assigned = spherical_k_means(unit(target), start)
    np.testing.assert_allclose(kept["centres"], centres, rtol=1e-4, atol=1e-5)
    near = (1 - np.max(unit(target) @ centres.T, 1)) / 2 < 0.1
    counts = [np.sum(near & (assigned == c)) for c in range(CLASSES)]
    np.testing.assert_array_equal(kept["known"], np.array(counts) >= 4)
    assert method.prepare_every == 10
    shapes = jax.tree.map(np.shape, method.state(MODEL, params, {}, SHAPE))
    assert shapes == jax.tree.map(np.shape, kept)


def test_objective_by_hand():
    bandwidths = np.array([0.5, 2.0], np.float32)
    method = adapt.can(SGD, every=1, weight=0.7, bandwidths=bandwidths)
    batch, params = draw(), initial(method)
    fixed = unit(computed(params, batch).ft)
    directions = fixed[:3].astype(np.float32)
    kept = {"centres": directions, "known": np.ones(3, bool)}

    def expected(params):
        f = Forward(params, batch)
        cosines = fixed @ directions.T
        used = ((1 - cosines.max(1)) / 2 < 0.05).astype(np.float32)
        value = losses.contrastive_domain_discrepancy(
            f.fs,
            f.ft,
            f.labels,
            cosines.argmax(1),
            None,
            used,
            num_classes=CLASSES,
            bandwidths=bandwidths,
        )
        return f.task + 0.7 * value

    loss, metrics, gradient = evaluated(method, params, batch, state=State({}, kept))
    value, by_hand = gradient_of(expected, params)
    np.testing.assert_allclose(loss, value, rtol=1e-5)
    assert_close(gradient, by_hand)
    assert metrics["used"] >= 0.5 and abs(metrics["contrastive_discrepancy"]) > 1e-3


def test_a_centre_for_each_class_of_the_stage():
    method = adapt.can(SGD, every=1)
    kept = method.state(MODEL, initial(method), {}, SHAPE._replace(classes={"task": 4}))
    assert kept["centres"].shape == (4, WIDTH) and kept["known"].shape == (4,)
    two = SHAPE._replace(classes={"task": 3, "other": 2})
    with pytest.raises(ValueError, match="one head that all domains name; these name other, task"):
        method.state(MODEL, initial(method), {}, two)
