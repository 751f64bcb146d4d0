"""Rows of tables with names and categories: prepared by what a run wrote down, without the data."""

import json

import jax
import numpy as np
import pytest

from jaxtl import data, models
from jaxtl.export.files import entry
from jaxtl.export.predictor import Predictor
from jaxtl.export.recipe import read_recipe
from jaxtl.models import classes
from jaxtl.plan import Method, Stage, State
from jaxtl.train.store.preprocessing import preparation

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

ROWS = {
    "age": [20, 35, 50, 65],
    "sex": ["male", "female", "female", "male"],
    "floor": [2, 10, 1, 10],
    "name": ["a", "b", "c", "d"],
    "y": [0, 1, 0, 1],
}
ENCODED = np.float32(  # age, sex=female, sex=male, floor=1, floor=2, floor=10
    [[20, 0, 1, 0, 1, 0], [35, 1, 0, 0, 0, 1], [50, 1, 0, 1, 0, 0], [65, 0, 1, 0, 0, 1]]
)
NAMES = ("age", "sex=female", "sex=male", "floor=1", "floor=2", "floor=10")
OPTIONS = {"drop": ["name"], "categorical": ["sex", "floor"]}


def predictor_of(dataset, folder):
    """Of a model as it is initialised, with the dataset's recipe as it comes back from a file."""
    record = json.loads(json.dumps(preparation(folder, dataset)))
    recipe, model = read_recipe(record, dataset, folder), models.linear({"y": classes(2)})
    rows = dataset.table().inputs[:1]
    params, state = model.init(jax.random.key(1), rows)
    inputs = jax.ShapeDtypeStruct(rows.shape, rows.dtype)
    stage = Stage("made", model, Method(), domains=[], batch_size=1, num_steps=0)
    return Predictor(
        model, params, State(state), {}, inputs, "a", (stage,), 0, {"test": recipe}, "test"
    )


def table_of(kind, folder):
    """Train and test of the rows, both whole."""
    if kind == "csv":
        files = folder / "rows.csv", folder / "test.csv"
        for file in files:
            pd.DataFrame(ROWS).to_csv(file, index=False)
        return data.csv(files[0], "y", test=files[1], **OPTIONS).train
    make = {"pandas": pd.DataFrame, "polars": pl.DataFrame}[kind]
    return data.frame(make(ROWS), label="y", test=make(ROWS), **OPTIONS).train


@pytest.mark.parametrize("kind", ["csv", "pandas", "polars"])
def test_rows_as_people_hold_them(kind, tmp_path):
    dataset = table_of(kind, tmp_path)
    np.testing.assert_array_equal(dataset.table().inputs, ENCODED)
    assert dataset.table().columns == NAMES
    standardized = dataset.standardize()
    predictor = predictor_of(standardized, tmp_path)
    inputs = standardized.table().inputs
    expected = predictor.predict(inputs, raw=False)["logits"]["y"]
    assert np.std(expected) > 0.1
    by_name = {name: ROWS[name] for name in reversed(ROWS)}
    dicts = [dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]
    in_order = [[*row] for row in zip(ROWS["age"], ROWS["sex"], ROWS["floor"], strict=True)]
    for rows in (
        by_name,
        dicts,
        in_order,
        np.array(in_order, object),
        pd.DataFrame(by_name),
        pd.DataFrame(ROWS).astype({"sex": "category", "floor": "float"}),
        pl.DataFrame(ROWS),
        pl.DataFrame(ROWS).with_columns(pl.col("sex").cast(pl.Categorical)),
    ):
        np.testing.assert_allclose(predictor.predict(rows)["logits"]["y"], expected, atol=1e-6)
    for rows in ([], pd.DataFrame(ROWS)[:0], pl.DataFrame(ROWS)[:0], {name: [] for name in ROWS}):
        assert predictor.predict(rows)["logits"]["y"].shape == (0, 2)
    assert "['sex'] str[n]" in repr(predictor)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"sex": ["mail"]}, "'sex', row 0: unknown category 'mail'. Did you mean 'male'.* female"),
        ({"sex": [None]}, "column 'sex': a category is missing in 1 rows, first in row 0"),
        ({"sex": "male"}, "column 'sex': must be a list of a value for each row, got 'male'"),
        ({"age": 3}, "column 'age': must be a list of a value for each row, got 3"),
        ({"floor": [3]}, "unknown category '3'.*Known: 1, 10, 2"),
        ({"age": ["old"]}, r"\['age'\] <U3 is not a dtype of numbers"),
        ({"age": [float("nan")]}, r"\['age'\] 1 values in 1 of 1 rows are not finite"),
        ({"age": [1, 2]}, "different numbers of rows"),
    ],
)
def test_rows_that_are_none(rows, message, tmp_path):
    predictor = predictor_of(table_of("polars", tmp_path), tmp_path)
    row = {name: values[:1] for name, values in ROWS.items()}
    predictor.predict(row)
    with pytest.raises(ValueError, match=message):
        predictor.predict(row | rows)
    del row["sex"]
    with pytest.raises(ValueError, match=r"lack the columns 'sex'.* Needed: age, sex, floor"):
        predictor.predict(pd.DataFrame(row))
    for rows in ([[1, "male"]], [1], 3, "male", [[1, "male", 2], [1]]):
        with pytest.raises(ValueError, match="rows of 3 columns are expected"):
            predictor.predict(rows)
    with pytest.raises(ValueError, match="row 1 lacks the column 'sex'"):
        predictor.predict([dict.fromkeys(ROWS, 1), {"age": 3, "floor": 1}])


def test_numbers_are_found_by_name_too(tmp_path):
    df = pd.DataFrame({"a": [1.0, 2, 3], "b": [5.0, 7, 9], "y": [0, 1, 0]})
    dataset = data.frame(df, label="y", test=df).train
    predictor = predictor_of(dataset, tmp_path)
    expected = predictor.predict(df[["a", "b"]].to_numpy())["logits"]["y"]
    for rows in (df, df[["y", "b", "a"]], df.to_dict("list"), df.to_dict("records")):
        np.testing.assert_array_equal(predictor.predict(rows)["logits"]["y"], expected)
    with pytest.raises(ValueError, match="lack the columns 'b'"):
        predictor.predict(df[["a"]])
    with pytest.raises(ValueError, match=r"different numbers of rows: {'a': 1, 'b': 2}"):
        predictor.predict({"a": [1], "b": [1, 2]})
    assert entry(predictor, "stablehlo").before == ()


def test_a_program_goes_on_from_the_encoded_rows(tmp_path):
    predictor = predictor_of(table_of("csv", tmp_path).standardize(), tmp_path)
    before, inside = predictor.recipe().split
    assert [action.name for action in before] == ["one_hot"]
    assert [action.name for action in inside] == ["standardize"]
    assert before[0].about["columns"][1] == ["sex", ["female", "male"]]
