"""Several datasets as one: whose a row is, what it has labels for, which rows a seed uses."""

import numpy as np
import pytest

from jaxtl import data


def part(n, names, offset=0.0, **labels):
    inputs = np.arange(n, dtype=np.float32)[:, None] + np.float32([offset, 0.5])
    given = {"label": np.arange(n) % len(names), **labels}
    classes = {"label": names} | ({"kind": ["u", "v"]} if "kind" in labels else {})
    return data.arrays(inputs, given, classes=classes, name=f"part{n}")


def test_rows_and_labels():
    a = part(5, ["x", "y"], kind=np.array([0, 1, -1, 0, 1]), size=np.arange(5.0))
    b = part(3, ["p", "q", "r"], 100.0, kind=np.array([1, 1, 0]), size=np.arange(3.0) * 2)
    table = data.together({"a": a, "b": b}).table()
    np.testing.assert_array_equal(table.inputs, [*a.table().inputs, *b.table().inputs])
    np.testing.assert_array_equal(table.labels["task"], [0] * 5 + [1] * 3)
    np.testing.assert_array_equal(table.labels["a"], [0, 1, 0, 1, 0, -1, -1, -1])
    np.testing.assert_array_equal(table.labels["b"], [-1] * 5 + [0, 1, 2])
    np.testing.assert_array_equal(table.labels["a_size"], [0, 1, 2, 3, 4, *[np.nan] * 3])
    np.testing.assert_array_equal(table.labels["kind"], [0, 1, -1, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(table.labels["size"], [0, 1, 2, 3, 4, 0, 2, 4])
    assert "label" not in table.labels  # its classes differ
    names = {"task": ("a", "b"), "a": ("x", "y"), "b": ("p", "q", "r"), "kind": ("u", "v")}
    assert names.items() <= table.classes.items()


def test_tasks_of_the_same_classes_share_a_column():
    table = data.together({"a": part(3, ["x", "y"]), "b": part(2, ["x", "y"])}).table()
    np.testing.assert_array_equal(table.labels["label"], [0, 1, 0, 0, 1])


def test_rows_of_a_seed_are_those_of_the_parts():
    a, b = part(20, ["x", "y"]).few(3), part(9, ["p", "q"])
    joined = data.together({"a": a, "b": b})
    for seed in (0, 1):
        expected = [*a.rows(seed), *(20 + np.arange(9))]
        np.testing.assert_array_equal(joined.rows(seed), expected)
    taken = joined.only(["a"], "task").take(2).rows(0)
    assert set(taken) <= set(a.rows(0))


def test_streamed_rows(tmp_path):
    a, b = part(5, ["x", "y"]), part(3, ["p", "q"], 100.0)
    np.save(tmp_path / "b.npy", b.table().inputs)
    mapped = np.load(tmp_path / "b.npy", mmap_mode="r")
    on_disk = data.arrays(mapped, b.table().labels["label"], classes=["p", "q"])
    inputs = data.together({"a": a, "b": on_disk}).table().inputs
    expected = data.together({"a": a, "b": b}).table().inputs
    assert not isinstance(inputs, np.ndarray)
    for rows in ([7, 0, 5, 5, 2], [1], [6, 7], []):
        np.testing.assert_array_equal(inputs[np.array(rows, int)], expected[np.array(rows, int)])
    assert inputs.version(np.array([0, 6])) != inputs.version(np.array([1, 6]))


def test_what_cannot_be_joined():
    with pytest.raises(ValueError, match=r"at least one"):
        data.together({})
    images = data.arrays(np.zeros((4, 8, 8, 1), np.uint8), np.arange(4), name="images")
    with pytest.raises(ValueError, match=r"a float32\[2\], b uint8\[8, 8, 1\]"):
        data.together({"a": part(3, ["x", "y"]), "b": images}).table()
    with pytest.raises(ValueError, match=r"two columns would be called 'task'"):
        data.together({"task": part(3, ["x", "y"])}).table()
