"""Hugging Face datasets in folders and files: every kind of column, and what is missing."""

import datetime
import io

import numpy as np
import PIL.Image
import pytest

from jaxtl import data
from jaxtl.data import digest

hf = pytest.importorskip("datasets")

ROWS = 6
FEATURES = {
    "image": hf.Image(),
    "text": hf.Value("string"),
    "vector": hf.List(hf.Value("float32"), length=3),
    "grid": hf.Array2D((2, 2), "int64"),
    "count": hf.Value("int64"),
    "size": hf.Value("float64"),
    "flag": hf.Value("bool"),
    "kind": hf.ClassLabel(names=["cat", "dog", "cow"]),
    "word": hf.Value("string"),
    "tags": hf.List(hf.ClassLabel(names=["p", "q"]), length=2),
    "any": hf.List(hf.Value("int32")),
    "bytes": hf.Value("binary"),
    "when": hf.Value("timestamp[s]"),
    "nested": {"a": hf.Value("int32")},
    "images": hf.List(hf.Image()),
    "empty": hf.Value("null"),
}


def png(value, size=(4, 4), mode="L"):
    file = io.BytesIO()
    PIL.Image.new(mode, size, value).save(file, format="PNG")
    return file.getvalue()


def row(i):
    return {
        "image": {"bytes": png(i), "path": None},
        "text": f"text {i}",
        "vector": [i, 0.5, 1],
        "grid": [[i, 1], [2, 3]],
        "count": i,
        "size": i / 2,
        "flag": i % 2 == 0,
        "kind": (0, 1, -1, 0, 1, None)[i],
        "word": ("v", "u", None, "v", "u", "v")[i],
        "tags": [0, 1],
        "any": [1] * i,
        "bytes": png(i),
        "when": datetime.datetime(2020, 1, 1),
        "nested": {"a": 1},
        "images": [],
        "empty": None,
    }


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """No network, and a cache of its own."""
    import huggingface_hub.constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(hf.config, "HF_HUB_OFFLINE", True)
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        hf.disable_progress_bars()
        yield


def dataset_of(columns, rows=None, **features):
    """Of some columns of the rows, or of others."""
    if rows is None:
        rows = [{name: row(i)[name] for name in columns} for i in range(ROWS)]
    return hf.Dataset.from_list(rows, hf.Features({n: FEATURES[n] for n in columns} | features))


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A folder with all columns, in two splits."""
    folder = tmp_path_factory.mktemp("hub") / "all"
    whole = dataset_of(FEATURES)
    hf.DatasetDict(train=whole, test=whole.select([3, 2])).save_to_disk(folder)
    return folder


def fails(path, message, *arguments, **options):
    with pytest.raises(ValueError, match=message) as error:
        splits = data.hub(path, *arguments, **options)
        (splits if arguments else splits.train).table()
    assert "\n" not in str(error.value)


def test_what_is_meant_if_nothing_is_said(everything):
    splits = data.hub(everything)
    assert list(splits) == ["train", "test"] and splits.train.name == "all.train"
    train, test = splits.train.table(), splits.test.table()
    assert train.inputs.dtype == np.uint8 and train.inputs.shape == (ROWS, 4, 4, 1)
    assert train.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert test.inputs[:, 0, 0, 0].tolist() == [3, 2]  # as selected
    assert train.classes == test.classes == {"label": ("cat", "dog", "cow")}
    assert train.labels["label"].tolist() == [0, 1, -1, 0, 1, -1]
    assert test.labels["label"].tolist() == [0, -1]


@pytest.mark.parametrize(
    ("inputs", "expected", "dtype"),
    [
        ("text", [f"text {i}" for i in range(ROWS)], object),
        ("vector", [[i, 0.5, 1] for i in range(ROWS)], np.float32),
        ("grid", [[[i, 1], [2, 3]] for i in range(ROWS)], np.int32),
        ("count", [[i] for i in range(ROWS)], np.float32),
        (["size", "flag", "count"], [[i / 2, i % 2 == 0, i] for i in range(ROWS)], np.float32),
    ],
)
def test_inputs_of_every_kind(everything, inputs, expected, dtype):
    table = data.hub(everything, inputs=inputs, label={}).train.table()
    assert table.inputs.dtype == dtype and table.inputs.tolist() == expected
    assert table.labels == {}
    assert table.columns == (tuple(inputs) if isinstance(inputs, list) else ("count",) * (
        inputs == "count"))  # fmt: skip


def test_images_in_bytes_and_several_inputs(everything):
    table = data.hub(everything, "train", inputs=["bytes", "text", "size"], size=(2, 2)).table()
    assert table.inputs["size"].dtype == np.float32 and table.inputs["size"].shape == (ROWS,)
    assert table.inputs["bytes"].shape == (ROWS, 2, 2, 1)
    assert table.inputs["text"][1] == "text 1" and "label" in table.classes


def test_labels_of_every_kind(everything):
    several = ["kind", "word", "count", "size", "tags", "flag"]
    table = data.hub(everything, "train", inputs="vector", label=several).table()
    assert table.classes == {
        "kind": ("cat", "dog", "cow"),
        "word": ("u", "v"),
        "count": tuple("012345"),
        "tags": ("p", "q"),
        "flag": ("False", "True"),
    }
    assert table.labels["word"].tolist() == [1, 0, -1, 1, 0, 1]
    assert table.labels["size"].dtype == np.float32 and table.labels["size"][3] == 1.5
    assert table.labels["tags"].tolist() == [[0, 1]] * ROWS
    named = {"a": "word", "b": "count"}
    test = data.hub(everything, "test", label=named, classes={"a": ["v", "u"]}, regression=["b"])
    assert test.table().classes == {"a": ("v", "u")}
    assert test.table().labels["b"].tolist() == [3, 2]
    # The classes of texts are those of all splits.
    word = data.hub(everything, "test", label="word").table()
    assert word.classes["label"] == ("u", "v") and word.labels["label"].tolist() == [1, -1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": "any"}, "'any' holds lists of 0 to 5 values; arrays have one length"),
        ({"inputs": "when"}, r"'when' \(timestamp\[s\]\) can be no input"),
        ({"inputs": "nested"}, r"'nested' \(structure\) can be no input"),
        ({"inputs": "images"}, r"'images' \(list of image\) can be no input"),
        ({"inputs": "empty"}, r"'empty' \(null\) can be no input"),
        (
            {"inputs": "kind", "label": {}},
            r"'kind' \(class\) can be no input; data\.frame\(dataset\.to_pa",
        ),
        (
            {"inputs": "word", "label": {}},
            "column 'word': missing values in 1 of 6 rows, first in r",
        ),
        ({"inputs": "kind", "label": "kind"}, "'kind' is a label, so it is no input"),
        ({"inputs": "imag"}, "unknown column 'imag'. Did you mean 'image'"),
        ({"label": "knd"}, "unknown column 'knd'. Did you mean 'kind'"),
        ({"label": "image", "inputs": "text"}, r"'image' \(image\) can be no label"),
        ({"label": "any"}, "'any' holds lists of 0 to 5"),
        ({"label": 3}, "label must be"),
        ({"classes": ["a"]}, "classes= and regression= need label="),
        ({"label": "word", "classes": ["v"]}, "unknown class 'u'"),
        ({"size": 3}, "size must be"),
    ],
)
def test_columns_that_are_refused(everything, options, message):
    fails(everything, message, **options)


def test_images_of_many_sizes_and_kinds(tmp_path):
    files = [png(1), png((2, 3, 4), (6, 5), "RGB"), None]
    rows = [{"image": {"bytes": file, "path": None}} for file in files]
    dataset_of(["image"], rows[:2]).save_to_disk(tmp_path / "two")
    fails(tmp_path / "two", r"'image': arrays of different sizes \(4x4x3, 5x6x3\).*size=")
    assert data.hub(tmp_path / "two", "train", size=(3, 3)).table().inputs.shape == (2, 3, 3, 3)
    rows[1]["image"]["bytes"] = b"damaged"
    dataset_of(["image"], rows[:2]).save_to_disk(tmp_path / "damaged")
    fails(tmp_path / "damaged", "'image', row 1: cannot read the image")
    rows[1]["image"] = None
    dataset_of(["image"], rows[:2]).save_to_disk(tmp_path / "none")
    fails(tmp_path / "none", "'image': missing values in 1 of 2 rows, first in row 1")


def test_whole_numbers_where_minus_one_is_missing(tmp_path):
    rows = [{"x": 0.5, "label": label} for label in (1, -1, 1)]
    number = {"x": hf.Value("float32"), "label": hf.Value("int64")}
    dataset_of([], rows, **number).save_to_disk(tmp_path / "a")
    fails(tmp_path / "a", "'label' holds -1 and 1 alone, and -1 means that a label is missing")
    rows[0]["label"] = 7
    dataset_of([], rows, **number).save_to_disk(tmp_path / "b")
    table = data.hub(tmp_path / "b").train.table()
    assert table.classes == {"label": ("1", "7")} and table.labels["label"].tolist() == [1, -1, 0]
    assert table.inputs.tolist() == [[0.5]] * 3 and table.columns == ("x",)
    rows[0]["x"] = float("nan")
    dataset_of([], rows, **number).save_to_disk(tmp_path / "c")
    fails(tmp_path / "c", "column 'x': missing values in 1 of 3 rows, first in row 0")
    whole = [{"x": 0.5, "label": 3}]
    names = {"x": hf.Value("float32"), "label": hf.ClassLabel(names=["a", "b", "c", "d"])}
    damaged = dataset_of([], whole, **names)
    damaged.features["label"].names = ["a", "b"]
    damaged.info.features["label"].names = ["a", "b"]
    damaged.save_to_disk(tmp_path / "d")
    fails(tmp_path / "d", "column 'label' has 2 classes, but a label 3")


def test_parquet_by_path_and_in_a_folder(tmp_path):
    whole, folder = dataset_of(["size", "kind"]), tmp_path / "tables"
    folder.mkdir()
    for split in ("train", "test"):
        whole.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    file = folder / "train-00000-of-00001.parquet"
    expected = data.hub(folder).test.table()
    assert expected.inputs.ravel().tolist() == [i / 2 for i in range(ROWS)]
    files = {"a": str(folder / "test*.parquet"), "b": file}
    for dataset in (
        data.hub(file).train,
        data.hub("parquet", data_files=file).train,
        data.hub("parquet", "b", data_files=files),
        data.hub("parquet", data_files=files).a,
        data.hub(folder, "train[:50%]+train[50%:]"),
    ):
        table = dataset.table()
        np.testing.assert_array_equal(table.inputs, expected.inputs)
        np.testing.assert_array_equal(table.labels["label"], expected.labels["label"])
        assert table.classes == expected.classes
    assert len(data.hub(folder, "train[:2]").table()) == 2
    fails(folder, "corresponds to no data", "train[:0]")
    fails(folder, "unknown split 'tran'. Did you mean 'train'", "tran[:2]")
    fails(folder, "Unrecognized instruction format", "train[:x]")
    fails(folder, "BuilderConfig 'other' not found", config="other")


def test_configs_that_a_card_names(tmp_path):
    card = ["---", "configs:"]
    for i, name in enumerate(("first", "second")):
        (tmp_path / f"{name}.csv").write_text(f"x,label\n{i}.5,u\n{i},v\n")
        card += [f"- config_name: {name}", f"  data_files: {name}.csv"]
    (tmp_path / "README.md").write_text("\n".join([*card, "---", ""]))
    table = data.hub(tmp_path, config="second").train.table()
    assert table.inputs.tolist() == [[1.5], [1]] and table.classes == {"label": ("u", "v")}
    fails(tmp_path, "Config name is missing.*'first', 'second'")
    fails(tmp_path, "BuilderConfig 'third' not found.*'first', 'second'", config="third")


def test_texts_of_a_csv_file(tmp_path):
    (tmp_path / "reviews.csv").write_text('review,mood\nWell done.,good\n"No, thanks",bad\n')
    files = str(tmp_path / "reviews.csv")
    table = data.hub("csv", data_files=files, inputs="review", label="mood").train.table()
    assert table.inputs.tolist() == ["Well done.", "No, thanks"]
    assert table.classes == {"label": ("bad", "good")} and table.labels["label"].tolist() == [1, 0]


def test_edited_files_are_read_again(tmp_path):
    file = tmp_path / "a.parquet"
    whole = dataset_of(["size", "kind"])
    whole.to_parquet(file)
    dataset = data.hub(file).train

    def now():
        table = dataset.table()
        return digest.of_rows(table.inputs, np.arange(ROWS)), digest.of_arrays(table.labels)

    before = now()
    whole.map(lambda row: {"size": row["size"] + (row["size"] > 2)}).to_parquet(file)
    assert now()[0] != before[0] and now()[1] == before[1]
    assert data.hub(file).train == dataset


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        (
            "nosuch/name",
            {},
            "cannot reach the dataset 'nosuch/name' on the Hugging .* not in the c",
        ),
        ("nosuch", {}, r"load_dataset\('nosuch'\)\.save_to_disk\('folder'\)"),
        ("./nosuch", {}, "no folder './nosuch'; datasets on the hub are called owner/name"),
        ("a/b/c", {}, "no folder 'a/b/c'"),
        ("", {}, "no folder ''"),
        ("parquet", {}, "'parquet' reads files; name them in data_files="),
        ("parquet", {"data_files": "no.parquet"}, "Unable to find '.*no.parquet'"),
        ("parquet", {"data_files": 3}, "data_files must be files, or {split: files}, got 3"),
        (__file__, {}, r"is no file that is read \(\.parquet, \.arrow"),
        (3, {}, "hub: path must be text"),
    ],
)
def test_what_is_not_there(path, options, message):
    fails(path, message, **options)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    fails(
        "owner/absent", r"needs the package datasets\. Install it with: pip install 'jaxtl\[hub\]'"
    )
