"""Frames of pandas and polars as people have them: every column is read right, or told."""

import datetime
import decimal
import logging

import numpy as np
import pytest

from jaxtl import data
from jaxtl.data import digest

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

MAKE = {"pandas": pd.DataFrame, "polars": pl.DataFrame}
PLAIN = {"a": [1.5, 2, 3, 4], "b": [True, False, True, True], "y": ["u", "v", "u", "v"]}


@pytest.fixture(params=["pandas", "polars"])
def make(request):
    return MAKE[request.param]


def table(df, label="y", **options):
    return data.frame(df, label, **{"test": df} | options).train.table()


def fails(df, message, label="y", **options):
    with pytest.raises(ValueError, match=message) as error:
        table(df, label, **options)
    assert "\n" not in str(error.value) and str(error.value).startswith(("frame", "dataset "))


def test_a_plain_frame(make):
    read = table(make(PLAIN))
    assert read.inputs.dtype == np.float32 and read.columns == ("a", "b")
    assert read.inputs.tolist() == [[1.5, 1], [2, 0], [3, 1], [4, 1]]
    assert read.classes == {"label": ("u", "v")} and read.labels["label"].tolist() == [0, 1, 0, 1]
    splits = data.frame(make(PLAIN), "y", test=0.5)
    assert [len(splits[name].table()) for name in splits] == [2, 2]
    assert [*data.frame(make(PLAIN), None, drop=["y"])] == ["train"]


def test_a_csv_and_its_frame_are_the_same(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(
        "id,sex,size,y,z\n"
        + "".join(f"{i / 2},{'mf'[i % 2]},{i % 3},{i % 2},{i}\n" for i in range(9))
    )
    options = {"categorical": ["sex", "size"], "regression": ["z"], "test": 0.3}
    tables = [
        data.csv(file, ["y", "z"], **options),
        *(data.frame(df, ["y", "z"], **options) for df in (pd.read_csv(file), pl.read_csv(file))),
    ]
    for split in ("train", "test"):
        first, *others = (splits[split].table() for splits in tables)
        for other in others:
            np.testing.assert_array_equal(other.inputs, first.inputs)
            assert other.columns == first.columns and other.classes == first.classes
            for name in ("y", "z"):
                np.testing.assert_array_equal(other.labels[name], first.labels[name])


def test_types_of_categories_keep_their_order():
    kinds = pd.Categorical(["u", "w", "u"], categories=["w", "v", "u"])
    read = table(pd.DataFrame({"a": kinds, "b": [1, 2, 3], "y": kinds}))
    assert read.columns == ("a=w", "a=v", "a=u", "b")
    assert read.inputs[0].tolist() == [0, 0, 1, 1]
    assert read.classes == {"label": ("w", "v", "u")} and read.labels["label"].tolist() == [2, 0, 2]
    kind = pl.Enum(["w", "v", "u"])
    again = table(pl.DataFrame({"a": [*kinds], "b": [1, 2, 3], "y": [*kinds]},
                               schema_overrides={"a": kind, "y": kind}))  # fmt: skip
    assert again.columns == read.columns and again.classes == read.classes
    other = pl.Series("other", ["p", "q", "r"], dtype=pl.Categorical)
    loose = pl.DataFrame({"a": pl.Series(["u", "w", "u"], dtype=pl.Categorical), "y": other})
    assert table(loose).columns == ("a=u", "a=w") and table(loose).classes["label"] == (*"pqr",)
    numbers = pd.DataFrame({"a": pd.Categorical([10, 2, 10]), "y": [0, 1, 0]})
    assert table(numbers).columns == ("a=2", "a=10")


def test_train_and_test_declare_the_same_categories():
    first, last = (
        pd.DataFrame({"a": pd.Categorical(["u", "v"], categories=names), "y": [0, 1]})
        for names in ([*"uv"], [*"vu"])
    )
    fails(first, "column 'a' has other categories in frame train than in frame test", test=last)
    named = {"a": ["u", "v"]}
    splits = data.frame(first, "y", test=last, categorical=named)
    assert splits.test.table().inputs.tolist() == [[1, 0], [0, 1]]
    last["a"] = [1, 2]
    fails(first, "column 'a' holds categories in .*train, numbers in .*test", test=last)
    fails(first, "has other columns than .*missing a, new b", test=last.rename(columns={"a": "b"}))


def test_labels_of_every_type():
    labels = {
        "bool": [True, False, None],
        "int": pd.array([3, 1, None], dtype="Int64"),
        "float": [3.0, 1.0, np.nan],
        "text": ["v", "u", None],
        "object": np.array(["v", "NA", "u"], object),
        "value": [0.5, 1, np.nan],
    }
    read = table(pd.DataFrame(labels | {"a": [1, 2, 3]}), [*labels], regression=["value"])
    assert read.classes == {
        "bool": ("False", "True"), "int": ("1", "3"), "float": ("1", "3"), "text": ("u", "v"),
        "object": ("u", "v"),
    }  # fmt: skip
    expected = [1, 0, -1]
    assert all(read.labels[name].tolist() == expected for name in ("bool", "int", "float", "text"))
    assert read.labels["object"].tolist() == [1, -1, 0]
    np.testing.assert_array_equal(read.labels["value"], np.float32([0.5, 1, np.nan]))
    polars = table(pl.DataFrame({"a": [1, 2], "y": [True, None]}))
    assert polars.classes["label"] == ("True",) and polars.labels["label"].tolist() == [0, -1]


def test_numbers_of_every_type():
    frame = pd.DataFrame({"y": [0, 1], "a": pd.array([1, 2], dtype="Int64"), "b": [True, False]})
    frame["c"] = pd.array([True, False], dtype="boolean")
    frame["d"], frame["e"] = pd.arrays.SparseArray([0, 5]), np.float16([1, 2])
    frame["f"], frame["g"] = np.array([1, 2.5], object), np.uint64([2**40, 1])
    frame.index = [7, 7]
    expected = [[1, 1, 1, 0, 1, 1, 2**40], [2, 0, 0, 5, 2, 2.5, 1]]
    assert table(frame).inputs.tolist() == expected
    wide = pl.DataFrame({"y": [0, 1], "a": pl.Series([1, 2], dtype=pl.Int128), "b": [1.5, 2]})
    assert table(wide).inputs.tolist() == [[1, 1.5], [2, 2]]


DAY = datetime.date(2020, 1, 1)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([DAY, DAY], "column 'a' holds (dates|values of the types date)"),
        ([datetime.datetime(2020, 1, 1)] * 2, "column 'a' holds times; give numbers"),
        ([datetime.timedelta(1)] * 2, "column 'a' holds spans of time; give numbers"),
        ([decimal.Decimal(1)] * 2, "column 'a' holds (decimals|values of the types Decimal)"),
        ([[1], [2]], "column 'a' holds (lists|values of the types list)"),
        ([b"x", b"y"], "column 'a' holds (bytes|values of the types bytes)"),
        ([{"p": 1}] * 2, "column 'a' holds (structures|values of the types dict)"),
        ([None, None], "column 'a' holds no value"),
        ([1.0, None], "column 'a': missing values in 1 of 2 rows, first in row 1; fill them in"),
        ([True, None], "column 'a': missing values in 1 of 2 rows, first in row 1; fill them in"),
        ([1.0, float("inf")], "column 'a' holds inf in row 1, which float32 does not"),
        ([1e39, 1], "column 'a' holds 1e\\+39 in row 0, which float32"),
        ([2**60 + 1, 1], "column 'a' holds whole numbers beyond 2\\*\\*53"),
        (["p", "q"], r"texts in 'a': if they are categories, pass categorical=\['a'\]; what"),
    ],
)
def test_columns_that_are_no_numbers(make, column, message):
    fails(make({"a": column, "y": [0, 1]}), message)


def test_all_problems_at_once(make):
    df = make({"a": ["p", "q"], "b": ["p", "q"], "c": [None, 1.0], "d": [DAY] * 2, "y": [0, 1]})
    fails(df, r"categorical=\['a', 'b'\].*; column 'c': missing.*; column 'd' holds")
    fails(df, r"texts in 'b'.*categorical=\['a', 'b'\]", categorical=["a"], columns=["a", "b"])


def test_pandas_alone(caplog):
    fails(pd.DataFrame({"a": [1, "x"], "y": [0, 1]}), "column 'a' holds values of the types str")
    fails(pd.DataFrame({"a": [1, 2], "y": [0, "x"]}), "column 'y' holds values of the types int, s")
    fails(pd.DataFrame({"a": [1j, 2], "y": [0, 1]}), "'a' holds complex numbers")
    fails(pd.DataFrame({"a": [[1], [2]], "y": [[0], [1]]}), "column 'y' holds .* name nothing")
    levels = pd.DataFrame(np.eye(2), columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)]))
    fails(levels, r"names on several levels, such as \('a', 1\); give each one name")
    twice = pd.DataFrame([[1, 2, 3]], columns=["a", "y", "a"])
    fails(twice, "'a' is the name of the columns 1 and 3")
    fails(
        pd.DataFrame([[1, 2, 3]], columns=[1, "y", "1"]), "'1' is the name of the columns 1 and 3"
    )
    alike = pd.DataFrame({"a": pd.Categorical(["1", "1.0"]), "y": [0, 1]})
    fails(alike, "column 'a' classes of column 'a': named twice: 1")
    scalars = pd.DataFrame({"a": np.array([np.str_("p"), np.str_("q")], object), "y": [0, 1]})
    fails(scalars, "texts in 'a'")
    numbered = pd.DataFrame([[1, 2, 0], [3, 4, 1]])
    assert table(numbered, "2").columns == ("0", "1")
    index = pd.DataFrame({"Unnamed: 0": [0, 1], "a": [5, 7], "y": [0, 1]})
    assert table(index).columns == ("a",) and "column 1 has no name ('Unnamed: 0')" in caplog.text
    index["Unnamed: 0"] = [1.5, 2]
    fails(index, "column 1 has no name .* and more than row numbers; name or remove it")
    index["Unnamed: 0"] = [[1], [2]]
    fails(index, "column 'Unnamed: 0' holds values of the type list")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": [1], "y": [0]}, r"expected a DataFrame of pandas or polars, got dict; pandas\.Data"),
        (np.eye(2), "got ndarray"),
        (pd.Series([1]), "got Series; to_frame"),
        (pl.LazyFrame({"a": [1]}), "got LazyFrame; collect"),
        (pd.DataFrame({"a": [], "y": []}), "has no rows"),
        (pd.DataFrame(), "unknown column 'y'"),
        (pd.DataFrame({"y": [1]}), "has no column of inputs beside 'y'"),
    ],
)
def test_what_is_no_frame(given, message):
    fails(given, message, test=0.5)


def test_arguments_of_another_kind():
    df = pd.DataFrame(PLAIN)
    fails(df, "test must be a fraction between 0 and 1 or another table, got 2", test=2)
    fails(df, "expected a DataFrame of pandas or polars, got str", test="file.csv")
    fails(df, "unknown column 'z'", "z")
    fails(df, "'y' is a label, so it is no input", columns=["a", "y"])
    fails(pd.DataFrame({"a": [1, 2], "y": [0.5, 1]}), "'0.5' is no whole number; pass regression")
    fails(pd.DataFrame({"a": [1, 2], "y": [None, None]}), "all labels are missing")


def test_names_as_people_write_them(make):
    df = make({"größe (cm)": [1, 2], " blank ": [3, 4], "y y": ["日本", "é"]})
    read = table(df, "y y")
    assert read.columns == ("größe (cm)", "blank") and read.classes["label"] == ("é", "日本")


def test_content_counts_and_is_copied(make):
    def now(df):
        read = table(df)
        return digest.of_rows(read.inputs, np.arange(4)), digest.of_arrays(read.labels)

    before = now(make(PLAIN))
    assert now(make(PLAIN)) == before
    assert now(make(PLAIN | {"a": [1.5, 2, 3, 5]}))[0] != before[0]
    assert now(make(PLAIN | {"y": [*"uvuu"]}))[1] != before[1]
    df = pd.DataFrame(PLAIN)
    dataset = data.frame(df, "y", test=df).train
    df.loc[0, "a"] = 99
    assert dataset.table().inputs[0, 0] == 1.5


def test_row_numbers_are_told(make, caplog):
    df = make({"id": range(12), "a": [1.5, 2] * 6, "y": [0, 1] * 6})
    with caplog.at_level(logging.WARNING):
        table(df)
    assert "column 'id', which numbers the rows, is an input" in caplog.text
