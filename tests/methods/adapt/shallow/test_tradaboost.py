"""TrAdaBoost's weights by hand, and a target that contradicts most of the source."""

import jax
import numpy as np
import pytest
from shapes import SHAPE

from jaxtl import models
from jaxtl.methods.adapt import tradaboost
from jaxtl.methods.adapt.shallow.tradaboost import reweight
from jaxtl.methods.transfer.linear_fit import logistic_fit
from jaxtl.plan import Columns, State

MODEL = models.linear({"class": models.classes(2)})


def columns(x, labels, weight, role="target"):
    return Columns(
        np.float32(x),
        {"class": labels},
        {"class": np.full(len(x), weight, np.float32)},
        np.ones(len(x)),
        role,
    )


def begin(method, x):
    params, statistics = jax.device_get(MODEL.init(jax.random.key(0), np.float32(x[:1])))
    own = jax.device_get(method.state(MODEL, params, statistics, SHAPE))
    return params, State(statistics, own)


def test_two_rounds_of_weights_by_hand():
    # Three source and four target examples; the second source and the first target are wrong.
    shrink = 1 / (1 + np.sqrt(2 * np.log(3) / 10))
    wrong = np.array([False, True, False, True, False, False, False])
    weights, vote = reweight(np.ones(7), wrong, 3, 10)
    np.testing.assert_allclose(weights, [1, shrink, 1, 3, 1, 1, 1])  # error 1/4: beta_t = 1/3
    assert vote == pytest.approx(np.log(3))
    # Now the second source again, and the last target: error 1/6, beta_t = 1/5.
    wrong = np.array([False, True, False, False, False, False, True])
    weights, vote = reweight(weights, wrong, 3, 10)
    np.testing.assert_allclose(weights, [1, shrink**2, 1, 3, 1, 1, 5])
    assert vote == pytest.approx(np.log(5))
    for wrong, error in ((np.zeros(7, bool), 1e-3), (np.ones(7, bool), 0.49)):
        assert reweight(np.ones(7), wrong, 3, 10)[1] == pytest.approx(np.log(1 / error - 1))


def planted():
    """A source whose larger part follows another rule than the target."""
    rng = np.random.default_rng(0)
    x, few, test = (rng.normal(size=(n, 2)) for n in (200, 40, 500))
    labels = np.where(np.arange(200) < 140, x[:, 0] > 0, x[:, 1] > 0).astype(np.int64)
    return x, labels, few, (few[:, 1] > 0).astype(np.int64), test, test[:, 1] > 0


def test_target_examples_win_against_a_source_that_misleads():
    x, labels, few, few_labels, test, truth = planted()
    method = tradaboost(rounds=10)
    domains = [
        columns(x, labels, 1, "source"),
        columns(few, few_labels, 1),
        columns(test, -1 + 0 * truth, 0),
    ]
    params, state = method.prepare(MODEL, *begin(method, x), domains)
    logits = method.predict(MODEL, params, state, np.float32(test))["logits"]["class"]
    accuracy = (np.asarray(logits).argmax(1) == truth).mean()
    together = logistic_fit(
        np.concatenate([x, few]), np.concatenate([labels, few_labels]), 2, (1.0,)
    )
    plain = ((test @ together.kernel + together.bias).argmax(1) == truth).mean()
    assert accuracy > 0.9 > plain


def test_the_logits_are_votes_of_the_later_rounds():
    x, labels, few, few_labels, test, _ = planted()
    method = tradaboost(rounds=4)
    domains = [columns(x, labels, 1, "source"), columns(few, few_labels, 1)]
    params, state = method.prepare(MODEL, *begin(method, x), domains)
    kept = state.method
    np.testing.assert_array_equal(kept["votes"][:2], 0)
    expected = np.zeros((500, 2))
    for t in (2, 3):
        chosen = (np.float32(test) @ kept["kernels"][t] + kept["biases"][t]).argmax(1)
        expected[np.arange(500), chosen] += kept["votes"][t]
    logits = method.predict(MODEL, params, state, np.float32(test))["logits"]["class"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    first = logistic_fit(np.concatenate([x, few]), np.concatenate([labels, few_labels]), 2, (1.0,))
    np.testing.assert_allclose(kept["kernels"][0], first.kernel, atol=1e-4)


def test_without_labels_of_the_target_or_with_one_round():
    x, labels, _, _, test, truth = planted()
    method = tradaboost()
    with pytest.raises(ValueError, match="needs a target with some labels"):
        domains = [columns(x, labels, 1, "source"), columns(test, -1 + 0 * truth, 0)]
        method.prepare(MODEL, *begin(method, x), domains)
    with pytest.raises(ValueError, match="rounds must be at least 2; got 1"):
        tradaboost(rounds=1)
