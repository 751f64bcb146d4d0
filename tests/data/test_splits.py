import copy
import pickle

import numpy as np
import pytest

from jaxtl import data


def test_splits_are_a_mapping_with_attributes():
    train, test = (data.arrays(np.zeros((n, 2, 2, 1)), np.zeros(n, int)) for n in (3, 2))
    splits = data.Splits(train=train, test=test)
    assert splits.train is train and splits["test"] is test
    assert list(splits) == ["train", "test"] and len(splits) == 2 and "train" in splits
    assert "other" not in splits and dict(splits) == {"train": train, "test": test}
    assert not hasattr(splits, "__array__")
    assert copy.copy(splits).train is train


def test_operations_apply_to_every_split_lazily():
    asked = []

    def find(name):
        asked.append(name)
        return data.arrays(np.zeros((3, 2, 2, 1), np.uint8), np.arange(3), name=name)

    splits = data.Splits.lazy(find, lambda: ("train", "test")).resize((4, 4)).classes([2])
    assert asked == []
    assert splits.test.table().inputs.shape == (3, 4, 4, 1) and asked == ["test"]
    assert splits.test.name == "test.resize(4x4).classes(2)"


def test_an_unknown_split_names_the_closest():
    with pytest.raises(ValueError, match=r"unknown split 'trian'\. Did you mean 'train'"):
        _ = data.digits().classes([1]).trian


def test_handles_can_be_pickled():
    few = data.digits().train.classes(range(5)).few(3)
    assert pickle.loads(pickle.dumps(few)) == few


def test_splits_are_standardized_like_others():
    rng = np.random.default_rng(0)
    labels = np.zeros(20, int)
    train, test, other = (
        data.arrays(rng.normal(mean, 2.0, (20, 3)), labels) for mean in (0.0, 1.0, 5.0)
    )
    raw = {name: each.table().inputs for name, each in {"train": train, "other": other}.items()}
    expected = (raw["other"] - raw["train"].mean(0)) / raw["train"].std(0)
    for like in (train, data.Splits(train=train, test=test)):
        splits = data.Splits(test=other).standardize(like=like)
        np.testing.assert_allclose(splits.test.table().inputs, expected, rtol=1e-5, atol=1e-6)
    assert data.Splits(train=train, test=other).standardize().test == splits.test
