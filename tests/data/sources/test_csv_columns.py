"""CSV files of which some columns are inputs, categories or labels, and others are nothing."""

import numpy as np
import pytest

from jaxtl import data
from jaxtl.data import digest

TITANIC = """\
name,sex,age,port,class,survived
Ann,female,30,C,1,1
Bob,male,40,S,3,0
Cid,male,,S,2,0
Dan,male,20,Q,3,0
Eve,female,10,C,1,1
"""
CLEAN = TITANIC.replace("Cid,male,,", "Cid,male,50,")


@pytest.fixture
def ships(tmp_path):
    file, copy = tmp_path / "ships.csv", tmp_path / "copy.csv"
    for path in (file, copy):
        path.write_text(CLEAN)
    return {"path": file, "test": copy}


def table(ships, label="survived", **options):
    return data.csv(label=label, **ships | options).train.table()


def fails(ships, message, label="survived", **options):
    with pytest.raises(ValueError, match=message) as error:
        table(ships, label, **options)
    assert "\n" not in str(error.value)


def test_columns_are_chosen_in_order(ships):
    chosen = table(ships, columns=["class", "age"])
    assert chosen.inputs.tolist() == [[1, 30], [3, 40], [2, 50], [3, 20], [1, 10]]
    assert chosen.columns == ("class", "age") and chosen.classes == {"label": ("0", "1")}
    rest = table(ships, drop=["name", "sex", "port"])
    assert rest.columns == ("age", "class")
    np.testing.assert_array_equal(rest.inputs, chosen.inputs[:, ::-1])


def test_categories_are_inputs_of_zero_and_one(ships):
    encoded = table(ships, drop=["name"], categorical=["port", "class", "sex"])
    assert encoded.columns == (
        *("sex=female", "sex=male", "age", "port=C", "port=Q", "port=S"),
        *("class=1", "class=2", "class=3"),
    )
    assert encoded.inputs.dtype == np.float32
    assert encoded.inputs[3].tolist() == [0, 1, 20, 0, 1, 0, 0, 0, 1]
    named = {"sex": ["male", "other", "female"], "port": None}
    encoded = table(ships, columns=["sex", "port"], categorical=named)
    assert encoded.columns == ("sex=male", "sex=other", "sex=female", "port=C", "port=Q", "port=S")
    assert encoded.inputs[0].tolist() == [0, 0, 1, 1, 0, 0]


def test_categories_of_train_and_test_are_the_same(ships):
    ships["test"].write_text(CLEAN.replace("Q", "T"))
    splits = data.csv(label="survived", **ships, columns=["port"], categorical=["port"])
    assert splits.train.table().columns == splits.test.table().columns
    assert splits.test.table().columns == ("port=C", "port=Q", "port=S", "port=T")
    assert splits.test.table().inputs[3].tolist() == [0, 0, 0, 1]
    parts = data.csv(ships["path"], None, test=0.4, columns=["port"], categorical=["port"])
    assert (
        parts.train.table().columns == parts.test.table().columns == ("port=C", "port=Q", "port=S")
    )
    with pytest.raises(ValueError, match="column 'port', row 3: unknown category 'T'"):
        categories = {"port": ["C", "Q", "S"]}
        data.csv(ships["test"], None, columns=["port"], categorical=categories).train.table()


def test_numbers_that_are_the_same_are_one_category(ships):
    ships["path"].write_text("a,y\n1,u\n1.0,v\n2.50,u\n007,v\n")
    ships["test"].write_text("a,y\n+1,u\n2.5,v\n7,v\n")
    assert table(ships, "y", categorical=["a"]).columns == ("a=1", "a=2.5", "a=007", "a=7")


def test_categories_that_are_numbers_are_in_their_order(ships):
    ships["path"].write_text("a,y\n10,u\n-2,v\n9,u\n2.5,v\n")
    read = table(ships, "y", categorical=["a"], test=0.5)
    assert read.columns == ("a=-2", "a=2.5", "a=9", "a=10")


def test_no_labels(ships):
    splits = data.csv(ships["path"], None, columns=["age"])
    assert list(splits) == ["train"] and len(splits.train.table()) == 5
    assert splits.train.table().labels == {}
    assert [*data.csv(ships["path"], label=None, columns=["age"], test=0.4)] == ["train", "test"]
    assert len(data.csv(ships["path"], {}, columns=["age"]).train.rows(0)) == 5


def test_several_labels_each_missing_by_itself(ships):
    ships["path"].write_text("a,kind,size,port\n1,u,2.5,C\n2,,3,?\n3,v,NA,S\n")
    ships["test"].write_text("a,kind,size,port\n1,w,2.5,C\n")
    read = table(ships, ["kind", "size", "port"], regression=["size"])
    assert read.classes == {"kind": ("u", "v", "w"), "port": ("C", "S")}
    assert read.inputs.tolist() == [[1], [2], [3]]
    known = {name: read.known(name).tolist() for name in read.labels}
    assert known == {
        "kind": [True, False, True], "size": [True, True, False], "port": [True, False, True]
    }  # fmt: skip
    several = {"what": "kind", "where": "port"}
    read = table(ships, several, columns=["a"], classes={"what": ["w", "v", "u"]})
    assert read.labels["what"].tolist() == [2, -1, 1] and list(read.labels) == ["what", "where"]


def test_equal_handles_load_the_same(ships):
    def handle():
        return data.csv(label="survived", **ships, drop=["name"], categorical=["sex", "port"]).train

    assert handle() == handle() and handle().table() is handle().table()


def test_digests_tell_edited_categories(ships):
    def now():
        read = table(ships, columns=["port"], categorical=["port"])
        return digest.of_rows(read.inputs, np.arange(len(read)))

    before = now()
    assert now() == before
    ships["path"].write_text(CLEAN.replace("Dan,male,20,Q", "Dan,male,20,C"))
    assert now() != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["agee"]}, "unknown column 'agee'. Did you mean 'age'"),
        ({"drop": ["nam"]}, "unknown column 'nam'. Did you mean 'name'"),
        ({"drop": ["name"], "categorical": ["prt"]}, "unknown column 'prt'. Did you mean 'port'"),
        ({"columns": ["age"], "drop": ["name"]}, "give one of the two"),
        ({"columns": ["age", "survived"]}, "'survived' is a label, so it is no input; .*columns="),
        ({"drop": ["survived"]}, "'survived' is a label, so it is no input; .*drop="),
        ({"columns": ["age", "age"]}, "columns names 'age' twice"),
        ({"columns": "age"}, "columns must be a list of names of columns, got 'age'"),
        ({"categorical": "port"}, "categorical must be a list of names"),
        ({"columns": [3]}, r"columns must be a list of names of columns, got \[3\]"),
        ({"columns": ["age"], "categorical": ["sex"]}, "'sex' of categorical= is no input"),
        ({"columns": ["age"], "categorical": ["survived"]}, "'survived' of categorical= is no"),
        ({"columns": []}, "has no column of inputs"),
        ({"label": ["class", "class"]}, "label names 'class' twice"),
        ({"label": {"a": "class", "b": "class"}}, "label names the column 'class' twice"),
        ({"label": ["class", 3]}, "label must be the name of a column, got 3; several are"),
        ({"label": ["class", "port"], "classes": ["u"]}, "classes must be {label: names} for 2"),
        ({"label": ["class"], "classes": {"clas": ["u"]}}, "unknown label 'clas'. Did you mean"),
        ({"label": ["class"], "regression": ["clas"]}, "unknown label 'clas'. Did you mean"),
        ({"drop": ["name"]}, r"if they are categories: categorical=\['sex', 'port'\]$"),
        (
            {"drop": ["name"], "categorical": ["sex"]},
            r"'C' is not a number \(5 such.*categorical=\['sex', 'port'\]$",
        ),
        ({"columns": ["sex"], "categorical": {"sex": ["male", "femal"]}}, "category 'female'. Did"),
        ({"columns": ["sex"], "categorical": {"sex": []}}, "'sex': there are no names"),
        ({"columns": ["sex"], "categorical": {"sex": {"male"}}}, "has no order"),
        ({"columns": ["sex"], "categorical": {"sex": ["1", "1.0"]}}, "'sex'.*named twice: 1"),
    ],
)  # fmt: skip
def test_what_is_refused(ships, options, message):
    fails(ships, message, **options)


def test_missing_and_odd_categories(ships, tmp_path):
    ships["path"].write_text("a,y\nu,0\n,1\n")
    fails(ships, "line 3, column 'a': '' is a missing category; fill it in", "y", test=0.5,
          categorical=["a"])  # fmt: skip
    ships["path"].write_text("a,y\nu,0\nU,1\nu,0\nu,1\n")
    fails(ships, "categories that differ only in case or blanks: 'U' and 'u'.*categorical={'a'",
          "y", test=0.5, categorical=["a"])  # fmt: skip
    rows = "".join(f"id{i},{i % 2}\n" for i in range(120))
    ships["path"].write_text(f"a,y\n{rows}")
    fails(ships, r"120 different categories in 120 rows.*drop=\['a'\]", "y", test=0.5,
          categorical=["a"])  # fmt: skip
    named = {"a": [f"id{i}" for i in range(120)]}
    assert table(ships, "y", test=0.5, categorical=named).inputs.shape == (60, 120)
    rows = "".join(f"id{i % 1001},{i % 2}\n" for i in range(6000))
    ships["path"].write_text(f"a,y\n{rows}")
    fails(ships, "1,001 categories would be as many inputs, and at most 1,000", "y", test=0.5,
          categorical=["a"])  # fmt: skip
