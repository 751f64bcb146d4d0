import jax
import numpy as np
import pytest
from sklearn import metrics as sk
from unread import UNREAD

from jaxtl.metrics import multilabel


@pytest.mark.parametrize("size", [1, 4])
def test_agrees_with_scikit_learn(size):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, size)).astype(np.float32)
    labels = rng.integers(0, 2, (40, size)).astype(np.float32)
    labels[:, -1] = np.arange(40) % 2
    weights = (np.arange(40) % 5 > 0).astype(np.float32)
    seen = weights > 0
    y, predicted, z = labels[seen], (logits[seen] > 0).astype(float), logits[seen].astype(float)
    labels[~seen] = np.nan
    evaluation = multilabel(UNREAD, "target")
    given = labels[:, 0] if size == 1 else labels
    results = evaluation.results(jax.device_get(jax.jit(evaluation.sums)(logits, given, weights)))
    columns = range(size)
    assert results == pytest.approx({
        "accuracy": np.mean(y == predicted),
        "exact_match": sk.accuracy_score(y, predicted),
        "f1_micro": sk.f1_score(y.ravel(), predicted.ravel()),
        "f1_macro": np.mean([sk.f1_score(y[:, k], predicted[:, k]) for k in columns]),
        "loss": np.mean(np.log1p(np.exp(-np.where(y > 0, z, -z)))),
    }, rel=1e-5)  # fmt: skip


def test_no_examples_give_nan():
    evaluation = multilabel(UNREAD, "target")
    zeros = np.zeros((4, 2), np.float32)
    results = evaluation.results(jax.device_get(evaluation.sums(zeros, zeros, np.zeros(4))))
    assert np.isnan(list(results.values())).all()
