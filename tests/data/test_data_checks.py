import numpy as np
import pytest

from jaxtl import data


def test_overlap_finds_the_copied_rows():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 4)), rng.normal(size=(20, 4))
    b[[3, 11]] = a[[7, 7]]
    first, second = (data.arrays(x, np.zeros(len(x), int)) for x in (a, b))
    np.testing.assert_array_equal(data.overlap(first, second), [3, 11])
    np.testing.assert_array_equal(data.overlap(second, first), [7])
    assert len(data.overlap(first.slice(0, 7), second)) == 0  # row 7 is not selected


def test_overlap_of_trees_and_text():
    def dataset(words):
        inputs = {"text": np.array(words, object), "length": np.array([len(w) for w in words])}
        return data.arrays(inputs, np.zeros(len(words), int))

    np.testing.assert_array_equal(
        data.overlap(dataset(["one", "two"]), dataset(["two", "six", "one"])), [0, 2]
    )


def test_parts_of_a_split_do_not_overlap():
    train, validation = data.breast_cancer().train.split(0.5)
    assert len(data.overlap(train, validation, seed=3)) == 0


@pytest.mark.parametrize(
    "inputs, labels, message",
    [
        (
            [[1.0], [np.nan], [np.inf]],
            [0, 1, 0],
            "inputs not finite in 2 of 3 rows, first in row 1",
        ),
        ([[1.0], [2.0], [3.0]], [0, -1, 2], "'label' outside the label space 0 to 1.* row 2"),
        ([[1.0], [2.0], [3.0]], [0, -2, 1], "'label' outside .* in 1 of 3 rows, first in row 1"),
        (np.zeros((0, 1)), np.zeros(0, int), "bad is empty"),
    ],
)
def test_validate_names_what_is_wrong(inputs, labels, message):
    bad = data.arrays(np.array(inputs), labels, name="bad", classes=("a", "b"))
    with pytest.raises(ValueError, match=message):
        data.validate(bad)


def test_validate_accepts_missing_labels():
    labels = {"class": np.array([0, -1]), "value": np.array([1.5, np.nan])}
    data.validate(data.arrays(np.zeros((2, 1)), labels))
    labels["value"][0] = np.inf
    with pytest.raises(ValueError, match="'value' infinite in 1 of 2 rows"):
        data.validate(data.arrays(np.zeros((2, 1)), labels))
