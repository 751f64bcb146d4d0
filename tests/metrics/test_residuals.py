import jax
import numpy as np
import pytest
from sklearn import metrics as sk
from unread import UNREAD

from jaxtl.metrics import regression


def measure(outputs, labels, weights, **options):
    evaluation = regression(UNREAD, "target", **options)
    halves = [
        jax.device_get(jax.jit(evaluation.sums)(*part))
        for part in zip(*(np.array_split(x, 2) for x in (outputs, labels, weights)), strict=True)
    ]
    return evaluation.results(jax.tree.map(np.add, *halves))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(("mean", "options"), [(0, {}), (3, {}), (2000, {"centre": 1990.0})])
def test_agrees_with_scikit_learn(size, mean, options):
    rng = np.random.default_rng(size)
    labels = (mean + rng.normal(size=(50, size))).astype(np.float32)
    outputs = (labels + 0.5 * rng.normal(size=labels.shape)).astype(np.float32)
    weights = np.ones(50, np.float32)
    weights[::7] = 0
    seen = weights > 0
    y, predicted = labels[seen].astype(np.float64), outputs[seen].astype(np.float64)
    labels[~seen] = np.nan
    mse = sk.mean_squared_error(y, predicted)
    expected = {
        "loss": mse, "mse": mse, "rmse": mse**0.5,
        "mae": sk.mean_absolute_error(y, predicted), "r2": sk.r2_score(y, predicted),
    }  # fmt: skip
    given = labels[:, 0] if size == 1 else labels
    assert measure(outputs, given, weights, **options) == pytest.approx(expected, rel=1e-5)


def test_weights_count_as_repetitions():
    rng = np.random.default_rng(0)
    outputs, labels = rng.normal(size=(2, 12, 1)).astype(np.float32)
    weights = np.arange(12) % 3
    rows = np.repeat(np.arange(12), weights)
    weighted = measure(outputs, labels, weights.astype(np.float32))
    assert weighted == pytest.approx(measure(outputs[rows], labels[rows], np.ones(len(rows))))


def test_constant_labels_have_no_r2_and_no_examples_have_nothing():
    labels, ones = np.full(30, 7.3, np.float32), np.ones(30, np.float32)
    results = measure(labels[:, None] + 2, labels, ones)
    assert np.isnan(results["r2"]) and results["mse"] == pytest.approx(4)
    assert np.isnan(list(measure(labels[:, None], labels, 0 * ones).values())).all()
