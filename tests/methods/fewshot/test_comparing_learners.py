"""Learners that compare queries with the support, against NumPy, SciPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from small_tasks import MODEL, WAYS, WIDTH, answers, episode, features, parameters, query_loss

from jaxtl.methods import fewshot
from jaxtl.plan import Columns, State


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def read(params, *, shots=2, seed=0):
    """(support, queries, features of both)."""
    support, queries = episode(seed, shots=shots)
    return support, queries, features(params, support.inputs), features(params, queries.inputs)


def means(rows, labels):
    return np.stack([rows[labels == k].mean(0) for k in range(WAYS)])


def test_prototypes_are_nearest_centroids():
    params = parameters()
    support, queries, x, q = read(params, shots=3)
    logits = answers(fewshot.prototypical(), params, support, queries)
    expected = -cdist(q, means(x, support.labels), "sqeuclidean")
    np.testing.assert_allclose(logits, expected, rtol=1e-10, atol=1e-12)
    centroids = NearestCentroid().fit(x, support.labels)
    assert (logits.argmax(1) == centroids.predict(q)).all()
    loss = query_loss(fewshot.prototypical(), params, support, queries)
    by_hand = -log_softmax(expected, 1)[np.arange(len(q)), queries.labels].mean()
    np.testing.assert_allclose(loss, by_hand, rtol=1e-10)


def test_cosine_prototypes_with_a_learned_scale():
    learner = fewshot.prototypical(fewshot.cosine, scale=10.0, learn_scale=True)
    params = parameters(learner=learner)
    support, queries, x, q = read(params)
    expected = params["scale"]["factor"] * (1 - cdist(q, means(x, support.labels), "cosine"))
    logits = answers(learner, params, support, queries)
    np.testing.assert_allclose(logits, expected, rtol=1e-10)
    gradient = jax.jit(jax.grad(lambda p: query_loss(learner, p, support, queries)))(params)
    assert abs(gradient["scale"]["factor"]) > 1e-4
    fixed = answers(fewshot.prototypical(fewshot.cosine, scale=3.0), params, support, queries)
    np.testing.assert_allclose(fixed * params["scale"]["factor"] / 3, expected, rtol=1e-10)


def test_one_shot_is_the_nearest_neighbour():
    params = parameters()
    support, queries, x, q = read(params, shots=1)
    neighbour = KNeighborsClassifier(1).fit(x, support.labels).predict(q)
    for learner in (
        fewshot.prototypical(),
        fewshot.matching(fewshot.squared_euclidean),
        fewshot.simple_shot(centre="none", normalise=False),
    ):
        assert (answers(learner, params, support, queries).argmax(1) == neighbour).all()


@pytest.mark.parametrize("scale", [7.0])
def test_matching_attends_to_the_support(scale):
    params = parameters()
    support, queries, x, q = read(params)
    attention = softmax(scale * (1 - cdist(q, x, "cosine")), 1)
    expected = attention @ np.eye(WAYS)[support.labels]
    logits = answers(fewshot.matching(scale=scale), params, support, queries)
    np.testing.assert_allclose(np.exp(logits), expected, rtol=1e-10)
    far = queries._replace(inputs=queries.inputs * 1e3)
    learner = fewshot.matching(fewshot.squared_euclidean, scale=1e5)
    slope = jax.jit(jax.grad(lambda p: query_loss(learner, p, support, far)))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_weights_of_the_support_count_as_copies():
    params = parameters()
    support, queries = episode()
    weights = np.array([2.0, 1, 1, 3, 1, 1])
    rows = np.repeat(np.arange(6), weights.astype(int))
    copies = jax.tree.map(lambda leaf: leaf[rows], support)
    for learner in (fewshot.prototypical(), fewshot.matching(), fewshot.simple_shot()):
        logits = answers(learner, params, support._replace(weights=weights), queries)
        expected = answers(learner, params, copies, queries)
        np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("centre", ["none", "support", "source"])
@pytest.mark.parametrize("normalise", [True, False])
def test_simple_shot(centre, normalise):
    params = parameters()
    support, queries, x, q = read(params)
    mean = {"none": 0, "support": x.mean(0), "source": np.linspace(-0.2, 0.3, WIDTH)}[centre]
    x, q = x - mean, q - mean
    if normalise:
        x, q = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, q))
    state = State({}, {"feature_mean": jnp.asarray(mean)} if centre == "source" else None)
    learner = fewshot.simple_shot(centre=centre, normalise=normalise)
    logits = answers(learner, params, support, queries, state=state)
    expected = -cdist(q, means(x, support.labels), "sqeuclidean")
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-12)


def test_the_mean_feature_of_the_source():
    params = jax.tree.map(np.asarray, parameters())
    method, rng = fewshot.feature_mean(), np.random.default_rng(5)
    inputs, weights = rng.normal(size=(11, 4)), np.arange(11.0)
    domains = [
        Columns(inputs[:4], {}, {}, weights[:4]),
        Columns(inputs[4:], {}, {}, weights[4:]),
    ]
    _, state = method.prepare(MODEL, params, State({}), domains)
    expected = np.average(features(params, inputs), axis=0, weights=weights)
    np.testing.assert_allclose(state.method["feature_mean"], expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"fewshot\.feature_mean\(\)"):
        answers(method.learner, params, *episode())


def test_relation_scores_every_pair():
    learner = fewshot.relation()
    params = parameters(learner=learner)
    support, queries, x, q = read(params)
    layers = jax.tree.map(np.asarray, params["relation"])
    prototypes = means(x, support.labels)
    pairs = np.stack([[np.concatenate([c, row]) for c in prototypes] for row in q])
    hidden = np.maximum(pairs @ layers["dense_0"]["kernel"] + layers["dense_0"]["bias"], 0)
    expected = (hidden @ layers["output"]["kernel"] + layers["output"]["bias"])[..., 0]
    logits = answers(learner, params, support, queries)
    np.testing.assert_allclose(logits, expected, rtol=1e-10)


def test_similarities_at_zero_and_far_away():
    value_and_slope = jax.value_and_grad(lambda a, b: fewshot.cosine(a, b).sum())
    value, slope = jax.jit(value_and_slope)(np.zeros((2, 3)), np.eye(3)[:1])
    assert value == 0 and np.isfinite(slope).all()
    near = 1e4 + np.random.default_rng(0).integers(0, 9, (4, 3)).astype(np.float32)
    exact = -cdist(near, near[:2], "sqeuclidean")  # float32 holds them, but not their squares
    distances = jax.jit(fewshot.squared_euclidean)(near, near[:2])
    np.testing.assert_allclose(distances, exact, atol=1e-2)
