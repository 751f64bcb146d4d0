"""Inputs that stay on disk against the same inputs in memory."""

import concurrent.futures
import logging
import time

import numpy as np
import PIL.Image
import pytest
from prepared_dataset import png, prepare

from jaxtl import data
from jaxtl.data import streamed
from jaxtl.data.sources import image_files
from jaxtl.data.steps.transforms import moments
from jaxtl.data.streamed import Streamed, is_streamed
from jaxtl.train.feed.order import Stream

NAME = "jaxtl_test_streamed"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data directory with one prepared dataset: 50 noisy images with two shapes and labels."""
    tfds = pytest.importorskip("tensorflow_datasets")
    features = {
        "image": tfds.features.Image(shape=(6, 5, 3)),
        "free": tfds.features.Image(shape=(None, None, 3)),
        "counts": tfds.features.Tensor(shape=(2,), dtype=np.int64),
        "label": tfds.features.ClassLabel(num_classes=3),
    }
    rng, examples = np.random.default_rng(0), []
    for i in range(50):
        image = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        images = {"image": png(image), "free": png(image[: 3 + i % 2])}
        examples.append({**images, "counts": [i, -i], "label": i % 3})
    path = tmp_path_factory.mktemp("tfds")
    prepare(path, "JaxtlTestStreamed", features, {"train": examples})
    return path


@pytest.fixture
def mapped(tmp_path):
    """(the array, an np.memmap of it) of 30 images."""
    values = np.random.default_rng(1).integers(0, 256, (30, 6, 6, 3), dtype=np.uint8)
    values.tofile(tmp_path / "images")
    return values, np.memmap(tmp_path / "images", np.uint8, "r", shape=values.shape)


def logged_reads(values):
    """`Streamed` rows of an array, and the list of what is read of them."""
    reads = []

    def read(rows):
        reads.append(rows.tolist())
        return values[rows]

    return Streamed(values.shape, values.dtype, read), reads


@pytest.mark.parametrize(
    "rows",
    [
        3,
        np.int64(-1),
        slice(None),
        slice(2, 9, 3),
        slice(9, 2, -2),
        slice(5, 5),
        [4, 0, 4],
        np.array([[1, 2], [-1, 1]], np.int32),
        np.arange(10) % 3 == 0,
        np.array([], int),
        [],
    ],
)
def test_rows_are_chosen_as_those_of_an_array(rows):
    values = np.arange(40, dtype=np.float32).reshape(10, 2, 2)
    lazy, reads = logged_reads(values)
    np.testing.assert_array_equal(lazy[rows], values[rows])
    assert lazy[rows].dtype == values.dtype and lazy[rows].shape == values[rows].shape
    assert all(read == sorted(set(read)) for read in reads)
    assert (len(lazy), lazy.ndim, lazy.nbytes) == (10, 3, 160)


@pytest.mark.parametrize("rows", [10, [-11], (slice(None), 0), [0.5], np.ones(3, bool)])
def test_what_is_no_row(rows):
    lazy, reads = logged_reads(np.zeros((10, 2)))
    with pytest.raises(IndexError):
        lazy[rows]
    assert not reads


def test_it_is_never_loaded_by_accident():
    lazy, reads = logged_reads(np.zeros((10, 2), np.float32))
    with pytest.raises(ValueError, match=r"Streamed\(float32\[10, 2\]\) is not held in memory"):
        np.asarray(lazy)
    assert np.shape(lazy) == (10, 2) and not reads


def test_maps_and_selections_read_only_what_is_asked_for():
    values = np.arange(20).reshape(10, 2)
    lazy, reads = logged_reads(values)
    chosen = lazy.map(lambda x: (x + 1).astype(np.float32)).select(np.array([7, 2, 5]))
    chosen = chosen.select(np.array([True, False, True]))
    assert chosen.shape == (2, 2) and chosen.dtype == np.float32
    reads.clear()
    np.testing.assert_array_equal(chosen[1], values[5] + 1)
    np.testing.assert_array_equal(chosen[:], values[[7, 5]] + 1)
    assert reads == [[5], [5, 7]]


@pytest.mark.parametrize(
    "stored, kept",
    [("uint8", "uint8"), ("float32", "float32"), ("float64", "float32"), ("int16", "int32")],
)
def test_files_in_memory_maps_stay_on_disk(tmp_path, stored, kept):
    values = np.arange(24).reshape(6, 4).astype(stored)
    values.tofile(tmp_path / "rows")
    file = np.memmap(tmp_path / "rows", stored, "r", shape=(6, 4))
    table = data.arrays({"a": file, "b": np.zeros(6)}, np.zeros(6, int)).table()
    assert is_streamed(table.inputs["a"]) and not is_streamed(table.inputs["b"])
    read = table.inputs["a"][[5, 1]]
    assert read.dtype == kept and not isinstance(read, np.memmap)
    np.testing.assert_array_equal(read, values[[5, 1]])
    assert is_streamed(table.select(np.array([0, 3])).inputs["a"])


def test_image_operations_are_those_of_images_in_memory(mapped):
    values, file = mapped

    def changed(inputs):
        dataset = data.arrays(inputs, np.arange(30) % 3)
        dataset = dataset.resize((9, 8)).grayscale().pad(1).center_crop((7, 7)).rgb()
        return data.rotated(data.inverted(dataset), 10).classes([2, 0]).table()

    resident, lazy = changed(values), changed(file)
    assert is_streamed(lazy.inputs) and lazy.inputs.shape == resident.inputs.shape
    np.testing.assert_array_equal(lazy.inputs[:], resident.inputs)
    np.testing.assert_array_equal(lazy.inputs[[7]], resident.inputs[[7]])
    np.testing.assert_array_equal(lazy.labels["label"], resident.labels["label"])


def test_an_image_does_not_depend_on_what_is_read_with_it(mapped):
    lazy = data.noisy(data.arrays(mapped[1], np.zeros(30, int)), 0.2).table().inputs
    np.testing.assert_array_equal(lazy[5:9][1], lazy[6])
    assert np.abs(lazy[6].astype(int) - mapped[0][6]).mean() > 10


def test_standardize_takes_its_statistics_chunk_by_chunk(mapped, monkeypatch):
    monkeypatch.setattr(streamed, "CHUNK", 4 * 6 * 6 * 3)  # 4 of the 30 images
    values, file = mapped
    found = moments(values)
    np.testing.assert_allclose(found.mean, values.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(found.std, values.std(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_array_equal(found.max, values.max(0))
    resident, lazy = (
        data.Splits(
            train=data.arrays(inputs, np.zeros(30, int)),
            test=data.arrays(inputs[:9], np.zeros(9, int)),
        ).standardize()
        for inputs in (values, file)
    )
    assert is_streamed(lazy.test.table().inputs)
    assert lazy.test.table().inputs.dtype == np.float32
    np.testing.assert_array_equal(lazy.test.table().inputs[:], resident.test.table().inputs)
    np.testing.assert_allclose(lazy.train.table().inputs[:].std(0), 1, rtol=1e-5)


def test_overlap_reads_chunks_and_validate_reads_nothing(mapped, caplog):
    values = mapped[0].astype(np.float32)
    lazy, reads = logged_reads(values)
    lazy = data.Dataset("lazy", data.table.Call(data.Table, (lazy, Labels(30))))
    part = data.arrays(values[10:20], np.zeros(10, int))
    with caplog.at_level(logging.INFO):
        data.validate(lazy)
    assert not reads and "streamed inputs are not searched for NaN" in caplog.text
    np.testing.assert_array_equal(data.overlap(part, lazy), np.arange(10, 20))


class Labels(dict):
    """Zeros; hashable, as the arguments of a call must be."""

    def __init__(self, n):
        super().__init__(label=np.zeros(n, np.int32))

    __hash__ = object.__hash__


def test_tfds_reads_the_same_rows_when_they_are_asked_for(root, monkeypatch):
    lazy, resident = (
        data.tfds(NAME, "train[10%:]", data_dir=root, streamed=s).table() for s in (True, False)
    )
    assert is_streamed(lazy.inputs) and lazy.inputs.shape == (45, 6, 5, 3)
    for column in resident.labels:
        np.testing.assert_array_equal(lazy.labels[column], resident.labels[column])
    decoded, decode = [], image_files.decode
    monkeypatch.setattr(image_files, "decode", lambda *a: decoded.append(1) or decode(*a))
    rows = np.array([[40, 3], [3, 12]])
    np.testing.assert_array_equal(lazy.inputs[rows], resident.inputs[rows])
    assert len(decoded) == 3
    data.tfds(NAME, "train[:9]", data_dir=root, streamed=True).table()
    assert len(decoded) == 3  # labels do not need the images


def test_tfds_streams_several_features_in_one_tree(root):
    names = ["free", "counts"]
    lazy, resident = (
        data.tfds(NAME, "train", inputs=names, size=(4, 4), data_dir=root, streamed=s).table()
        for s in (True, False)
    )
    for name in names:
        assert lazy.inputs[name].dtype == resident.inputs[name].dtype
        np.testing.assert_array_equal(lazy.inputs[name][:], resident.inputs[name])


def test_images_of_any_size_are_streamed_in_one_size_only(root):
    with pytest.raises(ValueError, match=r"'free' has examples of shape \[None, None, 3\].*size="):
        data.tfds(NAME, "train", inputs="free", data_dir=root, streamed=True).table()


@pytest.mark.parametrize("kind", ["tfds", "image_folder"])
def test_what_exceeds_half_of_the_memory_is_streamed(root, tmp_path, monkeypatch, caplog, kind):
    if kind == "tfds":
        size, load = 50 * 90, lambda n: data.tfds(NAME, f"train[:{n}]", data_dir=root)
    else:
        for n in (49, 50):
            folder = tmp_path / str(n) / "a"
            folder.mkdir(parents=True)
            for i in range(n):
                PIL.Image.new("RGB", (5, 6), (i, 0, 0)).save(folder / f"{i:02}.png")
        size, load = 50 * 90, lambda n: data.image_folder(tmp_path / str(n))
    monkeypatch.setattr(streamed, "physical_memory", lambda: 2 * size - 1)
    with caplog.at_level(logging.INFO):
        assert not is_streamed(load(49).table().inputs)
        assert "streamed, half" not in caplog.text
        assert is_streamed(load(50).table().inputs)
    assert "are streamed, half of the memory is" in caplog.text


def test_this_machine_has_some_memory():
    assert 2**28 < streamed.physical_memory() < 2**50


def test_image_folder_reads_the_same_rows(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (4 + i, 7, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels[..., 0] if i == 2 else pixels).save(folder / f"{i}.png")
    lazy, resident = (
        data.image_folder(tmp_path, size=(5, 5), streamed=s).table() for s in (True, False)
    )
    assert is_streamed(lazy.inputs) and resident.inputs.shape == (6, 5, 5, 3)
    np.testing.assert_array_equal(lazy.inputs[[4, 1, 0]], resident.inputs[[4, 1, 0]])
    np.testing.assert_array_equal(lazy.labels["label"], resident.labels["label"])
    with pytest.raises(ValueError, match=r"different sizes .4x7x3, 5x7x3, 6x7x3.*size="):
        data.image_folder(tmp_path, streamed=True).table()
    cut = tmp_path / "a" / "0.png"
    cut.write_bytes(cut.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"cannot read the image .*0\.png"):
        data.image_folder(tmp_path, size=(5, 5), streamed=True).slice(0, 6).table().inputs[:]


def test_many_threads_read_one_dataset(root):
    whole = data.tfds(NAME, "train", data_dir=root).table().inputs
    lazy = data.tfds(NAME, "train", data_dir=root, streamed=True).table().inputs

    def equal(seed):
        rows = np.random.default_rng(seed).integers(0, 50, 20)
        return np.array_equal(lazy[rows], whole[rows])

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert all(threads.map(equal, range(64)))


def test_threads_share_an_order():
    def expected(start):
        return Stream(np.arange(7), 0, 0).read(start, 5)

    shared = Stream(np.arange(7), 0, 0)
    starts = [5 * (i % 40) for i in range(400)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda s: (time.sleep(0), shared.read(s, 5))[1], starts))
    for start, rows in zip(starts, found, strict=True):
        np.testing.assert_array_equal(rows, expected(start))
