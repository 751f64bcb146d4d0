import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unread import UNREAD

from jaxtl.metrics import open_set

EVALUATION = open_set(UNREAD, "c")


def measure(predictions, labels, weights=None):
    """With three known classes and the class "unknown"."""
    logits = 5.0 * jax.nn.one_hot(jnp.array(predictions), 4)
    weights = jnp.ones(len(labels)) if weights is None else jnp.array(weights)
    sums = jax.device_get(jax.jit(EVALUATION.sums)(logits, jnp.array(labels), weights))
    return EVALUATION.results(sums)


def test_a_hand_counted_case():
    labels = [0, 0, 0, 1, 2, 2, 3, 4, 5, 9]  # the last four are unknown, of four classes
    predictions = [0, 0, 3, 1, 1, 2, 3, 3, 3, 0]
    found = measure(predictions, labels)
    known, unknown = (2 / 3 + 1 + 1 / 2) / 3, 3 / 4
    np.testing.assert_allclose(found["known_accuracy"], known, rtol=1e-6)
    np.testing.assert_allclose(found["unknown_accuracy"], unknown, rtol=1e-6)
    np.testing.assert_allclose(found["hos"], 2 * known * unknown / (known + unknown), rtol=1e-6)
    np.testing.assert_allclose(found["accuracy"], 0.7, rtol=1e-6)
    np.testing.assert_allclose(found["balanced_accuracy"], (3 * known + unknown) / 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("predictions", "known", "unknown", "hos"),
    [
        ([0, 1, 2, 3], 1, 1, 1),
        ([0, 1, 2, 0], 1, 0, 0),
        ([3, 3, 3, 3], 0, 1, 0),
        ([1, 0, 0, 1], 0, 0, 0),
    ],
)
def test_the_ends(predictions, known, unknown, hos):
    found = measure(predictions, [0, 1, 2, 7])
    assert (found["known_accuracy"], found["unknown_accuracy"], found["hos"]) == (
        known,
        unknown,
        hos,
    )


def test_without_unknown_examples_there_is_no_harmonic_mean():
    found = measure([0, 1], [0, 1])
    assert found["known_accuracy"] == 1
    assert np.isnan(found["unknown_accuracy"]) and np.isnan(found["hos"])


def test_padding_and_absent_known_classes_do_not_count():
    found = measure([0, 3, 0, 2], [0, 5, 6, 1], weights=[1.0, 1.0, 0.0, 0.0])
    assert found["known_accuracy"] == found["unknown_accuracy"] == found["hos"] == 1
