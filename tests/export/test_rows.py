"""Rows as they are given: what is taken for what, and what is refused."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis.extra.numpy import arrays

from jaxtl.export.rows import check_indices, read_rows

IMAGE = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1) * 36


def spec(dtype, *shape):
    return jax.ShapeDtypeStruct((1, *shape), dtype)


FLOAT_IMAGE, LEVELS = spec(np.float32, 2, 2, 1), spec(np.uint8, 2, 2, 1)
UNIT, WIDE = [[0.0, 0.99]], [[0.0, 254.0]]


@pytest.mark.parametrize(
    ("given", "wanted", "ranges", "expected"),
    [
        (IMAGE.astype(np.uint16), LEVELS, (), IMAGE),
        (IMAGE.astype(np.int32), LEVELS, (), IMAGE),
        (IMAGE / 255, LEVELS, (), np.float32(IMAGE / 255)),
        (IMAGE, FLOAT_IMAGE, UNIT, np.float32(IMAGE) / 255),
        (IMAGE.astype(np.int64), FLOAT_IMAGE, UNIT, np.float32(IMAGE) / 255),
        (IMAGE.astype(np.uint16) * 257, FLOAT_IMAGE, UNIT, np.float32(IMAGE) / 255),
        (IMAGE / 255, FLOAT_IMAGE, UNIT, np.float32(IMAGE / 255)),
        (IMAGE.astype(float), FLOAT_IMAGE, WIDE, np.float32(IMAGE)),
        (IMAGE / 100 - 1, FLOAT_IMAGE, [[-2.0, 2.0]], np.float32(IMAGE / 100 - 1)),
        ([[1, 2]], spec(np.float32, 2), (), np.float32([[1, 2]])),
        (np.uint8([[1, 2]]), spec(np.float32, 2), (), np.float32([[1, 2]])),  # no image: no /255
        ([[True, False]], spec(np.float32, 2), (), np.float32([[1, 0]])),
        ([[1.0, 2.0]], spec(np.int32, 2), (), np.int32([[1, 2]])),
        (np.uint8([[7]]), spec(np.int32, 1), (), np.int32([[7]])),
        (["a", b"b"], spec(object), (), np.array(["a", b"b"], object)),
    ],
)
def test_what_is_taken(given, wanted, ranges, expected):
    found = read_rows(given, wanted, ranges)
    if found.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.dtype == expected.dtype
    else:
        np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize(
    ("given", "wanted", "ranges", "expected"),
    [
        (
            IMAGE.astype(float),
            LEVELS,
            (),
            "7 values in 2 of 2 rows are outside [0, 1]; the data are",
        ),
        (IMAGE.astype(np.uint16) * 257, LEVELS, (), "7 values in 2 of 2 rows are outside 0 to 255"),
        (
            IMAGE.astype(float),
            FLOAT_IMAGE,
            UNIT,
            "7 values in 2 of 2 rows are outside [0, 1], where",
        ),
        (IMAGE / 100 - 1, FLOAT_IMAGE, UNIT, "outside [0, 1], where the data lie"),
        (IMAGE, FLOAT_IMAGE, WIDE, "uint8; the data are floats from 0 to 254"),
        (
            IMAGE.astype(np.int64),
            FLOAT_IMAGE,
            [[-2.0, 2.0]],
            "int64; the data are floats from -2 to",
        ),
        (IMAGE.astype(np.uint16), FLOAT_IMAGE, UNIT, "uint16 images of at most 255: give them as"),
        (IMAGE.astype(np.int32) * 9, FLOAT_IMAGE, UNIT, "are outside 0 to 255"),
        ([[2**40]], spec(np.int32, 1), (), "1 values in 1 of 1 rows are outside int32"),
        ([[0.5], [np.nan], [1]], spec(np.int32, 1), (), "2 values in 2 of 3 rows are no whole"),
        ([[2]], spec(np.bool_, 1), (), "neither 0 nor 1"),
        (["a", np.nan, 3], spec(object), (), "2 of 3 rows are no texts, such as nan"),
        ([[1], [2]], {"a": spec(np.float32, 1)}, (), "expected {a}, got list"),
        ({"b": [[1]]}, {"a": spec(np.float32, 1)}, (), "expected {a}, got {b}"),
        ([[[1]]], (spec(np.float32, 1),) * 2, (), "expected 2 parts, got list"),
        (
            {"a": [[1.0]], "b": [[1.0], [2.0]]},
            {"a": spec(np.float32, 1), "b": spec(np.float32, 1)},
            (),
            "different numbers of rows: {\"['a']\": 1, \"['b']\": 2}",
        ),
        (
            {"a": [["x"]], "b": [[[1.0]]]},
            {"a": spec(np.float32, 1), "b": spec(np.float32, 1)},
            (),
            "['a'] <U1 is not a dtype of numbers\n  ['b'] float64[1, 1, 1] has 3 axes, not 2",
        ),
    ],
)
def test_what_is_refused(given, wanted, ranges, expected):
    with pytest.raises(ValueError) as error:
        read_rows(given, wanted, ranges)
    assert expected in str(error.value)


def test_levels_of_which_something_is_computed():
    assert read_rows(IMAGE / np.float32(255), LEVELS, exact=True).dtype == np.uint8
    with pytest.raises(ValueError, match="7 values in 2 of 2 rows are no multiples of 1/255"):
        read_rows(IMAGE / 256, LEVELS, exact=True)
    with pytest.raises(ValueError, match="8 values in 2 of 2 rows are no multiples of 1/255"):
        read_rows(np.full(IMAGE.shape, -1 / 255), LEVELS, exact=True)


NUMBERS = st.sampled_from(
    ["u1", "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", "?", "O", "U2", "c8"]
)
SHAPES = st.sampled_from([(2, 2, 2, 1), (3, 2), (2,), (2, 2, 2)])


@hypothesis.settings(max_examples=200, deadline=None, database=None)
@hypothesis.given(st.data())
def test_any_rows_are_read_as_what_they_are_or_refused(draw):
    dtype = draw.draw(NUMBERS)
    values = st.integers(-5, 300) | st.floats() if dtype == "O" else None
    given = draw.draw(arrays(dtype, draw.draw(SHAPES), elements=values))
    wanted = draw.draw(st.sampled_from([LEVELS, FLOAT_IMAGE, spec("f4", 2), spec("i4", 2)]))
    limits = draw.draw(st.sampled_from([UNIT, WIDE, [None]]))
    try:
        rows = read_rows(given, wanted, limits)
    except ValueError:
        return
    assert rows.shape == given.shape and given.dtype.kind in "biufO"
    scale = 1
    if wanted is FLOAT_IMAGE and given.dtype.kind in "iu":
        scale = 65535 if given.dtype == np.uint16 else 255
        assert limits is not WIDE
    if wanted is LEVELS and rows.dtype == np.uint8:
        assert given.dtype.kind in "iu"
    elif wanted in (LEVELS, FLOAT_IMAGE) and limits is UNIT:
        assert rows.min() >= -0.01 and rows.max() <= 1.01
    with np.errstate(over="ignore"):
        expected = given.astype(float) / scale
        expected = expected.astype(np.float32) if rows.dtype == np.float32 else expected
    np.testing.assert_allclose(rows.astype(float), expected.astype(float), rtol=1e-6)


def test_indices():
    rows = {"ids": np.array([[3, 0], [4, 1]]), "mask": np.array([[9, 9], [9, 9]])}
    check_indices(rows, {"['ids']": 5})
    with pytest.raises(ValueError, match=r"^\['ids'\] 2 values in 2 of 2 rows are outside 0 to 3"):
        check_indices({**rows, "ids": rows["ids"] + 1}, {"['ids']": 4})
