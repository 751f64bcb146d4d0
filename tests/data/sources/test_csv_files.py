"""CSV files as people have them: no number and no class is wrong without a word."""

import gzip
import logging

import numpy as np
import pytest

from jaxtl import data


def read(tmp_path, text, label="y", encoding="utf-8", **options):
    """Inputs and labels of all rows, by their class names where there are classes."""
    file = tmp_path / "table.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    table = data.csv(file, label, test=file_like(file), **options).train.table()
    labels = table.labels["label"]
    if "label" in table.classes:
        names = np.array([*table.classes["label"], None], object)
        labels = names[labels].tolist()
    return table.inputs.tolist(), labels


def file_like(file):
    """A second file of the same content."""
    copy = file.with_name("copy.csv")
    copy.write_bytes(file.read_bytes())
    return copy


def fails(tmp_path, text, message, label="y", **options):
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, text, label, **options)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


@pytest.mark.parametrize(
    "text, message",
    [
        ("a,y,a\n1,x,2\n", r"'a' is the name of the columns 1 and 3"),
        ("a,y,y\n1,x,z\n", r"'y' is the name of the columns 2 and 3"),
        ("a;y\n1;x\n", "pass delimiter=';'"),
        ("a\ty\n1\tx\n", r"pass delimiter='\\t'"),
        ("y\nx\n", "no column of inputs"),
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("1,2,x\n3,4,z\n", "unknown column 'y'"),
        ("1,2,3\n4,5,6\n", "first line should name the columns"),
        ('a,y\n1,"x\n2,z\n', "line 2: a quote is not closed"),
        ('a,y\n"1,x\n2,z"\n', "a cell goes from line 2 to line 3"),
        ('a,y\n"1"2,x\n', "line 2"),
        ("a,y\n1,x\x00\n", "line 2 holds NUL bytes"),
        ("a,y\n1," + "x" * 200_000 + "\n", "line 2: field larger than"),
        ("a,y\n1,x,\n", "line 2 has 3 cells, the last one empty, the header 2"),
        ("a,b,y\n1,x\n", "line 2 has 2 cells, the header 3"),
        ('a,y\n"1,5",x\n', "'1,5' is not a number; write it with a decimal point"),
        ('a,y\n"1,234.5",x\n', "no thousands separators"),
        ("a,y\n1_000,x\n", "no thousands separators"),
        ("a,y\n1e400,x\n", "'1e400' is not a number that float32 holds"),
        ("a,y\n2020-01-01,x\n", "'2020-01-01' is not a number$"),
        ("1.5,2,x\n3,4,z\n", "first line should name the columns"),
        ("a,y\n-1e39,x\n", "not a number that float32 holds"),
        ("a,y\ninf,x\n", "'inf' is not a number"),
        ("a,y\n0x10,x\n", "'0x10' is not a number"),
        ("a,y\n,x\n1,z\n,x\n", r"column 'a': '' is not a number but a missing .* \(2 such cells"),
        ("a,y\nNA,x\n", "missing value; fill it in, or remove"),
        ("a,b,y\nu,v,x\nu,w,x\n", "column 'a': 'u' .*; line 2, column 'b': 'v'"),
        ("a,,y\n1,2,x\n2,2,x\n", r"column 2 has no name \(''\)"),
        ("a,y,Unnamed: 2\n1,x,u\n2,x,v\n", "column 3 has no name"),
        ("a,y\n1,\n2,NA\n", "all labels are missing"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    fails(tmp_path, text, message)


@pytest.mark.parametrize(
    "text, labels",
    [
        ("a,y\n1,1\n2,1.0\n3,0\n4,+1\n", ["1", "1", "0", "1"]),
        ("a,y\n1,-1\n2,1\n3,-1.0\n", ["-1", "1", "-1"]),
        ("a,y\n1,10\n2,9\n3,1e1\n", ["10", "9", "10"]),
        ("a,y\n1,007\n2,7a\n", ["007", "7a"]),
        ("a,y\n1,NA\n2,nan\n3,u\n4,\n5,None\n6,?\n7,NULL\n8,n/a\n", [None, None, "u"] + [None] * 5),
        ("a,y\n1,e\u0301\n2,\u00e9\n", ["\u00e9"] * 2),
        ("a,y\n1,True\n2,False\n", ["True", "False"]),
        ("\ufeffy,a\nu,1\n", ["u"]),
        ('\ufeff"y","a"\r\n"u","1"\r\n', ["u"]),
        ("y,a\ru,1\rv,2\r", ["u", "v"]),
        ("y,a\nu,1\n,\n\nv,2\n , \n", ["u", "v"]),
    ],
)
def test_labels_that_mean_the_same(tmp_path, text, labels):
    assert read(tmp_path, text)[1] == labels


def test_numbers_are_ordered_by_value(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a,y\n" + "".join(f"{i},{i}.0\n" * 2 for i in (10, 9, 2, 0, 1)))
    assert data.csv(file, "y").train.class_names() == ("0", "1", "2", "9", "10")
    file.write_text("a,y\n" + "".join(f"{i},image{i}\n" * 2 for i in (10, 9, 1)))
    assert data.csv(file, "y").train.class_names() == ("image1", "image9", "image10")


@pytest.mark.parametrize(
    "labels, message",
    [
        (["1", "1.0", "cat"], "same number in different spellings: '1' and '1.0'"),
        (["01", "1", "cat"], "'01' and '1'"),
        (["Rose", "rose"], "differ only in case or blanks: 'Rose' and 'rose'"),
        (['"0,5"', '"1,5"'], "numbers with a decimal comma; write a point and pass regression"),
        (["0.5", "1"], "'0.5' is no whole number; pass regression=True"),
        ([str(7 * i) for i in range(60)], "60 different numbers in 120 rows; pass regression=True"),
        ([f"id{i}" for i in range(60)], "60 different labels in 120 rows"),
    ],
)
def test_labels_that_seem_to_be_something_else(tmp_path, labels, message):
    text = "a,y\n" + "".join(f"1,{label}\n" for label in labels)
    fails(tmp_path, text, message)
    if not {"1.0", "0.5", '"0,5"'} & set(labels):  # who names them means them
        classes = dict.fromkeys(labels)
        assert read(tmp_path, text, classes=iter(classes))[1] == labels


def test_classes_are_matched_as_numbers_too(tmp_path):
    text = "a,y\n1,1.0\n2,0\n3,NA\n"
    assert read(tmp_path, text, classes=np.array([1.0, 0.0]))[1] == ["1.0", "0.0", None]
    assert read(tmp_path, text, classes=np.array([1, 0]))[1] == ["1", "0", None]
    assert read(tmp_path, text, classes=("NA", "0", "1"))[1] == ["1", "0", "NA"]
    fails(tmp_path, text, "unknown class '0'.* unknown class '1.0'", classes=["2", "3"])
    fails(tmp_path, text, "classes has '1' and '1.0'", classes=["1", "1.0", "0"])


@pytest.mark.parametrize(
    "classes, message",
    [
        ("abc", "expected a list of names, got 'abc'"),
        (3, "expected a list of names, got 3"),
        ((), "there are no names"),
        ({"b", "a"}, r"has no order; give a list, such as \['a', 'b'\]"),
        (["a", "b", "a"], "named twice: a"),
        (np.array([1, 1]), "named twice: 1"),
    ],
)
def test_classes_of_another_kind(tmp_path, classes, message):
    for load, arguments in ((data.csv, ("t.csv", "y")), (data.image_folder, ("t",))):
        with pytest.raises(ValueError, match=message):
            load(*arguments, classes=classes)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"label": 3}, "label must be the name of a column, got 3"),
        ({"label": " "}, "label must be"),
        ({"delimiter": ",,"}, "delimiter must be one sign"),
        ({"delimiter": "e"}, "delimiter must be one sign"),
        ({"delimiter": "."}, "delimiter must be one sign"),
        ({"delimiter": None}, "delimiter must be one sign"),
        ({"test": 0.0}, "test must be a fraction between 0 and 1"),
        ({"test": 1}, "test must be a fraction between 0 and 1"),
        ({"test": float("nan")}, "test must be a fraction"),
        ({"encoding": "utf-99"}, "no text encoding 'utf-99'"),
        ({"encoding": "base64"}, "no text encoding 'base64'"),
        ({"regression": True, "classes": ["a"]}, "have no classes"),
    ],
)
def test_arguments_of_another_kind(options, message):
    with pytest.raises(ValueError, match=f"csv of t.csv: .*{message}"):
        data.csv("t.csv", **{"label": "y"} | options)


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
@pytest.mark.parametrize("index", [[0, 1, 2], [1, 2, 3], [17, 3, 5]])
def test_an_index_is_no_input(tmp_path, caplog, name, index):
    text = f"{name},a,y\n" + "".join(f"{i},{i + 0.5},u\n" for i in index)
    with caplog.at_level(logging.INFO):
        inputs, _ = read(tmp_path, text)
    assert inputs == [[i + 0.5] for i in index]
    assert f"column 1 has no name ({name!r}) and is left out" in caplog.text


def test_a_delimiter_behind_every_line(tmp_path):
    assert read(tmp_path, "a,y,\n1,u,\n2,v,\n") == ([[1], [2]], ["u", "v"])


def test_a_named_column_that_numbers_the_rows_is_told(tmp_path, caplog):
    text = "id,a,y\n" + "".join(f"{i},{i % 3},u\n" for i in range(1, 12))
    assert len(read(tmp_path, text)[0][0]) == 2
    assert "column 'id', which numbers the rows, is an input" in caplog.text
    assert "'a'" not in caplog.text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_marked_encodings(tmp_path, encoding):
    assert read(tmp_path, "a,y\n1,\u00e9t\u00e9\n", encoding=encoding)[1] == ["\u00e9t\u00e9"]


def test_other_encodings(tmp_path):
    text = "a,y\n1,u\n2,\u00e9\n"
    fails(tmp_path, text.encode("latin-1"), r"byte 0xe9 in line 3\)\. Save it as UTF-8 or pass")
    fails(
        tmp_path, "a,y\n1,u\n".encode("utf-16-le"), "line 1 holds NUL bytes.*encoding='utf-16-le'"
    )
    fails(tmp_path, gzip.compress(text.encode()), "is a compressed file or one of Excel")
    file = tmp_path / "latin.csv"
    file.write_bytes((text + "2,\u00e9\n2,u\n").encode("latin-1"))
    assert data.csv(file, "y", encoding="latin-1").train.class_names() == ("u", "\u00e9")


def test_true_and_false_are_one_and_zero(tmp_path):
    assert read(tmp_path, "a,b,y\nTrue,2,u\nfalse,3,u\nTRUE,4,u\n")[0] == [[1, 2], [0, 3], [1, 4]]


def test_values_to_predict(tmp_path):
    _, labels = read(tmp_path, "a,y\n1,1.5\n2,NA\n3,\n4,-2e3\n", regression=True)
    np.testing.assert_array_equal(labels, np.float32([1.5, np.nan, np.nan, -2000]))
    fails(tmp_path, "a,y\n1,1e39\n", "column 'y': '1e39' is not a number", regression=True)
    fails(tmp_path, "a,y\n1,\n", "all labels are missing", regression=True)


def test_missing_labels_are_counted(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        read(tmp_path, "a,y\n1,NA\n2,u\n3,\n4,NA\n")
    assert "table.csv: 3 of 4 labels are missing ('NA' 2, '' 1)" in caplog.text


def test_columns_of_two_files_are_matched_by_name(tmp_path, caplog):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("a,b,y\n1,2,u\n1,2,v\n")
    test.write_text(",y,b,a\n0,v,20,10\n")
    table = data.csv(train, "y", test=test).test.table()
    assert table.inputs.tolist() == [[10, 20]] and table.labels["label"].tolist() == [1]
    assert "test.csv: no row of the classes u" in caplog.text
    test.write_text("a,c,y\n1,2,u\n")
    with pytest.raises(ValueError, match=r"other columns than .*train\.csv: missing b, new c"):
        data.csv(train, "y", test=test).test.table()
    with pytest.raises(ValueError, match="is to be both train and test"):
        data.csv(train, "y", test=train).test.table()


def test_every_class_is_in_both_parts(tmp_path):
    file = tmp_path / "rare.csv"
    file.write_text("a,y\n1,u\n2,u\n" + "3,v\n" * 10)
    splits = data.csv(file, "y")
    counts = [np.bincount(splits[s].table().labels["label"]).tolist() for s in ("train", "test")]
    assert counts == [[1, 8], [1, 2]]
    file.write_text("a,y\n1,u\n" + "3,v\n" * 10)
    with pytest.raises(ValueError, match=r"1 classes have one row \(u\)"):
        data.csv(file, "y").train.table()
    file.write_text("a,y\n1,2\n")
    with pytest.raises(ValueError, match="a single row cannot be divided"):
        data.csv(file, "y", regression=True).test.table()


def test_an_edited_file_is_read_again(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a,y\n1,u\n2,u\n")
    before = data.csv(file, "y", test=0.5)
    assert data.csv(file, "y", test=0.5).train == before.train
    assert before.train.class_names() == ("u",)
    file.write_text("a,y\n1,vv\n2,vv\n")
    assert data.csv(file, "y", test=0.5).train.class_names() == ("vv",)


def test_large_offsets_are_kept_in_both_files(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("a,y\n1000000000,u\n1000000001,v\n")
    test.write_text("a,y\n1,u\n2,v\n")
    splits = data.csv(train, "y", test=test)
    inputs = splits.train.table().inputs
    assert inputs.dtype == splits.test.table().inputs.dtype == np.float64
    assert inputs.tolist() == [[1e9], [1e9 + 1]]
    train.write_text("a,y\n1,1000000000\n2,1000000001\n")
    with pytest.raises(ValueError, match="float32 cannot tell apart: subtract"):
        data.csv(train, "y", test=0.5, regression=True).train.table()
