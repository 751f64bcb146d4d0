"""Heads that are fitted to the support, against scikit-learn, and their meta-gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from finite_differences import central_difference
from sklearn.linear_model import LogisticRegression, Ridge
from small_tasks import (
    MODEL,
    NUMBERS,
    PLAIN,
    WAYS,
    answers,
    episode,
    features,
    parameters,
    query_loss,
)

from jaxtl.methods import fewshot
from jaxtl.methods.fewshot.ridge_head import solve_ridge


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def constant(rows):
    return np.concatenate([rows, np.ones_like(rows[:, :1])], 1)


@pytest.mark.parametrize("shots", [1, 4])  # fewer examples than features, and more
def test_ridge_on_classes(shots):
    learner = fewshot.ridge_head(penalty=0.7, scale=3.0, learned=False)
    params, (support, queries) = parameters(), episode(shots=shots)
    x, q = (constant(features(params, rows.inputs)) for rows in (support, queries))
    weights = np.linspace(0.5, 2, len(x))
    ridge = Ridge(0.7, fit_intercept=False).fit(x, np.eye(WAYS)[support.labels], weights)
    logits = answers(learner, params, support._replace(weights=weights), queries)
    np.testing.assert_allclose(logits, 3 * ridge.predict(q), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model", [PLAIN, NUMBERS])
def test_ridge_on_numbers(model):
    learner, size = fewshot.ridge_head(penalty=0.1, scale=5.0), model.heads["task"].size
    params, (support, queries) = parameters(model, learner), episode(numbers=size)
    x, q = (constant(features(params, rows.inputs)) for rows in (support, queries))
    penalty = np.exp(params["ridge_head"]["log_penalty"])
    expected = Ridge(penalty, fit_intercept=False).fit(x, support.labels).predict(q)
    outputs = answers(learner, params, support, queries, model=model)
    np.testing.assert_allclose(outputs, expected.reshape(len(q), -1), rtol=1e-9, atol=1e-12)


def test_both_forms_of_ridge_are_one():
    rng = np.random.default_rng(0)
    x, y, weights = rng.normal(size=(5, 5)), rng.normal(size=(5, 2)), rng.uniform(0, 2, 5)
    solve = jax.jit(solve_ridge)
    kernel = solve(x, y, weights, 0.3)  # by the features
    wide = np.concatenate([x, np.zeros((5, 4))], 1)
    padded = solve(wide, y, weights, 0.3)  # by the examples
    np.testing.assert_allclose(padded[:5], kernel, rtol=1e-9)


@pytest.mark.parametrize("penalty", [0.03, pytest.param(2.0, marks=pytest.mark.slow)])
def test_logistic_regression_of_the_support(penalty):
    learner = fewshot.logistic_head(penalty=penalty)
    params, (support, queries) = parameters(), episode(shots=3)
    x, q = (constant(features(params, rows.inputs)) for rows in (support, queries))
    weights = np.linspace(0.5, 2, len(x))
    fit = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-12, max_iter=10_000)
    expected = fit.fit(x, support.labels, weights).decision_function(q)
    logits = answers(learner, params, support._replace(weights=weights), queries)
    centred = logits - logits.mean(1, keepdims=True)
    np.testing.assert_allclose(
        centred, expected - expected.mean(1, keepdims=True), rtol=1e-5, atol=1e-6
    )


LEARNERS = {
    "prototypical": fewshot.prototypical(),
    "matching": fewshot.matching(scale=3.0),
    "relation": fewshot.relation(),
    "ridge": fewshot.ridge_head(),
    "logistic": fewshot.logistic_head(penalty=0.5, learn_scale=True, solver_steps=100),
    "simple shot": fewshot.simple_shot(),
    "in context": fewshot.in_context(),
}


QUICK = ("prototypical", "ridge", "logistic")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in LEARNERS]
)
def test_the_gradient_goes_through_the_support(name):
    learner = LEARNERS[name]
    params, (support, queries) = parameters(learner=learner), episode(3)

    @jax.jit
    def loss(params):
        return query_loss(learner, params, support, queries, train=True)

    gradient = jax.jit(jax.grad(loss))(params)
    assert abs(gradient["backbone"]["first"]["kernel"]).max() > 1e-4
    slope, expected = central_difference(loss, params, gradient)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


@pytest.mark.slow
def test_a_fresh_head_trained_long_enough_is_logistic_regression():
    learner = fewshot.baseline(optax.sgd(2.0, momentum=0.9), num_steps=400)
    decayed = fewshot.baseline(
        optax.chain(optax.add_decayed_weights(0.05), optax.sgd(1.0, momentum=0.9)), num_steps=400
    )
    params, (support, queries) = parameters(), episode(shots=3)
    x, q = (features(params, rows.inputs) for rows in (support, queries))
    # Mean loss and decay of the bias too: that of a constant feature.
    fit = LogisticRegression(C=1 / (0.05 * len(x)), fit_intercept=False, tol=1e-12, max_iter=9999)
    expected = fit.fit(constant(x), support.labels).decision_function(constant(q))
    logits = answers(decayed, params, support, queries)
    np.testing.assert_allclose(
        logits - logits.mean(1, keepdims=True),
        expected - expected.mean(1, keepdims=True),
        atol=1e-6,
    )
    other = params | {"heads": {}}  # the arm's own head is not read and need not be there
    np.testing.assert_array_equal(answers(decayed, other, support, queries), logits)
    on_support = answers(learner, params, support, support)
    loss = MODEL.heads["task"].loss(on_support, support.labels).mean()
    assert loss < 0.8 * np.log(WAYS)


def test_a_cosine_head_descends_on_the_support():
    params, (support, queries) = parameters(), episode(shots=3)
    x, q = (features(params, rows.inputs) for rows in (support, queries))
    x, q = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, q))
    rows = np.stack([x[support.labels == k].mean(0) for k in range(WAYS)])

    def logits(rows, features):
        return 10.0 * features @ (rows / jnp.linalg.norm(rows, axis=1, keepdims=True)).T

    @jax.grad
    def slope(rows):
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(rows, x), support.labels)
        return losses.mean()

    slope = jax.jit(slope)
    for _ in range(3):
        rows = rows - 0.1 * np.asarray(slope(rows))
    learner = fewshot.baseline_plus_plus(optax.sgd(0.1), num_steps=3)
    np.testing.assert_allclose(
        answers(learner, params, support, queries), jax.jit(logits)(rows, q), rtol=1e-9
    )
