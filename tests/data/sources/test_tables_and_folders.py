import numpy as np
import PIL.Image
import pytest

from jaxtl import data

FLOWERS = "width,kind,height\n1.5,rose,2\n2.5,lily,3\n\n-1,rose,4e1\n0,,5\n"


@pytest.fixture
def flowers(tmp_path):
    file = tmp_path / "flowers.csv"
    file.write_text(FLOWERS)
    return file


def test_csv_with_a_second_file(flowers, tmp_path):
    other = tmp_path / "test.csv"
    other.write_text("width,kind,height\n7,tulip,8\n")
    splits = data.csv(flowers, "kind", test=other)
    train, test = splits.train.table(), splits.test.table()
    np.testing.assert_array_equal(train.inputs, np.float32([[1.5, 2], [2.5, 3], [-1, 40], [0, 5]]))
    np.testing.assert_array_equal(train.labels["label"], [1, 0, 1, -1])
    np.testing.assert_array_equal(test.labels["label"], [2])
    assert splits.test.class_names() == ("lily", "rose", "tulip")


def test_csv_split_by_fraction_and_regression(tmp_path):
    file = tmp_path / "line.csv"
    file.write_text("x;y\n" + "\n".join(f"{i};{i / 2}" for i in range(20)))
    splits = data.csv(file, "y", test=0.25, regression=True, delimiter=";")
    assert [len(splits[s].table()) for s in ("train", "test")] == [15, 5]
    table = splits.train.table()
    np.testing.assert_array_equal(table.labels["label"], table.inputs[:, 0] / 2)
    assert splits.train.class_names() == ()


@pytest.mark.parametrize(
    "text, options, message",
    [
        ("a,b\n1,x\nzero,y\n", {}, "line 3, column 'a': 'zero' is not a number"),
        ("a,b\n1,x\nnan,y\n", {}, "line 3, column 'a': 'nan' is not a number"),
        ("a,b\n1,x\n1,2,y\n", {}, "line 3 has 3 cells, the header 2"),
        ("a,c\n1,x\n", {}, "unknown column 'b'"),
        ("a,b\n", {}, "has no rows"),
        ("a,b\n1,x\n", {"regression": True}, "line 2, column 'b': 'x' is not a number"),
        ("a,b\n1,x\n", {"classes": ("y", "xx")}, "unknown class 'x'. Did you mean 'xx'"),
    ],
)
def test_csv_errors_say_where(tmp_path, text, options, message):
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        data.csv(file, "b", **options).train.table()


def test_csv_without_a_file():
    with pytest.raises(ValueError, match="no file"):
        data.csv("nowhere.csv", "y").train.table()


@pytest.fixture
def pictures(tmp_path):
    for folder, color in {"cat": (255, 0, 0), "dog": (0, 0, 255)}.items():
        (tmp_path / folder).mkdir()
        for i in range(2):
            PIL.Image.new("RGB", (6, 4), color).save(tmp_path / folder / f"{i}.png")
    PIL.Image.new("L", (6, 4), 9).save(tmp_path / "dog" / "gray.png")
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    return tmp_path


def test_image_folder(pictures):
    dataset = data.image_folder(pictures)
    table = dataset.table()
    assert table.inputs.shape == (5, 4, 6, 3) and dataset.class_names() == ("cat", "dog")
    np.testing.assert_array_equal(table.labels["label"], [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(
        table.inputs[[0, 2, 4], 0, 0], [[255, 0, 0], [0, 0, 255], [9] * 3]
    )
    swapped = data.image_folder(pictures, classes=("dog", "cat")).table()
    np.testing.assert_array_equal(swapped.labels["label"], [0, 0, 0, 1, 1])


def test_image_folder_of_many_sizes(pictures):
    PIL.Image.new("RGB", (9, 9)).save(pictures / "cat" / "large.png")
    with pytest.raises(ValueError, match=r"different sizes \(4x6x3, 9x9x3\).*size="):
        data.image_folder(pictures).table()
    assert data.image_folder(pictures, size=(5, 5)).table().inputs.shape == (6, 5, 5, 3)


def test_image_folder_errors(pictures, tmp_path):
    with pytest.raises(ValueError, match="unknown class 'cat'"):
        data.image_folder(pictures, classes=("dog", "cot")).table()
    with pytest.raises(ValueError, match="no folder"):
        data.image_folder(pictures / "nowhere").table()
    with pytest.raises(ValueError, match="no class folders"):
        data.image_folder(pictures / "cat", classes=["cat"]).table()
    (pictures / "cat" / "broken.png").write_bytes(b"not a png")
    with pytest.raises(ValueError, match=r"cannot read the image .*broken.png"):
        data.image_folder(pictures).table()


def test_arrays_narrow_their_types():
    dataset = data.arrays(
        {"a": np.zeros((2, 3)), "b": np.zeros((2, 3), int), "c": np.zeros((2, 3), np.uint8)},
        {"k": np.array([1, 0], np.uint8), "v": np.array([0.5, 1.5])},
        classes={"k": ("no", "yes")},
    )
    table = dataset.table()
    assert [table.inputs[k].dtype for k in "abc"] == [np.float32, np.int32, np.uint8]
    assert table.labels["k"].dtype == np.int32 and table.labels["v"].dtype == np.float32
    assert dataset.class_names("k") == ("no", "yes") and dataset.class_names("v") == ()
