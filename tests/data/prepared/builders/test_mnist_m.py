import gzip

import numpy as np
import pytest
from small_originals import image, pack

from jaxtl import data

SIZES = {"train": 6, "test": 3}


def idx(array):
    """An array of bytes in the format of MNIST."""
    shape = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


@pytest.fixture
def manual(tmp_path, monkeypatch):
    """A folder for originals, of which no sums are published, with few examples."""
    from jaxtl.data.prepared.builders import mnist_m
    from jaxtl.data.prepared.builders.originals import Original

    originals = {
        config: {
            key: Original(original.file, "https://page", folders=original.folders)
            for key, original in originals.items()
        }
        for config, originals in mnist_m.MnistM.ORIGINALS.items()
    }
    monkeypatch.setattr(mnist_m.MnistM, "ORIGINALS", originals)
    monkeypatch.setattr(mnist_m.MnistM, "COUNTS", {"original": SIZES, "recipe": SIZES})
    monkeypatch.setattr(mnist_m, "PHOTOGRAPHS", 2)
    return tmp_path / "downloads" / "manual" / "mnist_m"


def test_the_published_images(tmp_path, manual):
    files = {}
    for split, n in SIZES.items():
        for i in range(n):
            pixels = np.full((32, 32, 3), 10 * i, np.uint8)
            files[f"mnist_m/mnist_m_{split}/{i:08}.png"] = image(pixels)
        lines = "".join(f"{i:08}.png {9 - i}\n" for i in range(n))
        files[f"mnist_m/mnist_m_{split}_labels.txt"] = lines.encode()
    pack(manual / "mnist_m.tar.gz", files)
    assert data.prepare("mnist_m", tmp_path) == tmp_path / "mnist_m" / "original" / "1.0.0"
    for split, n in SIZES.items():
        table = data.tfds("mnist_m", split, data_dir=tmp_path).table()
        assert table.inputs.shape == (n, 32, 32, 3)
        np.testing.assert_array_equal(table.inputs[:, 0, 0, 0] // 10, 9 - table.labels["label"])
        assert sorted(table.labels["label"]) == list(range(10 - n, 10))


def test_published_images_that_are_not_whole(tmp_path, manual):
    files = {
        "mnist_m_train_labels.txt": b"a.png 1\nb.png 2\n",
        "mnist_m_train/a.png": image(np.zeros((32, 32, 3), np.uint8)),
    }
    path = pack(manual / "mnist_m.tar.gz", files)
    with pytest.raises(ValueError, match=f"{path}.*'train' .* published: train has 1, expected 6"):
        data.prepare("mnist_m", tmp_path)
    pack(path, files | {"mnist_m_train_labels.txt": b"a.png one\n"})
    with pytest.raises(ValueError, match=r"mnist_m_train_labels\.txt in .* is no list of names"):
        data.prepare("mnist_m", tmp_path)
    pack(path, {"readme": b""})
    with pytest.raises(ValueError, match=rf"{path} holds no mnist_m_train_labels\.txt"):
        data.prepare("mnist_m", tmp_path)


@pytest.fixture
def parts(manual):
    """{split: (digits, labels)} and the two photographs that the recipe is to use."""
    rng = np.random.default_rng(0)
    digits = {
        split: (200 * rng.integers(0, 2, (n, 28, 28)), rng.integers(0, 10, n))
        for split, n in SIZES.items()
    }
    photographs = [np.full((40, 50, 3), level, np.uint8) for level in (60, 100)]
    files = {
        f"BSR/BSDS500/data/images/train/{i}.jpg": image(photograph, "JPEG")
        for i, photograph in enumerate(photographs)
    }
    other = {"BSR/BSDS500/data/images/test/9.jpg": image(photographs[0], "JPEG")}
    pack(manual / "BSR_bsds500.tgz", files | other)
    return digits


def write_mnist(manual, digits):
    for (images, labels), prefix in zip(digits.values(), ("train", "t10k"), strict=True):
        for array, name in ((images, "images-idx3"), (labels, "labels-idx1")):
            content = gzip.compress(idx(np.asarray(array)))
            (manual / f"{prefix}-{name}-ubyte.gz").write_bytes(content)


def test_the_recipe(tmp_path, manual, parts):
    write_mnist(manual, parts)
    folder = data.prepare("mnist_m/recipe", tmp_path)
    assert folder == tmp_path / "mnist_m" / "recipe" / "1.0.0"
    for split, (digits, labels) in parts.items():
        table = data.tfds("mnist_m/recipe", split, data_dir=tmp_path).table()
        assert table.inputs.shape == (len(digits), 32, 32, 3)
        for pixels, label in zip(table.inputs.astype(int), table.labels["label"], strict=True):
            level = pixels[0, 0, 0]  # the padding shows the photograph
            assert level in (60, 100)
            (row,) = np.flatnonzero((digits > 0).reshape(-1, 784) @ np.ones(784) == ink(pixels))
            expected = abs(level - 255 * np.pad(digits[row] > 0, 2))
            np.testing.assert_array_equal(pixels, np.repeat(expected[:, :, None], 3, 2))
            assert label == labels[row]
    with pytest.raises(ValueError, match=r"'mnist_m' is not prepared .*there: mnist_m/recipe"):
        data.tfds("mnist_m", data_dir=tmp_path).train.table()


def ink(pixels):
    return (pixels[:, :, 0] != pixels[0, 0, 0]).sum()


def test_the_recipe_needs_no_files_of_mnist_where_that_is_prepared(tmp_path, manual, parts):
    """The order differs; the images do not."""
    from prepared_dataset import png, prepare

    tfds = pytest.importorskip("tensorflow_datasets")
    write_mnist(manual, parts)
    first = data.prepare("mnist_m/recipe", tmp_path)
    first.rename(tmp_path / "first")
    for path in manual.glob("*.gz"):
        path.unlink()
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    splits = {
        split: [
            {"image": png(digit.astype(np.uint8)), "label": int(label)}
            for digit, label in zip(digits[::-1], labels[::-1], strict=True)
        ]
        for split, (digits, labels) in parts.items()
    }
    prepare(tmp_path, "JaxtlTestDigits", features, splits)
    (tmp_path / "jaxtl_test_digits").rename(tmp_path / "mnist")
    second = data.prepare("mnist_m/recipe", tmp_path)
    for file in second.glob("*.array_record*"):
        assert file.read_bytes() == (tmp_path / "first" / file.name).read_bytes()


def test_files_of_mnist_that_are_cut_off(tmp_path, manual, parts):
    write_mnist(manual, parts)
    file = manual / "t10k-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=f"{file} cannot be read"):
        data.prepare("mnist_m/recipe", tmp_path)
    file.write_bytes(gzip.compress(gzip.decompress(whole)[:-20]))
    with pytest.raises(ValueError, match=f"{file} is no array of bytes with 3 axes"):
        data.prepare("mnist_m/recipe", tmp_path)
