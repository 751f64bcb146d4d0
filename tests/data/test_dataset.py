import jax
import numpy as np
import pytest

from jaxtl import data


def numbers(n=40, ways=4, name="numbers"):
    inputs = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    return data.arrays(inputs, np.arange(n) % ways, name=name)


def test_classes_are_renumbered_in_the_order_given_and_share_the_inputs():
    whole = numbers()
    part = whole.classes([3, "1"])
    rows, labels = part.rows(0), part.table().labels["label"]
    np.testing.assert_array_equal(rows, [r for r in range(40) if r % 4 in (1, 3)])
    np.testing.assert_array_equal(labels[rows], [0 if r % 4 == 3 else 1 for r in rows])
    assert part.class_names() == ("3", "1")
    assert part.table().inputs is whole.table().inputs


def test_only_keeps_rows_and_their_labels():
    whole = numbers()
    part = whole.only([3, "1"])
    np.testing.assert_array_equal(part.rows(0), [r for r in range(40) if r % 4 in (1, 3)])
    assert part.table() is whole.table()
    assert part.class_names() == ("0", "1", "2", "3")
    with pytest.raises(ValueError, match="unknown class '5'"):
        whole.only(["5"]).rows(0)
    with pytest.raises(ValueError, match="class 4 is outside the label space 0 to 3"):
        whole.only([4]).rows(0)


def test_few_is_balanced_nested_and_drawn_per_seed():
    whole = numbers(400)
    few, fewer = whole.few(10), whole.few(5)
    labels = whole.table().labels["label"]
    for seed in range(3):
        assert list(np.bincount(labels[few.rows(seed)])) == [10] * 4
        assert set(fewer.rows(seed)) < set(few.rows(seed))
        np.testing.assert_array_equal(few.rows(seed), numbers(400, name="other").few(10).rows(seed))
    assert set(few.rows(0)) != set(few.rows(1))


def test_few_draws_the_same_whatever_the_order_of_the_classes():
    whole = numbers(400)
    rows = [whole.classes(order).few(7).rows(5) for order in ([0, 1, 2], [2, 0, 1])]
    np.testing.assert_array_equal(*rows)


def test_few_skips_missing_labels():
    labels = np.array([0, -1, 1, 0, 1, -1])
    few = data.arrays(np.zeros((6, 1)), labels).few(2)
    np.testing.assert_array_equal(few.rows(0), [0, 2, 3, 4])


def test_split_parts_are_disjoint_and_complete():
    subset = numbers().classes([0, 1])
    train, validation = subset.split(0.75)
    for seed in (0, 1):
        parts = [*train.rows(seed), *validation.rows(seed)]
        assert sorted(parts) == list(subset.rows(seed))
        assert len(train.rows(seed)) == 15
    assert set(train.rows(0)) != set(train.rows(1))


def test_take_and_slice():
    whole = numbers()
    assert len(whole.take(9).rows(3)) == 9
    assert set(whole.take(4).rows(3)) < set(whole.take(9).rows(3))
    np.testing.assert_array_equal(whole.classes([2]).slice(1, 3).rows(0), [6, 10])


def test_equal_operations_give_equal_handles_that_load_once():
    calls = []

    def double(table):
        calls.append(1)
        return data.Table(2 * table.inputs, table.labels, table.classes)

    whole = numbers()
    a, b = whole.map(double), whole.few(2).map(double)
    assert a == whole.map(double) and hash(a) == hash(whole.map(double)) and a != b
    assert a.table() is b.table() and len(calls) == 1
    np.testing.assert_array_equal(a.table().inputs, 2 * whole.table().inputs)


def test_relabel_adds_a_column_of_classes_or_numbers():
    def parity(table):
        return table.labels["label"] % 2

    both = (
        numbers()
        .relabel("parity", parity, ("even", "odd"))
        .relabel("half", lambda t: t.inputs[:, 0] / 2)
    )
    assert both.class_names("parity") == ("even", "odd") and both.class_names("half") == ()
    labels = both.table().labels
    np.testing.assert_array_equal(labels["parity"], np.arange(40) % 2)
    np.testing.assert_array_equal(labels["half"], np.arange(40, dtype=np.float32))
    with pytest.raises(ValueError, match="has no classes"):
        both.few(1, "half").rows(0)


@pytest.mark.parametrize("dtype, missing", [(np.int32, -1), (np.float32, np.nan)])
def test_hide_a_fraction_without_touching_the_original(dtype, missing):
    whole = data.arrays(np.zeros((20, 1)), {"y": np.ones(20, dtype)})
    hidden = whole.hide("y", 0.25).table().labels["y"]
    assert np.sum(~(hidden == 1)) == 5
    np.testing.assert_array_equal(np.unique(hidden[hidden != 1]), missing)
    assert np.all(whole.table().labels["y"] == 1)


def test_standardize_with_the_statistics_of_another_dataset():
    rng = np.random.default_rng(0)
    train, test = rng.normal(3, 5, (50, 3)), rng.normal(size=(20, 3))
    train[:, 1] = 0.1
    splits = data.Splits(
        train=data.arrays(train, np.zeros(50, int)), test=data.arrays(test, np.zeros(20, int))
    ).standardize()
    expected = (test - train.mean(0)) / train.std(0).clip(1e-9)
    expected[:, 1] = 0
    np.testing.assert_allclose(splits.test.table().inputs, expected, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(splits.train.table().inputs.std(0), [1, 0, 1], atol=1e-5)
    assert splits.test.table().inputs.dtype == np.float32


def test_image_operations_reach_the_images_of_a_tree():
    image, other = np.full((4, 6, 6, 1), 7, np.uint8), np.ones((4, 3), np.float32)
    both = data.arrays({"image": image, "other": other}, np.zeros(4, int)).pad(1).rgb()
    shapes = jax.tree.map(np.shape, both.table().inputs)
    assert shapes == {"image": (4, 8, 8, 3), "other": (4, 3)}
    with pytest.raises(ValueError, match="needs images"):
        numbers().rgb().table()


def test_map_may_change_the_number_of_rows_only_before_a_subset():
    def half(table):
        return table.select(np.arange(0, len(table), 2))

    assert numbers().map(half).take(20).rows(0).max() == 19
    with pytest.raises(ValueError, match="20 rows of 40 after a subset"):
        numbers().few(2).map(half).rows(0)


@pytest.mark.parametrize(
    "use, message",
    [
        (lambda d: d.few(11).rows(0), r"fewer than 11 examples of class 0 \(10\), 1 \(10\)"),
        (lambda d: d.few(0), "at least 1"),
        (lambda d: d.take(41).rows(0), "40 examples, not 41"),
        (lambda d: d.split(1.0), r"in \(0, 1\)"),
        (lambda d: d.classes([4]).table(), "class 4 is outside the label space 0 to 3"),
        (lambda d: d.classes(["x"]).table(), "unknown class 'x'"),
        (lambda d: d.classes([1, 1]).rows(0), "given once"),
        (lambda d: d.few(1, "labels").rows(0), "Did you mean 'label'"),
        (lambda d: d.map(len, [1]), "hashable"),
    ],
)
def test_errors_name_the_dataset(use, message):
    with pytest.raises(ValueError, match=message) as error:
        use(numbers())
    assert "numbers" in str(error.value)


def test_a_table_has_one_number_of_rows():
    with pytest.raises(ValueError, match=r"'inputs': 3.*'label'.*: 2"):
        data.arrays(np.zeros((3, 1)), np.zeros(2, int))


def test_a_list_of_rows_is_an_array():
    table = data.arrays([[1.0], [2.0]], np.zeros(2, int)).table()
    np.testing.assert_array_equal(table.inputs, np.float32([[1], [2]]))
    with pytest.raises(ValueError, match="is a single number"):
        data.arrays({"x": 1.0}, np.zeros(2, int))


def test_a_map_between_two_subsets_keeps_the_rows_apart():
    def shrink(table):
        return table.select(np.arange(20))

    with pytest.raises(ValueError, match="after a subset"):
        numbers().take(30).map(shrink).take(3).rows(0)
