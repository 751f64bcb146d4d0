import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from jaxtl import data

LABELS = np.array([0, 0, 0, 0, 2, 2, 0, 5])


def test_balanced_agrees_with_scikit_learn():
    weights = data.balanced()({"label": LABELS})
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", LABELS), rtol=1e-6)
    assert weights.dtype == np.float32


@pytest.mark.parametrize("weigh", [data.balanced("y"), data.effective_number(0.9, "y")])
def test_missing_labels_have_no_weight_and_do_not_count(weigh):
    missing = np.array([-1, *LABELS, -1])
    weights = weigh({"y": missing})
    np.testing.assert_allclose(weights, [0, *weigh({"y": LABELS}), 0])
    np.testing.assert_allclose(weights.sum() / len(LABELS), 1, rtol=1e-6)
    np.testing.assert_array_equal(weigh({"y": np.array([-1, -1])}), 0)


def test_effective_number_of_the_paper():
    counts = {0: 5, 2: 2, 5: 1}
    raw = np.array([(1 - 0.9) / (1 - 0.9 ** counts[y]) for y in LABELS])
    weights = data.effective_number(0.9)({"label": LABELS})
    np.testing.assert_allclose(weights, raw / raw.mean(), rtol=1e-6)


def test_effective_number_between_its_limits():
    np.testing.assert_allclose(data.effective_number(0.0)({"label": LABELS}), 1)
    near = data.effective_number(1 - 1e-9)({"label": LABELS})
    np.testing.assert_allclose(near, data.balanced()({"label": LABELS}), rtol=1e-5)
    with pytest.raises(ValueError, match="beta"):
        data.effective_number(1.0)


@pytest.mark.parametrize("values", [np.array([0.5, 1.0]), np.array([[0, 1], [1, 0]])])
def test_only_classes_are_balanced(values):
    with pytest.raises(ValueError, match="one class an example"):
        data.balanced("y")({"y": values})
    with pytest.raises(ValueError, match="unknown label column 'why'"):
        data.balanced("why")({"y": values})
