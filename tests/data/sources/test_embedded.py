import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets as reference

from jaxtl import data


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes"])
def test_agrees_with_scikit_learn(name):
    splits = getattr(data, name)()
    options = {"scaled": False} if name == "diabetes" else {}
    truth = getattr(reference, f"load_{name}")(**options)
    train, test = splits.train.table(), splits.test.table()
    inputs = np.concatenate([train.inputs, test.inputs]).reshape(len(truth.data), -1)
    if name == "digits":
        inputs = np.rint(inputs * (16 / 255))
    ours = np.column_stack([inputs, np.concatenate([train.labels["label"], test.labels["label"]])])
    theirs = np.column_stack([truth.data, truth.target]).astype(np.float32)
    np.testing.assert_array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
    assert len(ours) == len(theirs)
    if name != "diabetes":
        assert splits.train.class_names() == tuple(map(str, truth.target_names))


@pytest.mark.parametrize("name", ["digits", "wine"])
def test_test_set_is_a_fifth_of_each_class(name):
    splits = getattr(data, name)()
    counts = [np.bincount(splits[split].table().labels["label"]) for split in ("train", "test")]
    np.testing.assert_array_equal(counts[1], np.rint(0.2 * (counts[0] + counts[1])))
    assert len(data.overlap(splits.train, splits.test)) == 0


def test_digits_are_images():
    table = data.digits().train.table()
    assert table.inputs.shape == (1438, 8, 8, 1) and table.inputs.dtype == np.uint8
    assert table.inputs.max() == 255


def test_nothing_heavy_is_imported():
    code = """
import sys
from jaxtl import data
data.digits().train.classes(range(5)).few(2).rows(0), data.tfds("mnist", data_dir="/nowhere").train
heavy = ("sklearn", "tensorflow_datasets", "PIL", "tensorflow", "grain", "scipy.ndimage")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
