"""What labels may be: kinds, class names, and which labels are known."""

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtl import data
from jaxtl.data.columns import LARGEST_CLASS, Numbered


def table(labels, **options):
    return data.arrays(np.zeros((len(labels), 2), np.float32), labels, **options).table()


@pytest.mark.parametrize(
    "labels, expected, names",
    [
        ([0, 2, -1], [0, 2, -1], ("0", "1", "2")),
        ([True, False, True], [1, 0, 1], ("0", "1")),
        (["dog", None, "cat"], [1, -1, 0], ("cat", "dog")),
        (np.array(["b", "a", "b"]), [1, 0, 1], ("a", "b")),
        (np.array([b"b", b"a", b"b"]), [1, 0, 1], ("a", "b")),
        ([b"b", None, "a"], [1, -1, 0], ("a", "b")),
        ([1, None, 0], [1, -1, 0], ("0", "1")),
        (np.array([3, 1, 0], np.uint64), [3, 1, 0], ("0", "1", "2", "3")),
        ([None, None, None], [-1, -1, -1], ()),
        ([float("nan"), "x", "y"], [-1, 0, 1], ("x", "y")),
    ],
)
def test_classes(labels, expected, names):
    made = table(labels)
    np.testing.assert_array_equal(made.labels["label"], expected)
    assert made.labels["label"].dtype == np.int32 and made.classes["label"] == names
    np.testing.assert_array_equal(made.known("label"), np.array(expected) >= 0)


@pytest.mark.parametrize(
    "labels",
    [
        [0.5, float("nan"), -1.0],
        [-3, 0, 7],
        [0, 70_000, 3],
        [None, 1.5, 2.0],
    ],
)
def test_values(labels):
    made, floats = table(labels), np.array(labels, np.float32)
    np.testing.assert_array_equal(made.labels["label"], floats)
    assert made.classes == {} and made.labels["label"].dtype == np.float32
    np.testing.assert_array_equal(made.known("label"), ~np.isnan(floats))


def test_an_integer_regression_target_of_millions_makes_no_names():
    assert table(np.arange(6) * 900_000).classes == {}
    assert len(table([0, LARGEST_CLASS]).classes["label"]) == LARGEST_CLASS + 1


@pytest.mark.parametrize(
    "labels, options, message",
    [
        ([-1, 1, 1], {}, "holds -1 and 1 alone.*relabel the classes as 0 and 1"),
        ([-1, 1, 1], {"classes": ["no", "yes"]}, "holds -1 and 1 alone"),
        ([0, 2**31, 5], {}, "np.unique"),
        (np.array([0, 2**63], np.uint64), {}, "np.unique"),
        (np.array([1j, 0]), {}, "complex128"),
        (np.array(["2020-01-01", "2020-01-02"], "M8[D]"), {}, "datetime64"),
        ([[1], [1, 2]], {}, "different lengths"),
        ([{}, {}], {}, "objects of type dict"),
        (["a", 1], {}, "objects of type int, str"),
        (["a", "b"], {"classes": ["a", "bb"]}, "unknown class 'b'. Did you mean 'bb'"),
        ([0, 1], {"classes": "ab"}, "expected a list of names, got 'ab'"),
        ([0, 1], {"classes": 2}, "expected a list of names, got 2"),
        ([0, 1], {"classes": {"a"}}, "expected a list of names, got {'a'}"),
        ([0, 1], {"classes": ["a", "a"]}, "named twice: a"),
        ([0, 1], {"classes": []}, "there are no names"),
        ([0.0, 1.5], {"classes": ["a", "b"]}, "fractions"),
        ([0.0, -1.0], {"classes": ["a", "b"]}, "holds -1; classes are numbered from 0"),
        ([1e39, 0.0], {}, "too large for float32"),
        ([1.7e9, 1.7e9 + 1], {}, "float32 cannot tell apart"),
    ],
)
def test_labels_that_are_refused(labels, options, message):
    with pytest.raises(ValueError, match=f"arrays 'arrays': .*{message}"):
        table(labels, **options)


def test_class_names_in_any_container():
    for names in (np.array([10, 20]), ("10", "20"), (str(n) for n in (10, 20)), [10, b"20"]):
        made = data.arrays(np.zeros((4, 1)), [0, 1, 0, 1], classes=names)
        assert made.class_names() == ("10", "20")
        assert made.few(1).rows(0).shape == (2,)
    assert table([0.0, float("nan"), 1.0], classes=["a", "b"]).labels["label"].tolist() == [
        0,
        -1,
        1,
    ]


def test_labels_are_known_one_by_one():
    several = np.array([[0, -1, 1], [1, 1, 0]])
    made = data.arrays(np.zeros((2, 1)), {"tags": several}).table()
    np.testing.assert_array_equal(made.known("tags"), several >= 0)
    floats = np.where(several < 0, np.nan, several)
    made = data.arrays(np.zeros((2, 1)), {"tags": floats}).table()
    np.testing.assert_array_equal(made.known("tags"), several >= 0)


@pytest.mark.parametrize("fraction", [2, -1, float("nan"), "half", None, True])
def test_a_fraction_to_hide_is_one(fraction):
    with pytest.raises(ValueError, match=r"hide of arrays: fraction must be in \[0, 1\]"):
        data.arrays(np.zeros((4, 1)), [0, 1, 0, 1]).hide("label", fraction)


@pytest.mark.parametrize(
    "make",
    [
        lambda d: d.few(0),
        lambda d: d.few(1.5),
        lambda d: d.take("3"),
        lambda d: d.take(True),
        lambda d: d.split(None),
        lambda d: d.slice(0.5),
        lambda d: d.classes("0"),
        lambda d: d.classes(1),
        lambda d: d.only([0.5]),
        lambda d: d.pad(-1),
        lambda d: d.resize((0, 4)),
        lambda d: d.resize(4),
        lambda d: d.center_crop((4,)),
    ],
)
def test_arguments_of_operations_are_checked_where_they_are_given(make):
    with pytest.raises(ValueError, match="of arrays: "):
        make(data.arrays(np.zeros((4, 1)), [0, 1, 0, 1]))


def test_what_is_computed_from_a_missing_label_is_missing():
    hidden = data.arrays(np.zeros((20, 1)), np.arange(20) % 4).hide("label", 0.5)
    missing = ~hidden.table().known("label")
    odd = hidden.relabel("odd", lambda t: t.labels["label"] % 2, ["even", "odd"]).table()
    np.testing.assert_array_equal(odd.known("odd"), ~missing)
    half = hidden.relabel("half", lambda t: t.labels["label"] / 2).table()
    np.testing.assert_array_equal(half.known("half"), ~missing)
    with pytest.raises(ValueError, match="returned 3 labels for 20 rows"):
        hidden.relabel("short", lambda t: np.zeros(3)).table()


def test_classes_keep_their_names_when_a_subset_is_taken():
    digits = data.arrays(np.zeros((6, 1)), [0, 1, 2, 0, 1, 2])
    assert isinstance(digits.table().classes["label"], Numbered)
    assert digits.classes([2, 0]).class_names() == ("2", "0")


@given(arrays_of.arrays(np.int64, st.integers(1, 20), elements=st.integers(-5, 2**40)))
def test_integers_come_back_or_are_refused(labels):
    try:
        made = table(labels)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    held = made.labels["label"]
    if "label" in made.classes:
        np.testing.assert_array_equal(held, labels)
        assert held.max(initial=-1) < max(1, len(made.classes["label"])) and held.min() >= -1
    else:
        np.testing.assert_allclose(held, labels, rtol=1e-6)
        assert made.known("label").all()


@given(
    arrays_of.arrays(
        np.float64, st.integers(1, 20), elements=st.floats(allow_nan=True, allow_infinity=False)
    )
)
def test_floats_come_back_or_are_refused(labels):
    try:
        held = table(labels).labels["label"]
    except ValueError as error:
        assert "\n" not in str(error)
        return
    np.testing.assert_array_equal(np.isnan(held), np.isnan(labels))
    np.testing.assert_allclose(held, labels, rtol=1e-6, atol=1e-38)


@given(st.lists(st.one_of(st.none(), st.text(max_size=4)), min_size=1, max_size=20))
def test_texts_come_back_by_their_names(labels):
    made = table(labels)
    names = made.classes["label"]
    back = [None if i < 0 else names[i] for i in made.labels["label"]]
    assert back == labels


@given(st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=2), st.none(), st.booleans(),
                          st.binary(max_size=2), st.dates(), st.complex_numbers()),
                min_size=1, max_size=6))  # fmt: skip
def test_any_list_of_labels_is_read_or_refused_in_one_line(labels):
    try:
        made = table(labels)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert len(made.labels["label"]) == len(labels)
