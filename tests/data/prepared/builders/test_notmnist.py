import numpy as np
import pytest
from small_originals import image, pack

from jaxtl import data

UNREADABLE = "notMNIST_small/A/RGVtb2NyYXRpY2FCb2xkT2xkc3R5bGUgQm9sZC50dGY=.png"


def files(size, each):
    """Glyphs that say by their grey which letter they are, and what else such an archive holds."""
    content = {
        f"notMNIST_{size}/{letter}/{n}==.png": image(np.full((28, 28), 20 * i + n, np.uint8))
        for i, letter in enumerate("ABCDEFGHIJ")
        for n in range(each)
    }
    junk = {UNREADABLE: b"", "._notMNIST_small": b"?", "notMNIST_small/.DS_Store": b"?"}
    return content | (junk if size == "small" else {})


@pytest.fixture
def manual(tmp_path, monkeypatch):
    """A folder for originals, of which no sums are published, and two glyphs a letter (or one)."""
    import dataclasses

    from jaxtl.data.prepared.builders.notmnist import Notmnist

    def unsummed(originals):
        return {
            split: dataclasses.replace(original, url="", size=0, sums=())
            for split, original in originals.items()
        }

    both = {config: unsummed(originals) for config, originals in Notmnist.ORIGINALS.items()}
    monkeypatch.setattr(Notmnist, "ORIGINALS", both)
    test, train = dict.fromkeys("ABCDEFGHIJ", 1), dict.fromkeys("ABCDEFGHIJ", 2)
    counts = {"small": {"test": test}, "large": {"train": train, "test": test}}
    monkeypatch.setattr(Notmnist, "COUNTS", counts)
    return tmp_path / "downloads" / "manual" / "notmnist"


def check(table, each):
    label = table.labels["label"]
    np.testing.assert_array_equal(np.bincount(label), [each] * 10)
    np.testing.assert_array_equal(table.inputs[:, 0, 0, 0] // 20, label)
    assert table.inputs.shape == (10 * each, 28, 28, 1)
    assert table.classes["label"] == tuple("ABCDEFGHIJ")


def test_the_small_archive(tmp_path, manual, caplog):
    pack(manual / "notMNIST_small.tar.gz", files("small", 1))
    with caplog.at_level("INFO", logger="jaxtl"):
        folder = data.prepare("notmnist", tmp_path)
    assert folder == tmp_path / "notmnist" / "small" / "1.0.0"
    assert f"left out as unreadable, as known: {UNREADABLE[15:]}" in caplog.text
    assert "no sum of it is published, nor is its size; its examples are counted" in caplog.text
    check(data.tfds("notmnist", "test", data_dir=tmp_path).table(), 1)


def test_both_archives(tmp_path, manual):
    pack(manual / "notMNIST_small.tar.gz", files("small", 1))
    with pytest.raises(ValueError, match=r"get notMNIST_large\.tar\.gz from .*; put it into"):
        data.prepare("notmnist/large", tmp_path)
    assert not (tmp_path / "notmnist").exists()  # no name of a default config either
    pack(manual / "notMNIST_large.tar.gz", files("large", 2))
    data.prepare("notmnist/large", tmp_path)
    splits = data.tfds("notmnist/large", data_dir=tmp_path)
    check(splits.train.table(), 2)
    check(splits.test.table(), 1)
    with pytest.raises(ValueError, match=r"'notmnist' is not prepared .*there: notmnist/large"):
        data.tfds("notmnist", data_dir=tmp_path).test.table()


def test_an_unreadable_file_that_nobody_knows(tmp_path, manual):
    content = files("small", 1) | {"notMNIST_small/C/new.png": b"\x89PNG"}
    path = pack(manual / "notMNIST_small.tar.gz", content)
    with pytest.raises(ValueError, match=rf"notMNIST_small/C/new\.png in {path}: "):
        data.prepare("notmnist", tmp_path)


def test_other_sizes_of_images(tmp_path, manual):
    content = files("small", 1) | {"notMNIST_small/C/0==.png": image(np.zeros((28, 27), np.uint8))}
    pack(manual / "notMNIST_small.tar.gz", content)
    with pytest.raises(ValueError, match=r"has the shape \[28, 27, 1\], expected \[28, 28, 1\]"):
        data.prepare("notmnist", tmp_path)


def test_what_others_prepared_under_the_name_is_read(tmp_path, manual):
    """Somebody's `notmnist/1.0.0`, without configs."""
    from prepared_dataset import png, prepare

    tfds = pytest.importorskip("tensorflow_datasets")
    features = {
        "image": tfds.features.Image(shape=(2, 2, 1)),
        "label": tfds.features.ClassLabel(names=["x"]),
    }
    example = {"image": png(np.zeros((2, 2), np.uint8)), "label": 0}
    prepare(tmp_path, "JaxtlTestOther", features, {"mine": [example]})
    (tmp_path / "jaxtl_test_other").rename(tmp_path / "notmnist")
    assert data.prepare("notmnist", tmp_path) == tmp_path / "notmnist" / "1.0.0"
    assert len(data.tfds("notmnist", data_dir=tmp_path).mine.table()) == 1
    pack(manual / "notMNIST_small.tar.gz", files("small", 1))
    pack(manual / "notMNIST_large.tar.gz", files("large", 2))
    data.prepare("notmnist/large", tmp_path)
    assert len(data.tfds("notmnist", data_dir=tmp_path).mine.table()) == 1
