"""Folders of images as people have them: nothing is left out, or a class, without a word."""

import logging
import os
import unicodedata

import numpy as np
import PIL.Image
import pytest

from jaxtl import data


def picture(path, value=0, size=(4, 4), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("L", size, value).save(path, **options)
    return path


def values(dataset):
    """{class: grey values of its images, in order}."""
    table = dataset.table()
    names = table.classes["label"]
    labels = table.labels["label"]
    return {name: table.inputs[labels == i, 0, 0, 0].tolist() for i, name in enumerate(names)}


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    for i, name in enumerate(("cat", "dog")):
        picture(root / name / "a.png", 10 * i + 1)
        picture(root / name / "b.png", 10 * i + 2)
    return root


def fails(root, message, **options):
    with pytest.raises(ValueError, match=message) as error:
        data.image_folder(root, **options).table()
    assert "\n" not in str(error.value)


LITTER = [
    ".ipynb_checkpoints/a-checkpoint.png",
    "__MACOSX/cat/._a.png",
    ".DS_Store/a.png",
    "@eaDir/a.png",
    "cat/.ipynb_checkpoints/a-checkpoint.png",
    "cat/._a.png",
    "cat/.hidden.png",
    "cat/__MACOSX/a.png",
    "cat/deep/.cache/a.png",
    "cat/Thumbs.db",
    "cat/desktop.ini",
    "Thumbs.db",
]


@pytest.mark.parametrize("classes", [None, ("cat", "dog")])
def test_litter_is_left_alone(pets, classes, caplog):
    for name in LITTER:
        picture(pets / name, 99, format="PNG")
    with caplog.at_level(logging.INFO):
        assert values(data.image_folder(pets, classes=classes)) == {"cat": [1, 2], "dog": [11, 12]}
    assert not caplog.text


SUFFIXES = [
    *(".png", ".PNG", ".jpg", ".JPEG", ".jfif", ".webp", ".bmp", ".tif", ".TIFF", ".gif", ".pgm"),
    ".ppm",
]


def test_suffixes_in_any_case(tmp_path):
    for i, suffix in enumerate(SUFFIXES):
        picture(tmp_path / "a" / f"{i}{suffix}", 10 * i, quality=100)
    read = values(data.image_folder(tmp_path))["a"]
    np.testing.assert_allclose(read, 10 * np.arange(len(SUFFIXES)), atol=2)


@pytest.mark.parametrize("name", ["c.heic", "c.AVIF", "c.svg", "sub/c.dng"])
def test_images_that_are_not_read_are_told(pets, name):
    (pets / "dog" / name).parent.mkdir(exist_ok=True)
    (pets / "dog" / name).write_bytes(b"x")
    suffix = name[-5:].lower() if len(name) == 6 else name[-4:].lower()
    fails(pets, rf"class folder 'dog' has images that are not read \({suffix} 1\).*read are \.png")


def test_classes_without_images_are_told_at_once(pets):
    (pets / "empty").mkdir()
    (pets / "numbers").mkdir()
    (pets / "numbers" / "a.npy").write_bytes(b"x")
    fails(pets, r"'empty' has no image \(nothing\); 'numbers' has no image \(\.npy 1\)")
    fails(pets, "'empty' has no image", classes=("cat", "dog", "empty", "numbers"))


def test_other_files_are_counted(pets, caplog):
    (pets / "dog" / "notes.txt").write_text("x")
    (pets / "cat" / "README").write_text("x")
    picture(pets / "sample.png")
    with caplog.at_level(logging.INFO):
        assert values(data.image_folder(pets)) == {"cat": [1, 2], "dog": [11, 12]}
    assert "2 files are no images and are left alone (no suffix 1, .txt 1)" in caplog.text
    assert "1 images outside the class folders are left alone, such as sample.png" in caplog.text


@pytest.mark.parametrize(
    "names",
    [("train", "val"), ("Train", "Test"), ("train",), ("train2017", "val2017"),
     ("training_set", "test_set"), ("train", "valid", "test")],
)  # fmt: skip
def test_splits_are_no_classes(tmp_path, names):
    for i, name in enumerate(names):
        picture(tmp_path / name / "cat" / "a.png", i)
        picture(tmp_path / name / "dog" / "a.png", 10 + i)
    splits = data.image_folder(tmp_path)
    assert tuple(splits) == names and splits[names[0]].name == f"{tmp_path.name}.{names[0]}"
    for i, name in enumerate(names):
        assert values(splits[name]) == {"cat": [i], "dog": [10 + i]}
    assert data.image_folder(tmp_path, classes=sorted(names)).class_names() == tuple(sorted(names))
    assert data.image_folder(tmp_path / names[0]).class_names() == ("cat", "dog")
    picture(tmp_path / "other" / "a.png")
    if len(names) > 1:
        fails(tmp_path, r"holds splits \(.*\), not classes: pass .*, or classes=")


def test_splits_have_the_same_classes_and_channels(tmp_path, caplog):
    picture(tmp_path / "train" / "10" / "a.png", 1)
    picture(tmp_path / "train" / "9" / "a.png", 2)
    picture(tmp_path / "val" / "10" / "a.png", 3)
    picture(tmp_path / "val" / "11" / "deep" / "a.png", 4)
    picture(tmp_path / "test" / "a2.png", 5)
    picture(tmp_path / "test" / "a10.png", 6)
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "val" / "11" / "b.png")
    with caplog.at_level(logging.INFO):
        splits = data.image_folder(tmp_path)
        assert list(splits) == ["train", "val", "test"]
        assert values(splits.train) == {"9": [2], "10": [1], "11": []}
    assert values(splits.val) == {"9": [], "10": [3], "11": [0, 4]}
    assert "train: no folder of the classes 11" in caplog.text
    assert "test: 2 images without labels, as there are no class folders" in caplog.text
    test = splits.test.table()
    assert test.labels == {} and test.inputs[:, 0, 0, 0].tolist() == [5, 6]
    assert {splits[name].table().inputs.shape[1:] for name in splits} == {(4, 4, 3)}
    named = data.image_folder(tmp_path, classes=["11", "10", "9", "8"])
    assert {named[name].class_names() for name in ("train", "val")} == {("11", "10", "9", "8")}
    assert named.test.table().labels == {}
    with pytest.raises(ValueError, match=r"unknown split 'valid'. Did you mean 'val'"):
        splits.valid  # noqa: B018
    picture(tmp_path / "val" / "Cat" / "a.png")
    picture(tmp_path / "train" / "cat" / "a.png")
    with pytest.raises(ValueError, match="differ only in case or blanks: 'Cat' and 'cat'"):
        splits.train.table()
    (tmp_path / "val" / "Cat" / "a.png").unlink()
    (tmp_path / "val" / "Cat").rmdir()
    os.symlink(tmp_path / "train", tmp_path / "dev")
    with pytest.raises(ValueError, match="are links to the same folder"):
        data.image_folder(tmp_path).dev.table()


def test_images_without_labels(tmp_path, caplog):
    for i in (10, 9, 1):
        picture(tmp_path / f"image{i}.png", i)
    (tmp_path / "notes.txt").write_text("x")
    with caplog.at_level(logging.INFO):
        dataset = data.image_folder(tmp_path)
        table = dataset.table()
    assert table.labels == {} and table.inputs[:, 0, 0, 0].tolist() == [1, 9, 10]
    assert "3 images without labels, as there are no class folders" in caplog.text
    assert "1 files are no images" in caplog.text and len(dataset.rows(0)) == 3
    with pytest.raises(ValueError, match=r"unknown label column 'label'. Known: none"):
        dataset.few(1).rows(0)
    streamed = data.image_folder(tmp_path, streamed=True, size=(2, 2)).table().inputs
    assert streamed.shape == (3, 2, 2, 1) and streamed[1:].ravel().tolist() == [9] * 4 + [10] * 4
    picture(tmp_path / "image2.png", 2)
    assert len(dataset.table()) == 4
    (tmp_path / "raw.heic").write_bytes(b"x")
    fails(tmp_path, r"the folder has images that are not read \(\.heic 1\)")


def test_labels_in_a_table(tmp_path, caplog):
    for i, place in enumerate(("train/a.png", "train/deep/b.png", "train/c.png", "val/d.png")):
        picture(tmp_path / place, i)
    lines = ["train/a.png,cat,1.5", "train/deep/b.png,,2", "val/d.png,dog,NA"]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,kind,age", *lines]) + "\n")
    options = {"table": "labels.csv", "label": ["kind", "age"], "regression": ["age"]}
    splits = data.image_folder(tmp_path, **options)
    train, val = splits.train.table(), splits.val.table()
    assert train.classes == val.classes == {"kind": ("cat", "dog")}
    assert train.labels["kind"].tolist() == [0, -1, -1] and val.labels["kind"].tolist() == [1]
    np.testing.assert_array_equal(train.labels["age"], np.float32([1.5, np.nan, 2]))
    assert train.inputs[:, 0, 0, 0].tolist() == [0, 2, 1]
    assert "train: 1 of 3 images are not in" in caplog.text
    flat = data.image_folder(tmp_path / "val", table="../labels.csv", label="kind")
    with pytest.raises(ValueError, match=r"names 3 images that are not in .*val, such as 'train/a"):
        flat.table()
    for wrong, message in (
        ({"table": "label.csv"}, "no file .*label.csv"),
        ({"label": ["kin", "age"]}, "unknown column 'kin'. Did you mean 'kind'"),
        ({"file": "path"}, "unknown column 'path'"),
        ({"label": None, "regression": False}, "table= needs label="),
        ({"table": None}, "label= and regression= name columns of a table"),
    ):
        with pytest.raises(ValueError, match=message):
            data.image_folder(tmp_path, **options | wrong).train.table()
    lines.append(lines[0])
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,kind,age", *lines]) + "\n")
    with pytest.raises(ValueError, match=r"names the image 'train/a.png' twice"):
        splits.train.table()


def test_a_train_may_be_a_class(tmp_path):
    for name in ("bus", "train", "plane"):
        picture(tmp_path / name / "a.png")
    assert data.image_folder(tmp_path).class_names() == ("bus", "plane", "train")


def test_a_folder_too_high_up(pets):
    fails(pets.parent, r"one class folder, 'pets', .* \(cat, dog, \.\.\.\): pass .*/pets, or")
    assert values(data.image_folder(pets.parent, classes=["pets"])) == {"pets": [1, 2, 11, 12]}
    fails(pets / "cat", "has 2 images but no class folders", classes=["cat"])


def test_numbers_are_in_their_order(tmp_path):
    for i in (10, 9, 2, 0, 11):
        picture(tmp_path / str(i) / f"image{i}.png", i)
        picture(tmp_path / str(i) / f"image{2 * i + 1}.png", i + 100)
    dataset = data.image_folder(tmp_path)
    assert dataset.class_names() == ("0", "2", "9", "10", "11")
    assert all(read == [int(name), int(name) + 100] for name, read in values(dataset).items())
    chosen = data.image_folder(tmp_path, classes=np.array([11, 10, 9, 2, 0]))
    assert chosen.class_names() == ("11", "10", "9", "2", "0") and values(chosen)["10"] == [10, 110]


def test_negative_numbers_are_in_their_order(tmp_path):
    for name in ("1", "-1", "0", "-10"):
        picture(tmp_path / name / "a.png")
    assert data.image_folder(tmp_path).class_names() == ("-10", "-1", "0", "1")


def test_names_that_differ_in_case_or_unicode_form(tmp_path):
    picture(tmp_path / "Cat" / "a.png", 1)
    picture(tmp_path / "cat" / "a.png", 2)
    fails(tmp_path, "class folders that differ only in case or blanks: 'Cat' and 'cat'")
    assert values(data.image_folder(tmp_path, classes=["cat", "Cat"])) == {"cat": [2], "Cat": [1]}
    picture(tmp_path / "blanks" / "big cat" / "a.png")
    picture(tmp_path / "blanks" / "big cat " / "a.png")
    fails(tmp_path / "blanks", "'big cat' and 'big cat '")
    name = "caf\u00e9"
    other = tmp_path / "other"
    picture(other / unicodedata.normalize("NFD", name) / "a.png", 5)
    assert values(data.image_folder(other)) == {name: [5]}
    assert values(data.image_folder(other, classes=[name])) == {name: [5]}
    picture(other / name / "a.png", 6)
    fails(other, "two folders 'caf\u00e9' in different Unicode forms")


def test_links(pets, caplog):
    os.symlink(pets / "cat", pets / "cat" / "loop")
    os.symlink(pets.parent, pets / "dog" / "up")
    assert values(data.image_folder(pets)) == {"cat": [1, 2], "dog": [11, 12]}
    assert caplog.text.count("is a link to a folder and is left alone") == 2
    linked = pets.parent / "linked"
    linked.mkdir()
    for name in ("cat", "dog"):
        os.symlink(pets / name, linked / name)
    assert values(data.image_folder(linked)) == {"cat": [1, 2], "dog": [11, 12]}
    os.symlink(pets / "dog", linked / "hound")
    fails(linked, "class folders 'dog' and 'hound' are linked")
    os.symlink(pets, pets / "self")
    fails(pets, "the class folder 'self' is a link to what it stands in")


def test_a_broken_link_and_an_empty_file_are_named(pets):
    os.symlink(pets / "nowhere.png", pets / "cat" / "c.png")
    fails(pets, r"cannot read the image .*cat/c\.png")
    (pets / "cat" / "c.png").unlink()
    (pets / "cat" / "c.jpg").touch()
    fails(pets, r"cannot read the image .*cat/c\.jpg")


def test_a_folder_that_is_called_like_an_image(pets):
    (pets / "cat" / "old.png").mkdir()
    picture(pets / "cat" / "old.png" / "c.png", 3)
    assert values(data.image_folder(pets))["cat"] == [1, 2, 3]


def test_several_pictures_in_a_file_are_told(pets, caplog):
    frames = [PIL.Image.new("L", (4, 4), value) for value in (7, 8)]
    frames[0].save(pets / "cat" / "c.gif", save_all=True, append_images=frames[1:])
    dataset = data.image_folder(pets, size=(40, 40))
    assert values(dataset)["cat"] == [1, 2, 7]
    assert "1 files hold several pictures, of which the first is read" in caplog.text


def test_missing_class_folders_are_told(pets, caplog):
    with caplog.at_level(logging.INFO):
        dataset = data.image_folder(pets, classes=("cow", "dog", "cat"))
        assert values(dataset) == {"cow": [], "dog": [11, 12], "cat": [1, 2]}
    assert "no folder of the classes cow" in caplog.text
    fails(pets, "unknown class 'cat'.*unknown class 'dog'", classes=["cow"])


def test_turned_images_have_the_size_that_is_seen(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "a" / "a.jpg", size=(4, 6), exif=exif)
    picture(tmp_path / "a" / "b.jpg", size=(6, 4))
    assert data.image_folder(tmp_path).table().inputs.shape == (2, 4, 6, 1)


def test_a_new_image_is_seen(pets):
    assert len(data.image_folder(pets).table()) == 4
    picture(pets / "cat" / "c.png", 3)
    assert len(data.image_folder(pets).table()) == 5
