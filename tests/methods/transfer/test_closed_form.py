import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeCV

from jaxtl import models, paths
from jaxtl.methods.transfer.closed_form import PENALTIES, logistic, ridge
from jaxtl.models import Network
from jaxtl.plan import Columns, State

HEADS = {"source": models.classes(3), "target": models.classes(4), "dose": models.regression()}
MODEL = models.mlp(HEADS, (8,))


def draw(n=30, seed=0):
    """Images, labels of two heads, and a third of the class labels missing."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)
    labels = {"target": rng.integers(0, 4, n), "dose": rng.normal(size=n).astype(np.float32)}
    weights = {name: rng.uniform(0.5, 2, n).astype(np.float32) for name in labels}
    labels["target"][::3], weights["target"][::3] = -1, 0
    labels["dose"][1::4], weights["dose"][1::4] = np.nan, 0
    return Columns(images, labels, weights, np.ones(len(images)))


def start(model, domain):
    inputs = jnp.asarray(domain.inputs[:1], jnp.float32)
    params, statistics = jax.device_get(model.init(jax.random.key(0), inputs))
    return params, State(statistics)


def features_of(model, params, state, domain):
    inputs = jnp.asarray(domain.inputs, jnp.float32) / 255
    return np.asarray(model.apply(params, state.statistics, inputs)[0]["features"], np.float64)


def test_ridge_solves_each_labelled_head_on_the_features_and_nothing_else():
    domains = [draw(300), draw(20, seed=1)]  # the first needs more than one batch
    params, state = start(MODEL, domains[0])
    solved, kept = ridge().prepare(MODEL, params, state, domains)
    x = np.concatenate([features_of(MODEL, params, state, domain) for domain in domains])
    for head in ("target", "dose"):
        y, w = (
            np.concatenate([getattr(d, field)[head] for d in domains])
            for field in ("labels", "weights")
        )
        seen = w > 0
        targets = np.eye(4)[y[seen]] if head == "target" else y[seen, None]
        reference = RidgeCV(PENALTIES).fit(x[seen], targets, w[seen])
        new = solved["heads"][head]
        np.testing.assert_allclose(
            new["kernel"], reference.coef_.T.reshape(8, -1), rtol=1e-3, atol=1e-4
        )
        np.testing.assert_allclose(
            new["bias"], np.atleast_1d(reference.intercept_), rtol=1e-3, atol=1e-4
        )
        assert new["kernel"].dtype == new["bias"].dtype == np.float32
    before, after = paths.flatten(params), paths.flatten(solved)
    assert before.keys() == after.keys() and kept is state
    for path in before.keys() - {
        f"heads/{h}/{leaf}" for h in ("target", "dose") for leaf in ("kernel", "bias")
    }:
        np.testing.assert_array_equal(before[path], after[path])


def test_parameter_transfer_between_linear_models_returns_to_the_source():
    model = models.linear({"target": models.regression(2)})
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(12, 5)).astype(np.float32)
    labels = rng.normal(size=(12, 2)).astype(np.float32)
    domain = Columns(inputs, {"target": labels}, {"target": np.ones(12, np.float32)}, np.ones(12))
    params, state = start(model, domain)
    source = params["heads"]["target"]["kernel"]
    assert np.abs(source).min() > 0
    for penalty in (2.0, 1e9):
        method = ridge((penalty,), towards_source=True)
        kernel = method.prepare(model, params, state, [domain])[0]["heads"]["target"]["kernel"]
        x, y = inputs - inputs.mean(0), labels - labels.mean(0)
        gram = x.T @ x + penalty * np.eye(5)
        expected = source + np.linalg.solve(gram, x.T @ (y - x @ source))
        np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kernel, source, rtol=1e-5)


def test_logistic_predicts_as_scikit_learn():
    domain = draw(60)
    params, state = start(MODEL, domain)
    method = logistic((0.1,), heads=("heads/target/.*",))
    solved, _ = method.prepare(MODEL, params, state, [domain])
    x, seen = features_of(MODEL, params, state, domain), domain.weights["target"] > 0
    reference = LogisticRegression(C=10.0, tol=1e-8, max_iter=1000).fit(
        x[seen], domain.labels["target"][seen], domain.weights["target"][seen]
    )
    inputs = jnp.asarray(domain.inputs, jnp.float32) / 255
    logits = MODEL.apply(solved, state.statistics, inputs)[0]["logits"]["target"]
    np.testing.assert_allclose(jax.nn.softmax(logits), reference.predict_proba(x), atol=1e-4)


def test_the_method_says_what_it_solves_and_trains_nothing():
    for method in (ridge(heads=("heads/target/.*",)), logistic(heads=("heads/target/.*",))):
        assert method.solves == ("heads/target/.*",)
        assert not method.optimizers and not method.updates


def test_features_are_compiled_once_for_all_seeds():
    domain, traces = draw(), []

    class Counting(Network):
        def apply(self, *args, **kwargs):
            traces.append(1)
            return super().apply(*args, **kwargs)

    model = Counting(**vars(MODEL))
    params, state = start(MODEL, domain)
    ridge((1.0,)).prepare(model, params, state, [domain])
    count = len(traces)
    for _ in range(2):
        ridge((1.0,)).prepare(model, params, state, [domain])
    assert len(traces) == count


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (ridge(heads=("hed/.*",)), "matched no parameter. Closest paths: heads/"),
        (ridge(heads=("heads/target/kernel",)), "whole heads.*heads/target/bias"),
        (ridge(heads=("heads/target/.*", "backbone/.*")), "whole heads.*backbone/dense_0/bias"),
        (ridge(heads=("heads/source/.*",)), "no domain has labels for the heads to solve: source"),
        (logistic(heads=("heads/dose/.*",)), "needs class labels"),
    ],
)
def test_heads_that_cannot_be_solved(method, message):
    domain = draw()
    params, state = start(MODEL, domain)
    with pytest.raises(ValueError, match=message):
        method.prepare(MODEL, params, state, [domain])


def test_diverged_features_are_an_error():
    domain = draw()
    params, state = start(MODEL, domain)
    params = jax.tree.map(lambda leaf: leaf * np.nan, params)
    with pytest.raises(ValueError, match="features that head 'target' is solved on are not finite"):
        ridge(heads=("heads/target/.*",)).prepare(MODEL, params, state, [domain])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ridge(()), "at least one, >= 0; got"),
        (lambda: ridge((-1.0,)), ">= 0; got"),
        (lambda: logistic((0.0,)), "> 0; got"),
        (lambda: ridge((np.nan,)), "finite"),
        (lambda: logistic(folds=1), "folds must be at least 2; got 1"),
    ],
)
def test_penalties_and_folds_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()
