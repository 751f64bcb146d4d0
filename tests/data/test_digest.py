"""Digests of the rows that a stage reads: what they notice, and what they must not."""

import gc
import os
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from prepared_dataset import png, prepare

from jaxtl import data
from jaxtl.data import digest
from jaxtl.data.streamed import Streamed
from jaxtl.fingerprint import of_value

ALL = np.arange(40)


def images(rows=40):
    return np.random.default_rng(0).integers(0, 256, (rows, 6, 5, 3), dtype=np.uint8)


def texts(*values):
    return np.array([*values, None], object)[:-1]


def of_all(inputs):
    return digest.of_rows(inputs, np.arange(len(inputs)))


def test_equal_content_has_one_digest():
    assert of_all(images()) == of_all(images()) == (of_all(images()).digest, False)
    assert len(of_all(images()).digest) == 16 and int(of_all(images()).digest, 16) >= 0
    wide = np.repeat(images(), 2, axis=2)[:, :, ::2]
    assert of_all(wide) == of_all(np.asfortranarray(images())) == of_all(images())


def one_pixel(values):
    values[17, 3, 2, 1] += 1
    return values


def negative_zero(values):
    return np.where(values == 0, -values, values)


@pytest.mark.parametrize(
    "change",
    [
        one_pixel,
        negative_zero,
        lambda values: values[::-1],
        lambda values: values[[1, 0, *range(2, 40)]],
        lambda values: values.astype(np.float64),
        lambda values: values.view(np.int32),
        lambda values: values.reshape(40, 5, 6, 3),
        lambda values: {"image": values},
        lambda values: [values],
        lambda values: (values, values),
    ],
)
def test_what_is_noticed(change):
    floats = images().astype(np.float32)
    assert digest.of_rows(change(floats.copy()), ALL) != digest.of_rows(floats, ALL)


def test_nan_is_compared_by_its_bits():
    quiet, other = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert of_all(np.array([quiet, 1])) == of_all(np.array([quiet, 1]))
    assert of_all(np.array([quiet, 1])) != of_all(np.array([other, 1]))


def test_the_rows_count_and_only_they_do():
    values, rows = images(), np.array([0, 3, 4, 5, 39])
    before = digest.of_rows(values, rows)
    assert digest.of_rows(np.concatenate([images(), images()]), rows) == before
    outside, inside = images(), images()
    outside[[1, 2, 6, 38]] = 0
    inside[4, 0, 0, 0] ^= 1
    assert digest.of_rows(outside, rows) == before != digest.of_rows(inside, rows)
    assert digest.of_rows(values, rows[[1, 0, 2, 3, 4]]) != before
    assert digest.of_rows(values, rows[:4]) != before
    shifted = np.concatenate([images()[:1], images()])  # the same content in other rows
    assert digest.of_rows(shifted, rows + 1) != before
    nothing = digest.of_rows(values, np.array([], int))
    assert nothing == digest.of_rows(images(), np.array([], int)) != before


def test_seeds_of_a_split_read_other_rows():
    table = data.arrays(images(), np.arange(40) % 4)
    first, _ = table.split(0.5)
    digests = {digest.of_rows(first.table().inputs, first.rows(seed)).digest for seed in range(5)}
    assert len(digests) == 5


def test_blocks_and_threads_do_not_change_a_digest(monkeypatch):
    values, scattered = images(), np.array([3, 4, 5, 9, 11, 30, 31])
    monkeypatch.setattr(digest, "BLOCK", 2 * 6 * 5 * 3)  # two rows at a time
    before = [digest.of_rows(values, rows) for rows in (ALL, scattered)]
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert [digest.of_rows(images(), rows) for rows in (ALL, scattered)] == before
    values = images()
    values[31] ^= 1
    assert digest.of_rows(values, scattered) != before[1]


@pytest.mark.parametrize(
    "other",
    [
        texts("a", "bc", "é"),
        texts("ab", "c", "e"),
        texts(b"ab", "c", "é"),
        texts("ab", "c", None),
        texts("ab", "c", "é", ""),
        texts("ab", "c", "e\u0301"),
        texts("ab", "cé", ""),
    ],
)
def test_texts_by_content_with_their_lengths(other):
    rows = np.arange(len(other))
    assert digest.of_rows(other, rows) != digest.of_rows(texts("ab", "c", "é"), np.arange(3))


def test_texts_that_are_equal():
    values = texts("ab", b"\xff", "\ud800", None, "longer text")
    assert of_all(values) == of_all(texts("ab", b"\xff", "\ud800", None, "longer text"))
    longer = np.array(["ab", "c", "a long one that is not read"])
    assert digest.of_rows(longer, np.arange(2)) == digest.of_rows(texts("ab", "c"), np.arange(2))


def test_nested_inputs_of_every_kind():
    def inputs(word="a", number=1.0):
        return {"x": (images(3), [np.array([number, 2, 3])]), "text": texts(word, "b", "c")}

    plain = digest.of_rows(inputs(), np.arange(3))
    assert plain == digest.of_rows(dict(reversed(inputs().items())), np.arange(3))
    assert plain != digest.of_rows(inputs(word="A"), np.arange(3))
    assert plain != digest.of_rows(inputs(number=-1.0), np.arange(3))


def test_labels_weights_and_names():
    labels = {"label": np.array([0, 1, 1], np.int32)}
    plain = digest.of_arrays([labels, ("cat", "dog")])
    assert plain == digest.of_arrays([labels, ("cat", "dog")]) and not plain.sampled
    for other in (
        [{"label": np.array([1, 0, 0], np.int32)}, ("cat", "dog")],
        [{"label": np.array([0, 1, 1], np.int64)}, ("cat", "dog")],
        [{"label": np.array([[0, 1, 1]], np.int32)}, ("cat", "dog")],
        [{"Label": labels["label"]}, ("cat", "dog")],
        [labels, ("cat", "wolf")],
        [labels, ("dog", "cat")],
        [labels, ("ca", "tdog")],
        [labels, ["cat", "dog"]],
    ):
        assert digest.of_arrays(other) != plain
    assert digest.of_arrays(1.0) != digest.of_arrays(1) != digest.of_arrays(np.ones(1, int))


def test_another_process_gives_the_same():
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]; from test_digest import *;"
        "print(of_all(images()).digest, of_all(texts('ab', b'c')).digest,"
        "digest.of_arrays([{'b': np.ones(2), 'a': 1}, ('x', 'y')]).digest)"
    )
    places = [os.path.dirname(__file__), os.path.dirname(sys.modules["prepared_dataset"].__file__)]
    result = subprocess.run(
        [sys.executable, "-c", program, *places],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == [
        of_all(images()).digest,
        of_all(texts("ab", b"c")).digest,
        digest.of_arrays([{"b": np.ones(2), "a": 1}, ("x", "y")]).digest,
    ]


def test_an_array_is_hashed_once_and_forgotten_with_it(monkeypatch):
    values, calls, content = images(), [], digest._content
    monkeypatch.setattr(digest, "_content", lambda *a: calls.append(a[1]) or content(*a))
    before = digest.of_rows({"a": values}, ALL)
    assert digest.of_rows({"a": values}, ALL.copy()) == before and len(calls) == 1
    assert digest.of_rows([values], ALL) != before and len(calls) == 1
    digest.of_rows(values, ALL[:3])
    assert len(calls) == 2
    place = id(values)
    del values
    gc.collect()
    assert place not in digest._digests_of


# What stays on disk.


def touched(path):
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def mapped(path):
    return data.arrays(np.memmap(path, np.uint8, "r", shape=(40, 6, 5, 3)), np.arange(40) % 4)


def test_streamed_rows_by_their_file(tmp_path):
    file = tmp_path / "images"
    images().tofile(file)
    dataset = mapped(file).resize((3, 3))
    before = digest.of_rows(dataset.table().inputs, ALL)
    assert before == (before.digest, True)
    assert digest.of_rows(mapped(file).resize((3, 3)).table().inputs, ALL) == before
    assert digest.of_rows(mapped(file).resize((3, 4)).table().inputs, ALL) != before
    touched(file)
    assert digest.of_rows(dataset.table().inputs, ALL) != before
    held = digest.of_rows({"x": dataset.table().inputs[:]}, ALL)
    touched(file)
    assert digest.of_rows({"x": mapped(file).resize((3, 3)).table().inputs[:]}, ALL) == held


def test_streamed_rows_by_a_sample_of_them():
    reads, values = [], images()

    def read(rows):
        reads.append(rows)
        return values[rows]

    lazy = Streamed(values.shape, values.dtype, read)
    before = digest.of_rows(lazy, ALL)
    assert before.sampled and len(reads) == 1 and len(reads[0]) <= digest.SAMPLE
    assert reads[0][0] == 0 and reads[0][-1] == 39 and np.ptp(np.diff(reads[0])) <= 1
    digest.of_rows(lazy, np.array([3, 7, 30]))
    np.testing.assert_array_equal(reads[1], [3, 7, 30])
    assert digest.of_rows(lazy, np.array([], int)).sampled
    values[39] ^= 1
    assert digest.of_rows(Streamed(values.shape, values.dtype, read), ALL) != before


def test_the_sample_is_bounded_in_bytes():
    reads, row = [], np.zeros((1, digest.SAMPLE_BYTES), np.uint8)

    def read(rows):
        reads.append(rows)
        return np.broadcast_to(row, (len(rows), row.size))

    digest.of_rows(Streamed((10**6, row.size), np.uint8, read), np.arange(10**6))
    np.testing.assert_array_equal(reads, [[0, 10**6 - 1]])


def test_views_of_streamed_rows_know_the_files_of_theirs(tmp_path):
    for name in ("a/1", "a/2", "b/1", "b/2"):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(images()[int(name[-1])]).save(file)

    def inputs():
        return data.image_folder(tmp_path, streamed=True).resize((4, 4)).table().inputs

    lazy = inputs()
    chosen = lazy.map(lambda x: 255 - x).select(np.array([0, 3]))
    rows = [[0, 1], [2, 3], [0], [1]]
    before = [lazy.version(np.array(r)) for r in rows]
    assert len(set(before)) == 4
    assert chosen.version(np.array([1, 0])) == lazy.version(np.array([3, 0]))
    touched(tmp_path / "a" / "2.png")
    (tmp_path / "b" / "3.txt").touch()
    (tmp_path / "b" / "3.txt").unlink()
    after = [inputs().version(np.array(r)) for r in rows]
    assert [a == b for a, b in zip(after, before, strict=True)] == [False, True, True, False]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data directory with one prepared dataset of two splits of 8 images."""
    tfds = pytest.importorskip("tensorflow_datasets")
    features = {
        "image": tfds.features.Image(shape=(6, 5, 3)),
        "label": tfds.features.ClassLabel(num_classes=3),
    }
    splits = {
        split: [{"image": png(image), "label": i % 3} for i, image in enumerate(images(8))]
        for split in ("train", "test")
    }
    path = tmp_path_factory.mktemp("tfds")
    prepare(path, "JaxtlTestDigest", features, splits)
    return path


def test_tfds_by_name_version_split_and_sizes(root, tmp_path):
    def of(split, streamed=True, place=root):
        table = data.tfds("jaxtl_test_digest", split, data_dir=place, streamed=streamed).table()
        return of_all(table.inputs)

    before, held = of("train"), of("train", streamed=False)
    assert before.sampled and not held.sampled
    assert of("train[:8]") == before != of("train[:4]") and of("test") != before
    copy = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    lazy = data.tfds("jaxtl_test_digest", "train", data_dir=copy, streamed=True).table().inputs
    names = lazy.names(np.arange(8))
    assert len(set(names)) == 8 and lazy.select(np.array([3, 1])).names([1, 0]) == names[1:4:2]
    assert not of_value(lazy.source).opaque
    assert of("train", place=copy) == before and of("train", streamed=False, place=copy) == held
