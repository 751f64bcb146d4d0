import json
import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from prepared_dataset import png, prepare

from jaxtl import data
from jaxtl.data.prepared import tfds_folders

NAME = "jaxtl_test_shapes"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data directory with one prepared dataset: image i is the constant i, with i % 3 shapes."""
    tfds = pytest.importorskip("tensorflow_datasets")
    features = {
        "image": tfds.features.Image(shape=(4, 6, 3)),
        "free": tfds.features.Image(shape=(None, None, 3)),
        "image/filename": tfds.features.Text(),
        "counts": tfds.features.Tensor(shape=(2,), dtype=np.uint8),
        "nested": {"size": tfds.features.Scalar(np.float32), "id": np.int64},
        "tags": tfds.features.Sequence(tfds.features.Text()),
        "shape": tfds.features.ClassLabel(names=["disc", "square", "star"]),
    }

    def example(i):
        return {
            "image": png(np.full((4, 6, 3), i, np.uint8)),
            "free": png(np.full((3 + i % 2, 5, 3), i, np.uint8)),
            "image/filename": f"{i}.png",
            "counts": np.array([i, 2 * i], np.uint8),
            "nested": {"size": i / 2, "id": i},
            "tags": ["x"] * (i % 2),
            "shape": i % 3,
        }

    path = tmp_path_factory.mktemp("tfds")
    splits = {"train": [*map(example, range(12))], "test": [*map(example, range(6))]}
    prepare(path, "JaxtlTestShapes", features, splits, label="shape")
    return path


def test_columns_of_a_dataset(root):
    table = data.tfds(NAME, data_dir=root).train.table()
    i = table.inputs[:, 0, 0, 0]
    assert sorted(i) == list(range(12)) and table.inputs.dtype == np.uint8
    np.testing.assert_array_equal(
        table.inputs, np.broadcast_to(i[:, None, None, None], (12, 4, 6, 3))
    )
    np.testing.assert_array_equal(table.labels["label"], i % 3)
    np.testing.assert_array_equal(table.labels["shape"], i % 3)
    np.testing.assert_array_equal(table.labels["nested/size"], i / 2)
    np.testing.assert_array_equal(table.labels["nested/id"], i)
    numbers = {"nested/id": tuple(map(str, range(12)))}
    assert table.classes == dict.fromkeys(("shape", "label"), ("disc", "square", "star")) | numbers
    assert table.labels["label"].dtype == np.int32 and set(table.labels) == {
        *("shape", "label", "nested/size", "nested/id")
    }


def test_chosen_inputs_and_labels(root):
    train = data.tfds(NAME, "train", inputs="counts", label="nested/size", data_dir=root)
    table = train.table()
    assert table.inputs.dtype == np.float32 and set(table.labels) == {"label"}
    np.testing.assert_array_equal(table.inputs, np.outer(table.labels["label"] * 2, [1, 2]))
    both = data.tfds(
        NAME, "train", inputs=["image", "image/filename"], label={"a": "shape"}, data_dir=root
    ).table()
    names = [f"{image[0, 0, 0]}.png" for image in both.inputs["image"]]
    assert list(both.inputs["image/filename"]) == names and both.classes["a"][2] == "star"


def test_splits_and_slices(root):
    splits = data.tfds(NAME, data_dir=root)
    assert set(splits) == {"train", "test"}
    assert [len(splits[s].table()) for s in ("train[:5]", "train[50%:]+test", "all")] == [5, 12, 18]
    assert len(data.tfds(NAME, "train[3:5]", data_dir=root).table()) == 2
    with pytest.raises(ValueError, match=r"unknown split 'trian'\. Did you mean 'train'"):
        _ = splits.trian
    with pytest.raises(ValueError, match="unknown split 'tset'"):
        data.tfds(NAME, "tset[:2]", data_dir=root).table()


def test_images_of_many_sizes_need_a_size(root):
    with pytest.raises(ValueError, match=r"free: arrays of different sizes \(3x5x3, 4x5x3\)"):
        data.tfds(NAME, "train", inputs="free", data_dir=root).table()
    resized = data.tfds(NAME, "train", inputs="free", size=(2, 2), data_dir=root).table()
    assert resized.inputs.shape == (12, 2, 2, 3)
    np.testing.assert_array_equal(resized.inputs[:, 0, 0, 0], resized.labels["nested/id"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"inputs": "imag"}, "unknown feature 'imag'.* Did you mean 'image'"),
        ({"label": "sahpe"}, "Did you mean 'shape'"),
        ({"label": "tags"}, "'tags' .* cannot be read as an array"),
    ],
)
def test_wrong_features(root, options, message):
    with pytest.raises(ValueError, match=message):
        data.tfds(NAME, "train", data_dir=root, **options).table()


def test_the_environment_says_where_the_data_are(root, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert len(data.tfds(NAME).test.table()) == 6


@pytest.mark.parametrize("name", ["mnist", "emnist/letters", "cifar10:3.0.2", "usps"])
def test_an_unprepared_dataset_gives_the_command(tmp_path, name):
    splits = data.tfds(name, data_dir=tmp_path)
    handle = splits.train.few(3)  # a handle needs no data
    for use in (handle.table, lambda: list(splits)):
        command = f"python launch.py --prepare={name} --run.data_dir={tmp_path}"
        with pytest.raises(ValueError, match=f"dataset '{name}' is not prepared .*{command}$"):
            use()


def test_a_part_of_an_only_split_is_held_out(root, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    label = tfds.features.ClassLabel(num_classes=3)
    features = {"image": tfds.features.Image(shape=(2, 2, 1)), "label": label}
    examples = [{"image": png(np.full((2, 2), i, np.uint8)), "label": i % 3} for i in range(10)]
    prepare(tmp_path, "JaxtlTestWhole", features, {"all_of_it": examples})
    whole = data.tfds("jaxtl_test_whole", "all_of_it", data_dir=tmp_path).table().inputs
    splits = data.tfds("jaxtl_test_whole", holdout=0.25, data_dir=tmp_path)
    assert tuple(splits) == ("train", "test")
    np.testing.assert_array_equal(splits.train.table().inputs, whole[:8])
    np.testing.assert_array_equal(splits.test.table().inputs, whole[8:])
    with pytest.raises(ValueError, match="unknown split 'all_of_it'"):
        splits["all_of_it"].table()
    with pytest.raises(ValueError, match="leave out split='train'"):
        data.tfds("jaxtl_test_whole", "train", holdout=0.25, data_dir=tmp_path)
    with pytest.raises(ValueError, match="no examples"):
        data.tfds("jaxtl_test_whole", holdout=0.01, data_dir=tmp_path).test.table()
    left = data.tfds(NAME, holdout=0.5, data_dir=root)  # it has a test split
    assert len(left.train.table()) == 12 and len(left.test.table()) == 6


def test_an_unknown_dataset_names_the_closest(root):
    with pytest.raises(ValueError, match=f"Closest names: mnist.* Prepared in .*: {NAME}"):
        data.tfds("mnits", data_dir=root).train.table()
    with pytest.raises(ValueError, match=NAME):
        data.tfds("jaxtl_test_shape", data_dir=root).train.table()
    with pytest.raises(ValueError, match="Closest names: mnist"):
        data.prepare("mnits", root)
    with pytest.raises(ValueError, match="is not of the form"):
        data.tfds("a b", data_dir=root).train.table()


def test_versions_configs_and_formats(root, tmp_path):
    source = root / NAME / "1.0.0"
    for place in ("1.2.0", "1.10.0", "letters/1.0.0"):
        shutil.copytree(source, tmp_path / NAME / place)
    find = lambda name: tfds_folders.find_folder(name, str(tmp_path))  # noqa: E731
    assert find(NAME).name == "1.10.0" and find(f"{NAME}:1.2.0").name == "1.2.0"
    assert find(f"{NAME}/letters") == tmp_path / NAME / "letters" / "1.0.0"
    assert find(f"{NAME}:3.0.0") is None and find(f"{NAME}/other") is None
    assert tfds_folders.prepared_names(str(tmp_path)) == [NAME, f"{NAME}/letters"]
    default = tmp_path / NAME / ".config" / "metadata.json"
    default.parent.mkdir()
    default.write_text('{"default_config_name": "letters"}')
    assert find(NAME).parent.name == "letters"
    info = tmp_path / NAME / "letters" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="stored as tfrecord"):
        data.tfds(NAME, data_dir=tmp_path).train.table()


def test_known_names_are_those_of_tfds():
    known = tfds_folders.known_names()
    assert known >= {"mnist", "emnist", "cifar10", "svhn_cropped", "trec", "imdb_reviews", "usps"}
    assert not known & {"core", "task", "mnist_config"}


def test_a_builder_that_needs_tensorflow_says_so(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    if "tensorflow" in sys.modules:
        pytest.skip("TensorFlow is there")

    class JaxtlTestNeedsTf(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(4, 4, 1))
            features = tfds.features.FeaturesDict({"image": image})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"image": np.zeros((4, 4, 1), np.uint8)}

    name = "jaxtl_test_needs_tf"
    monkeypatch.setitem(tfds_folders.OWN, name, name)
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    tfds_folders.known_names.cache_clear()
    with pytest.raises(ValueError, match=r"needs TensorFlow.*pip install 'jaxtl\[prepare\]'"):
        data.prepare(name, tmp_path)
    tfds_folders.known_names.cache_clear()
    assert not (tmp_path / name).exists()


COUNTS = {
    "usps": {"train": [1194, 1005, 731, 658, 652, 556, 664, 645, 542, 644]},
    "mnist": {"test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]},
    "cifar10_part": {"test": [103, 89, 100, 103, 90, 86, 112, 102, 106, 109]},
}


@pytest.mark.parametrize("name", COUNTS)
def test_real_data(name):
    root = os.environ.get("TFDS_DATA_DIR")
    if not root or not Path(root, name).is_dir():
        pytest.skip(f"no {name} in TFDS_DATA_DIR")
    for split, counts in COUNTS[name].items():
        dataset = data.tfds(name)[split]
        data.validate(dataset)
        np.testing.assert_array_equal(np.bincount(dataset.table().labels["label"]), counts)
