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
