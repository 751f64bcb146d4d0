import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk
from unread import UNREAD

from jaxtl.metrics import classification, per_class

EVALUATION = classification(UNREAD, "target")
NAMES = {"accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "loss", "ece"}


def measure(logits, labels, weights, batch=None):
    """The sums of batches, added up as NumPy arrays, and their results."""
    batch = batch or max(len(labels), 1)
    parts = [
        jax.device_get(
            jax.jit(EVALUATION.sums)(*(x[i : i + batch] for x in (logits, labels, weights)))
        )
        for i in range(0, max(len(labels), 1), batch)
    ]
    sums = jax.tree.map(lambda *x: np.sum(x, axis=0), *parts)
    return sums, EVALUATION.results(sums)


def draw(classes, labels_in, seed=0, n=60):
    rng = np.random.default_rng(seed)
    labels = rng.choice(labels_in, n)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += 1.0
    logits[:, classes - 1] -= 9.0  # all but never predicted
    return logits, labels.astype(np.int32)


def expected_calibration_error(logits, labels):
    logits = logits.astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    total = 0.0
    for b in range(15):
        rows = [i for i in range(len(p)) if b / 15 < p[i].max() <= (b + 1) / 15]
        if rows:
            correct = np.mean([p[i].argmax() == labels[i] for i in rows])
            total += len(rows) / len(p) * abs(correct - np.mean([p[i].max() for i in rows]))
    return total


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("present", [[0, 1, 2, 3], [0, 2], [3], [1]])
@pytest.mark.parametrize("padded", [False, True])
def test_agrees_with_scikit_learn(present, padded):
    logits, labels = draw(5, present)
    weights = np.ones(len(labels), np.float32)
    seen = np.ones(len(labels), bool)
    if padded:
        seen[::4] = False
        weights[~seen] = 0
        labels[~seen] = -1
        logits[~seen] = np.nan
    sums, results = measure(logits, labels, weights, batch=20)
    predicted, labels, logits = logits[seen].argmax(1), labels[seen], logits[seen]
    probabilities = np.array(jax.nn.softmax(logits.astype(np.float64)))
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "f1_macro": sk.f1_score(labels, predicted, average="macro"),
        "f1_weighted": sk.f1_score(labels, predicted, average="weighted"),
        "loss": sk.log_loss(
            labels, probabilities / probabilities.sum(1, keepdims=True), labels=range(5)
        ),
        "ece": expected_calibration_error(logits, labels),
    }
    assert results == pytest.approx(expected, rel=1e-5)
    matrix = sk.confusion_matrix(labels, predicted, labels=range(5))
    np.testing.assert_array_equal(sums["confusion"], matrix)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=range(5), zero_division=np.nan
    )
    classes = per_class(sums["confusion"])
    np.testing.assert_allclose(classes["precision"], precision)
    np.testing.assert_allclose(classes["recall"], recall)
    occurs = matrix.sum(0) + matrix.sum(1) > 0
    np.testing.assert_allclose(classes["f1"][occurs], f1[occurs])
    assert np.isnan(classes["f1"][~occurs]).all()
    np.testing.assert_array_equal(classes["support"], support)


def test_weights_count_as_repetitions():
    logits, labels = draw(4, [0, 1, 2])
    weights = np.arange(len(labels)) % 3
    rows = np.repeat(np.arange(len(labels)), weights)
    weighted = measure(logits, labels, weights.astype(np.float32))[1]
    assert weighted == pytest.approx(measure(logits[rows], labels[rows], np.ones(len(rows)))[1])


def test_nothing_to_measure_is_nan():
    logits, labels = draw(4, [0, 1])
    for rows in (slice(0), slice(None)):
        sums, results = measure(logits[rows], labels[rows], np.zeros(len(labels[rows]), np.float32))
        assert results.keys() == NAMES and np.isnan(list(results.values())).all()
        assert all(np.isfinite(each).all() for each in sums.values())


def test_bins_of_confidence_are_closed_on_the_right():
    # Two equal logits: confidence exactly 1/2, inside bin 8 of 15, (7/15, 8/15].
    sums, results = measure(jnp.zeros((4, 2)), jnp.array([0, 0, 0, 1]), jnp.ones(4))
    np.testing.assert_allclose(sums["calibration"][7], [4, 2, 3])
    assert results["ece"] == pytest.approx(0.25)
    # Confidence 1/3 is the upper edge of bin 5; certainty is in the last bin.
    assert measure(jnp.zeros((1, 3)), jnp.zeros(1, int), jnp.ones(1))[0]["calibration"][4, 0] == 1
    certain = measure(jnp.array([[99.0, 0.0]]), jnp.zeros(1, int), jnp.ones(1))[0]
    assert certain["calibration"][14, 0] == 1
