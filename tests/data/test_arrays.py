"""What inputs may be, and the one rule of their ranges."""

import hypothesis.extra.numpy as arrays_of
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtl import data, models


def inputs_of(inputs, n=2):
    return data.arrays(inputs, np.zeros(n, int)).table().inputs


def seen(inputs):
    """What a model gets."""
    return np.asarray(models.to_float(inputs))


def images(values, dtype):
    return np.array(values, dtype).reshape(2, 1, 1, 1)


@pytest.mark.parametrize(
    "values, dtype, expected",
    [
        ([0, 255], np.uint8, [0, 1]),
        ([0, 255], np.int64, [0, 1]),
        ([51, 204], np.int32, [0.2, 0.8]),
        ([0, 65535], np.uint16, [0, 1]),
        ([13107, 100], np.uint16, [0.2, 100 / 65535]),
        ([0.25, 1.0], np.float64, [0.25, 1.0]),
        ([-1.5, 300.0], np.float32, [-1.5, 300.0]),
        ([False, True], np.bool_, [0, 1]),
    ],
)
def test_images_of_every_type_reach_a_model_in_one_range(values, dtype, expected, tmp_path):
    held = images(values, dtype)
    np.testing.assert_allclose(seen(inputs_of(held)).ravel(), expected, rtol=1e-6)
    on_disk = np.memmap(tmp_path / "images", held.dtype, "w+", shape=held.shape)
    on_disk[:] = held
    np.testing.assert_allclose(seen(inputs_of(on_disk)[:]).ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("values", [[0, 256], [-1, 4], [1023, 5]])
def test_integer_images_beyond_a_byte_are_refused(values, tmp_path):
    held = images(values, np.int32)
    with pytest.raises(ValueError, match=r"images of int32 from .*0\.\.255.*floats in \[0, 1\]"):
        inputs_of(held)
    on_disk = np.memmap(tmp_path / "images", held.dtype, "w+", shape=held.shape)
    on_disk[:] = held
    with pytest.raises(ValueError, match="beyond 0 to 255"):
        inputs_of(on_disk)[:]


@pytest.mark.parametrize(
    "inputs, message",
    [
        (np.array([[2**31], [0]]), "do not fit int32"),
        (np.array([[2**63], [0]], np.uint64), "do not fit int32"),
        (np.zeros((2, 3), complex), "complex128"),
        (np.zeros((2, 3), "M8[s]"), "datetime64"),
        (np.array([[None], [{}]]), "objects"),
        ([np.zeros((4, 4)), np.zeros((5, 4))], "different sizes"),
        ({}, "there are no inputs"),
        ({"x": 1.0}, "single number"),
        (np.zeros((3, 2)), "different numbers of rows"),
    ],
)
def test_inputs_that_are_refused(inputs, message):
    with pytest.raises(ValueError, match=f"arrays 'arrays': .*{message}"):
        inputs_of(inputs)


def test_lists_of_images_texts_and_rows():
    pictures = [PIL.Image.new("RGB", (3, 2), (255, 0, 0))] * 2
    assert inputs_of(pictures).shape == (2, 2, 3, 3) and inputs_of(pictures).dtype == np.uint8
    assert inputs_of([np.zeros((4, 4, 1))] * 2).shape == (2, 4, 4, 1)
    assert inputs_of(["some text", "other"]).tolist() == ["some text", "other"]
    assert inputs_of(np.array(["some text", "other"])).dtype == object
    np.testing.assert_array_equal(inputs_of([[1, 2], [3, 4]]), [[1, 2], [3, 4]])
    one, two = inputs_of((np.zeros((2, 3)), np.zeros((2, 4))))
    assert (one.shape, two.shape) == ((2, 3), (2, 4))


def test_a_large_offset_is_not_rounded_away():
    small = np.random.default_rng(0).normal(size=(50, 2))
    far = data.arrays(small + np.array([1e9, 0]), np.zeros(50, int))
    expected = (small - small.mean(0)) / small.std(0)
    np.testing.assert_allclose(far.standardize().table().inputs, expected, atol=2e-4)
    assert far.standardize().table().inputs.dtype == np.float32
    with pytest.raises(ValueError, match=r"vary by too little for float32.*standardize"):
        data.validate(far)
    data.validate(far.standardize())


def test_integers_are_standardized():
    table = data.arrays(np.array([[1, 7], [3, 7], [5, 7]]), [0, 1, 0]).standardize().table()
    np.testing.assert_allclose(table.inputs[:, 0], np.sqrt(1.5) * np.array([-1, 0, 1]), rtol=1e-6)
    np.testing.assert_array_equal(table.inputs[:, 1], 0)


def test_what_cannot_be_standardized():
    ids = np.zeros((2, 4), int)
    with pytest.raises(ValueError, match="token ids"):
        data.arrays({"ids": ids, "mask": ids}, [0, 1]).standardize().table()
    with pytest.raises(ValueError, match="not finite cannot be standardized"):
        data.arrays([[np.nan], [1.0]], [0, 1]).standardize().table()


@given(
    st.sampled_from(["u1", "u2", "u4", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]).flatmap(
        lambda kind: arrays_of.arrays(
            kind,
            st.sampled_from([(3, 2, 2, 1), (3, 2)]),
            elements=None if kind[0] != "f" else {"allow_nan": False, "allow_infinity": False},
        )
    )
)
def test_numbers_of_any_type_come_back_or_are_refused(values):
    try:
        held = inputs_of(values, 3)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    if held.dtype == np.uint8:
        np.testing.assert_array_equal(held, values)
    elif values.dtype == np.uint16 and values.ndim == 4:
        np.testing.assert_allclose(held, values / 65535, rtol=1e-6)
    elif np.isfinite(held).all():
        np.testing.assert_allclose(held, values, rtol=1e-6, atol=1e-38)
    else:
        assert np.abs(values).max() > np.finfo(np.float32).max


def test_without_labels():
    for inputs in ([[1, 2.5], [3, 4]], np.array([[1, 2.5], [3, 4]])):
        dataset = data.arrays(inputs, None)
        assert dataset.table().inputs.tolist() == [[1, 2.5], [3, 4]]
        assert dataset.table().labels == {} and dataset.rows(0).tolist() == [0, 1]
    assert data.arrays(["a", "bc"], None).table().inputs.tolist() == ["a", "bc"]
    with pytest.raises(ValueError, match="unknown label column 'label'"):
        data.arrays([[1.0]], None, classes=["a"])
