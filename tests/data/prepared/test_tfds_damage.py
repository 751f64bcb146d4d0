"""Prepared datasets that are damaged, and preparing without a network: one line each."""

import json
import logging
import shutil
import sys
import time
import types

import numpy as np
import pytest
from prepared_dataset import png, prepare

from jaxtl import data
from jaxtl.data.prepared import tfds_folders

NAME = "jaxtl_test_damage"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A data directory with one prepared dataset of 6 train and 4 test images."""
    tfds = pytest.importorskip("tensorflow_datasets")
    features = {
        "image": tfds.features.Image(shape=(4, 5, 3)),
        "depth": tfds.features.Image(shape=(4, 5, 1), dtype=np.uint16),
        "coded": tfds.features.Image(shape=(4, 5, 4)),
        "id": np.int64,
        "label": tfds.features.ClassLabel(num_classes=3),
    }

    def example(i, offset):
        image = np.full((4, 5, 3), i, np.uint8)
        depth, coded = np.full((4, 5), 257 * i, np.uint16), np.zeros((4, 5, 4), np.uint8)
        images = {"image": png(image), "depth": png(depth), "coded": png(coded)}
        return {**images, "id": i + offset, "label": i % 3}

    path = tmp_path_factory.mktemp("tfds")
    splits = {"train": [example(i, 0) for i in range(6)]}
    splits["test"] = [example(i, 2**40) for i in range(4)]
    prepare(path, "JaxtlTestDamage", features, splits)
    return path


@pytest.fixture
def folder(original, tmp_path):
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return tmp_path / NAME / "1.0.0"


def load(folder, **options):
    return data.tfds(NAME, "train", data_dir=folder.parents[1], **options).table()


def fails(folder, message, **options):
    with pytest.raises(ValueError, match=message) as error:
        load(folder, **options)
    assert "\n" not in str(error.value)
    assert str(folder.parent.parent) in str(error.value)
    assert "prepare it again" in str(error.value)


def shard(folder):
    return folder / f"{NAME}-train.array_record-00000-of-00001"


def flip(content):
    return bytes(
        byte ^ 255 if i in range(500, 3000, 50) else byte for i, byte in enumerate(content)
    )


SHARD_DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "end": lambda content: content[:-10],
    "empty": lambda content: b"",
    "other": lambda content: bytes(len(content)),
    "flipped": flip,
}


@pytest.mark.parametrize("kind", SHARD_DAMAGE)
@pytest.mark.parametrize("streamed", [True, False])
def test_damaged_records(folder, kind, streamed):
    file = shard(folder)
    file.write_bytes(SHARD_DAMAGE[kind](file.read_bytes()))
    fails(folder, "is damaged", streamed=streamed)


@pytest.fixture
def ours(monkeypatch):
    """Names that `prepare` takes for builders of ours."""

    def add(name):
        monkeypatch.setitem(tfds_folders.OWN, name, name)
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        tfds_folders.known_names.cache_clear()

    yield add
    tfds_folders.known_names.cache_clear()


def test_a_missing_file(folder, ours):
    ours(NAME)
    assert data.prepare(NAME, folder.parents[1]) == folder
    shard(folder).unlink()
    fails(folder, "train.array_record-00000-of-00001 is damaged: it is missing")
    with pytest.raises(ValueError, match="it is missing"):  # preparing does not call it whole
        data.prepare(NAME, folder.parents[1])
    test = data.tfds(NAME, "test[:2]", label={}, data_dir=folder.parents[1])
    assert len(test.table()) == 2  # the other split is whole


def test_a_folder_that_lost_its_description(folder, ours):
    """TFDS takes the folder for prepared, so preparing again would change nothing."""
    ours(NAME)
    (folder / "dataset_info.json").unlink()
    for use in (lambda: load(folder), lambda: data.prepare(NAME, folder.parents[1])):
        with pytest.raises(ValueError, match=r"1\.0\.0 is damaged: it has no dataset_info\.json"):
            use()


def changed(tree, path, value):
    *places, last = path
    for place in places:
        tree = tree[place]
    if value is None:
        del tree[last]
    else:
        tree[last] = value


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("splits",), None, "its splits are no list"),
        (("splits",), 3, "its splits are no list"),
        (("splits",), ["train"], "its splits are no list"),
        (("splits", 0, "name"), 3, "a split has no name"),
        (("splits", 0, "shardLengths"), ["x"], "TFDS cannot read"),
        (("splits", 0, "shardLengths"), 6, "TFDS cannot read"),
        (("splits", 0, "shardLengths"), ["-6"], "6 examples, dataset_info.json says -6"),
        (("splits", 0, "shardLengths"), ["5"], "6 examples, dataset_info.json says 5"),
        (("splits", 0, "shardLengths"), ["7"], "6 examples, dataset_info.json says 7"),
        (("splits", 0, "shardLengths"), ["6", "6"], "00000-of-00002 is damaged: it is missing"),
        (("splits", 0, "filepathTemplate"), "{X}", "Could not format template"),
        (("version",), "x", "Invalid version 'x'"),
        (("supervisedKeys",), 3, "TFDS cannot read"),
    ],
)
def test_dataset_info(folder, path, value, message):
    file = folder / "dataset_info.json"
    info = json.loads(file.read_text())
    info["splits"].sort(key=lambda split: split["name"] != "train")
    changed(info, path, value)
    file.write_text(json.dumps(info))
    fails(folder, message)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"a":' * 10**5])
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "../.config/metadata.json"])
def test_files_that_are_not_json(folder, name, content):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    fails(folder, "is damaged: ")


LABEL, IMAGE = ("featuresDict", "features", "label"), ("featuresDict", "features", "image")


@pytest.mark.parametrize(
    "path, value, message",
    [
        ((*LABEL, "classLabel", "numClasses"), "-3", "'label' has -3 classes"),
        ((*LABEL, "classLabel", "numClasses"), "1000000000", "'label' has 1000000000 classes"),
        ((*LABEL, "classLabel", "numClasses"), "x", "TFDS cannot read"),
        ((*LABEL, "pythonClassName"), "os.system", "TFDS cannot read"),
        ((*IMAGE, "image", "dtype"), "nonsense", "TFDS cannot read"),
        ((*IMAGE, "image", "shape", "dimensions"), ["x", "5", "3"], "TFDS cannot read"),
    ],
)
def test_features(folder, path, value, message):
    file = folder / "features.json"
    features = json.loads(file.read_text())
    changed(features, path, value)
    file.write_text(json.dumps(features))
    fails(folder, message)


def test_features_of_other_examples(folder):
    file = folder / "features.json"
    whole = file.read_text()
    file.write_text(whole.replace('"numClasses": "3"', '"numClasses": "2"'))
    with pytest.raises(ValueError, match="'label' has 2 classes, but a label 2"):
        load(folder)
    file.write_text(whole.replace('"5"', '"50000"'))
    with pytest.raises(ValueError, match=r"declares images of shape \[4, 50000, 3\]"):
        load(folder, streamed=True).inputs[:2]


def test_sixteen_bit_images_and_images_of_floats(folder):
    depth = load(folder, inputs="depth").inputs
    np.testing.assert_array_equal(np.sort(depth[:, 0, 0, 0]), np.arange(6))
    file = folder / "features.json"  # TFDS writes floats as the bytes of four channels
    features = json.loads(file.read_text())
    changed(features, ("featuresDict", "features", "coded", "image", "dtype"), "float32")
    changed(features, ("featuresDict", "features", "coded", "image", "shape", "dimensions", 2), "1")
    file.write_text(json.dumps(features))
    with pytest.raises(ValueError, match=r"'coded' \(.*\) cannot be read as an array"):
        load(folder, inputs="coded")


def test_numbers_of_more_than_32_bits(folder):
    with pytest.raises(ValueError, match="'id' holds whole numbers of more than 32 bits"):
        data.tfds(NAME, "test", data_dir=folder.parents[1]).table()
    named = data.tfds(NAME, "test", label="label", data_dir=folder.parents[1])
    assert len(named.table()) == 4


@pytest.mark.parametrize("size", [8, (8, 8, 3), (0, 4)])
def test_sizes_are_checked_at_once(size):
    with pytest.raises(ValueError, match=r"tfds: size(\[0\])? must be"):
        data.tfds(NAME, size=size)


@pytest.mark.parametrize(
    "options", [{"name": 3}, {"split": ["train"]}, {"label": 3}, {"inputs": 3}]
)
def test_arguments_are_checked_at_once(options):
    with pytest.raises(ValueError, match=f"tfds: {next(iter(options))} must be"):
        data.tfds(**{"name": NAME} | options)


@pytest.mark.parametrize(
    "split, message",
    [
        ("train[:0]", r"the split 'train\[:0\]' .* has no examples"),
        ("train[4:2]", r"the split 'train\[4:2\]'"),
        ("train[", r"cannot read the split 'train\['"),
        ("train[:x]", r"cannot read the split 'train\[:x\]'"),
        ("train[:99]", r"cannot read the split 'train\[:99\]'"),
        ("train[:200%]", r"cannot read the split 'train\[:200%\]'"),
        ("", "unknown split ''"),
    ],
)
def test_slices(folder, split, message):
    with pytest.raises(ValueError, match=message) as error:
        data.tfds(NAME, split, data_dir=folder.parents[1]).table()
    assert "\n" not in str(error.value)


def test_the_variable_is_named_where_it_is_not_set(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError) as error:
        data.tfds("mnist").train.table()
    assert str(error.value).endswith(
        f"dataset 'mnist' is not prepared in {tmp_path}/tensorflow_datasets (TFDS_DATA_DIR is not "
        "set). Prepare it with: python launch.py --prepare=mnist"
    )
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=f"not prepared in {tmp_path}. Prepare"):
        data.tfds("mnist").train.table()


def test_preparing_without_a_network_fails_at_once(tmp_path, ours, caplog):
    tfds = pytest.importorskip("tensorflow_datasets")

    class JaxtlTestOffline(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"x": np.int64})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            dl_manager.download("http://localhost:9/file.zip")

        def _generate_examples(self):
            yield 0, {"x": 0}

    name = "jaxtl_test_offline"
    ours(name)
    start = time.monotonic()
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError) as error:
        data.prepare(name, tmp_path)
    assert time.monotonic() - start < 10
    assert str(error.value) == (
        f"cannot prepare '{name}': no connection to http://localhost:9/file.zip. Preparing needs a "
        "network, everything else does not"
    )
    assert "Retrying" not in caplog.text
    assert not (tmp_path / name).exists()
