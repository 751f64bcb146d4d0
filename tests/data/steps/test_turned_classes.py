"""Quarter turns of images as classes of their own."""

import numpy as np
import pytest

from jaxtl.data.dataset import Dataset
from jaxtl.data.splits import Splits
from jaxtl.data.streamed import Streamed
from jaxtl.data.table import Call, Table
from jaxtl.train.store.preprocessing import preparation

IMAGES = np.arange(6 * 9, dtype=np.uint8).reshape(6, 3, 3, 1)
LABELS = np.array([0, 1, 2, 0, 1, -1])


def images(inputs=IMAGES, streamed=False):
    def load(kind):
        kept = Streamed(inputs.shape, inputs.dtype, lambda rows: inputs[rows], source="here")
        classes = {"label": ("a", "b", "c")}
        more = {"label": LABELS, "size": np.arange(6.0)}
        return Table(kept if kind else inputs, more, classes)

    return Dataset("images", Call(load, (streamed,)))


@pytest.mark.parametrize("streamed", [False, True])
def test_each_class_becomes_four(streamed):
    table = images(streamed=streamed).quarter_turns().table()
    assert len(table) == 24 and len(table.names("label")) == 12
    assert table.names("label")[2:5] == ("c", "a turned by 90", "b turned by 90")
    assert table.names("label")[-1] == "c turned by 270"
    for turn in range(4):
        rows = slice(6 * turn, 6 * turn + 6)
        expected = np.stack([np.rot90(image, turn) for image in IMAGES])
        np.testing.assert_array_equal(table.inputs[np.arange(24)[rows]], expected)
        labels = np.where(LABELS < 0, -1, LABELS + 3 * turn)
        np.testing.assert_array_equal(table.labels["label"][rows], labels)
        np.testing.assert_array_equal(table.labels["size"][rows], np.arange(6))


def test_streamed_rows_in_any_order_have_names_of_their_own():
    inputs = images(streamed=True).quarter_turns().table().inputs
    rows = np.array([23, 0, 7, 13, 7, 6])
    expected = [np.rot90(IMAGES[row % 6], row // 6) for row in rows]
    np.testing.assert_array_equal(inputs[rows], expected)
    assert len(set(inputs.names(np.arange(24)))) == 24
    assert inputs.select(rows).names([1]) == inputs.names([0])


def test_subsets_before_and_after():
    before = images().classes(["c", "a"]).quarter_turns()
    assert before.class_names()[:3] == ("c", "a", "c turned by 90")
    rows, table = before.rows(0), before.table()
    labels = table.labels["label"][rows]
    assert np.bincount(labels).tolist() == [1, 2] * 4  # b and what has no label are left out
    after = images().quarter_turns().classes(["c", "a turned by 180"])
    np.testing.assert_array_equal(after.rows(0), [2, 12, 15])
    drawn = images().classes(["a"]).few(1).quarter_turns()
    (first, *others), n = drawn.rows(3).tolist(), 6
    assert others == [first + n, first + 2 * n, first + 3 * n]
    assert drawn.few(1).rows(3).tolist() == [first, *others]
    one = images()
    assert Splits(train=one).quarter_turns().train == one.quarter_turns()


def test_what_cannot_be_turned():
    with pytest.raises(ValueError, match=r"needs square images .* \[\(6, 3, 2, 1\)\]: resize"):
        images(IMAGES[:, :, :2]).quarter_turns().table()
    with pytest.raises(ValueError, match=r"needs square images .* \[\(6, 9\)\]"):
        images(IMAGES.reshape(6, 9)).quarter_turns().table()
    with pytest.raises(ValueError, match="unknown label column 'lable'"):
        images().quarter_turns("lable").table()
    with pytest.raises(ValueError, match="label column 'size' has no classes"):
        images().quarter_turns("size").table()
    with pytest.raises(ValueError, match=r"quarter_turns of images: column must be text, got 4"):
        images().quarter_turns(4)


def test_a_row_to_be_predicted_is_not_turned(tmp_path):
    made = preparation(tmp_path, images().quarter_turns().resize((5, 5)))
    assert [step["name"] for step in made["steps"]] == ["resize"]
