"""A file that is edited within one process: what is loaded of it is not what it held before."""

import dataclasses
import os
import shutil

import numpy as np
import PIL.Image
import pytest
from prepared_dataset import png, prepare

from jaxtl import data
from jaxtl.data import digest
from jaxtl.data.streamed import Streamed
from jaxtl.data.table import CACHED_TABLES, Call, read_from, result_of, unchanging

SWAP = str.maketrans("uv", "vu")


def write_rows(file, labels="uuvv", inputs=(1, 2, 3, 4)):
    lines = [f"{number},{label}\n" for number, label in zip(inputs, labels, strict=True)]
    file.write_text("a,y\n" + "".join(lines))


def labels_of(dataset):
    table = dataset.table()
    return [table.names("label")[label] for label in table.labels["label"]]


def write_image(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((4, 4), value, np.uint8)).save(file)


@pytest.mark.parametrize("fresh", [True, False])
def test_swapped_labels_in_a_csv_of_the_same_size(tmp_path, fresh):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    write_rows(train)
    write_rows(test, "vuvu")

    def splits():
        return data.csv(train, "y", test=test)

    before = splits()
    assert labels_of(before.train) == ["u", "u", "v", "v"]
    old = before.train.table()
    write_rows(train, "vvuu")
    after = splits() if fresh else before
    assert labels_of(after.train) == ["v", "v", "u", "u"] and labels_of(after.test) == [*"vuvu"]
    assert splits().train == before.train  # equal handles load the same
    digests = [digest.of_arrays(table.labels) for table in (old, after.train.table())]
    assert digests[0] != digests[1]


def test_a_file_that_was_only_touched_holds_the_same(tmp_path):
    write_rows(tmp_path / "t.csv")
    dataset = data.csv(tmp_path / "t.csv", "y", test=0.5).train
    before = dataset.table()
    os.utime(tmp_path / "t.csv", (0, 0))
    after = dataset.table()
    assert after is not before
    assert digest.of_rows(after.inputs, np.arange(2)) == digest.of_rows(before.inputs, np.arange(2))
    assert digest.of_arrays(after.labels) == digest.of_arrays(before.labels)


def test_a_relative_path_is_of_the_folder_in_which_one_is(tmp_path, monkeypatch):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        write_rows(tmp_path / folder / "t.csv", "vvuu" if folder == "there" else "uuvv")
    labels = []
    for folder in ("here", "there", "here"):
        monkeypatch.chdir(tmp_path / folder)
        labels.append(labels_of(data.csv("t.csv", "y", test=0.5).train))
    assert labels == [["u", "v"], ["v", "u"], ["u", "v"]]


def test_what_was_made_of_a_file_is_made_anew(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    write_rows(train)
    write_rows(test)
    splits = data.csv(train, "y", test=test).standardize()
    few = splits.test.classes(["v", "u"]).few(1)
    before = splits.test.table()
    assert before.inputs[0, 0] < 0
    assert few.table().labels["label"][few.rows(0)].tolist() == [1, 0]
    write_rows(train, inputs=(0, 0, 0, 1))  # other statistics
    assert splits.test.table().inputs[0, 0] > 0
    write_rows(test, "vvuu")
    assert few.table().labels["label"][few.rows(0)].tolist() == [0, 1]


def test_nothing_is_read_twice_without_need(tmp_path):
    write_rows(tmp_path / "t.csv")
    dataset = data.csv(tmp_path / "t.csv", "y", test=0.5).train.classes(["v", "u"])
    before = dataset.table()
    assert dataset.table() is before
    with unchanging():
        assert dataset.table() is before
    assert data.csv(tmp_path / "t.csv", "y", test=0.5).train.classes(["v", "u"]).table() is before


def test_within_a_run_tables_stay_as_they_are(tmp_path):
    write_rows(tmp_path / "t.csv")
    splits = data.csv(tmp_path / "t.csv", "y", test=0.5)
    before = labels_of(splits.train)
    write_rows(tmp_path / "t.csv", "uwuw")
    with unchanging():
        during = labels_of(splits.train)  # the run reads what it finds at its start
        write_rows(tmp_path / "t.csv")
        with unchanging():
            assert labels_of(splits.train) == during == ["u", "w"] != before
        assert splits.test.class_names() == ("u", "w")
    assert labels_of(splits.train) == before


def test_a_run_does_not_read_what_changed_since_it_began(tmp_path, monkeypatch):
    write_rows(tmp_path / "t.csv")
    write_image(tmp_path / "images" / "a" / "1.png", 7)
    splits = data.csv(tmp_path / "t.csv", "y", test=0.5)
    images = data.image_folder(tmp_path / "images")
    monkeypatch.setattr("jaxtl.data.table.CACHED_TABLES", 1)
    splits.train.table()
    with unchanging():
        images.table()
        (tmp_path / "images" / "runs.txt").touch()  # changes the folder alone
        images.table(), splits.test.table(), images.table()
        write_rows(tmp_path / "t.csv", "vvuu")
        with pytest.raises(ValueError, match=r"t\.csv was changed while a run reads it; start"):
            splits.train.table()
    assert labels_of(splits.train) == ["v", "u"]


def test_a_file_that_is_gone_is_an_error(tmp_path):
    write_rows(tmp_path / "t.csv")
    dataset = data.csv(tmp_path / "t.csv", "y", test=0.5).train
    dataset.table()
    (tmp_path / "t.csv").unlink()
    with pytest.raises(ValueError, match=r"no file .*t\.csv"):
        dataset.table()


@pytest.mark.parametrize("streamed", [False, True])
def test_images_of_a_folder(tmp_path, streamed):
    for name in ("a/1", "a/deep/2", "b/3"):
        write_image(tmp_path / f"{name}.png", 7)
    (tmp_path / "b" / "empty").mkdir()
    dataset = data.image_folder(tmp_path, streamed=streamed).resize((2, 2))

    def state():
        table = dataset.table()
        inputs = table.inputs[:] if isinstance(table.inputs, Streamed) else table.inputs
        return inputs[:, 0, 0, 0].tolist(), table.labels["label"].tolist()

    assert state() == ([7, 7, 7], [0, 0, 1])
    digests = [digest.of_rows(dataset.table().inputs, np.arange(3))]
    write_image(tmp_path / "a" / "deep" / "2.png", 9)  # of the same size in bytes
    assert state() == ([7, 9, 7], [0, 0, 1])
    digests.append(digest.of_rows(dataset.table().inputs, np.arange(3)))
    write_image(tmp_path / "b" / "empty" / "4.png", 8)
    assert state() == ([7, 9, 7, 8], [0, 0, 1, 1])
    (tmp_path / "a" / "1.png").rename(tmp_path / "b" / "1.png")
    assert state() == ([9, 7, 7, 8], [0, 1, 1, 1])
    write_image(tmp_path / "c" / "5.png", 1)
    assert dataset.class_names() == ("a", "b", "c")
    assert digests[0] != digests[1]


def test_a_mapped_file_and_what_was_computed_of_it(tmp_path):
    file = tmp_path / "rows"
    np.arange(8, dtype=np.float32).reshape(4, 2).tofile(file)
    mapped = np.memmap(file, np.float32, "r+", shape=(4, 2))
    dataset = data.arrays(mapped, np.zeros(4, int)).standardize()
    before = dataset.table().inputs[:]
    mapped[:] *= 10
    mapped.flush()
    np.testing.assert_allclose(dataset.table().inputs[:], before, rtol=1e-6)
    mapped[3] = 0
    mapped.flush()
    np.testing.assert_allclose(dataset.table().inputs[:].mean(0), 0, atol=1e-6)


@pytest.mark.parametrize("values", [np.arange(4, dtype=np.uint8), np.array([*"abcd"], object)])
def test_an_array_that_was_written_to(values):
    def of_dataset():
        return digest.of_rows(data.arrays(values, [0] * 4).table().inputs, np.arange(4))

    before = of_dataset()
    values[:2] = values[1::-1].copy()
    assert of_dataset() != before


def test_the_file_of_a_tokenizer(tmp_path):
    pytest.importorskip("tokenizers")
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\none\ntwo\n")
    dataset = data.arrays(["one two"], [0]).tokenize(vocabulary, 4)
    assert dataset.table().inputs["ids"].tolist() == [[2, 4, 5, 3]]
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\ntwo\none\n")
    assert dataset.table().inputs["ids"].tolist() == [[2, 5, 4, 3]]


def with_column(table, path):
    column = np.loadtxt(path, np.float32, ndmin=2)
    return dataclasses.replace(table, inputs=np.concatenate([table.inputs, column], 1))


def darkened(images, path):
    return images // np.uint8(path.read_text())


def test_a_file_that_is_an_argument_of_a_map(tmp_path):
    numbers = tmp_path / "numbers"
    numbers.write_text("2\n4\n")
    plain = data.arrays(np.zeros((2, 1), np.float32), [0, 1])
    dataset = plain.map(with_column, numbers).map(with_column, str(numbers))
    images = data.arrays(np.full((2, 4, 4, 1), 8, np.uint8), [0, 1])
    assert dataset.table().inputs.tolist() == [[0, 2, 2], [0, 4, 4]]
    numbers.write_text("4\n2\n")
    assert dataset.table().inputs.tolist() == [[0, 4, 4], [0, 2, 2]]
    for number in ("2", "4"):
        numbers.write_text(number)
        table = images.map_images(darkened, numbers).rgb().table()
        assert table.inputs.max() == 8 // int(number)


def read_archive(path):
    return data.Table(np.load(path)["x"], {"label": np.zeros(2, np.int32)}, {"label": ("a",)})


def read_folder(path):
    read_from(sorted(path.iterdir()))
    return read_archive(path / "rows.npz")


@pytest.mark.parametrize("read", [read_archive, read_folder])
def test_a_source_of_ones_own(tmp_path, read):
    file = tmp_path / "rows.npz"
    np.savez(file, x=np.float32([1, 2]))
    place = file if read is read_archive else tmp_path
    dataset = data.Dataset("mine", Call(read, (place,))).map(dataclasses.replace)
    assert dataset.table().inputs.tolist() == [1, 2]
    np.savez(file, x=np.float32([2, 1]))
    assert dataset.table().inputs.tolist() == [2, 1]


def test_prepared_data_and_their_class_names(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    features = {
        "image": tfds.features.Image(shape=(4, 4, 1)),
        "label": tfds.features.ClassLabel(names=["cat", "dog"]),
    }

    splits = {
        name: [{"image": png(np.full((4, 4), value, np.uint8)), "label": 0}]
        for name, value in (("train", 1), ("test", 2))
    }
    prepare(tmp_path, "JaxtlTestEdited", features, splits)
    dataset = data.tfds("jaxtl_test_edited", "train", data_dir=tmp_path)
    assert dataset.table().inputs.max() == 1 and dataset.class_names() == ("cat", "dog")
    train, test = (next(tmp_path.rglob(f"*-{name}.array_record*")) for name in ("train", "test"))
    shutil.copyfile(test, train)
    assert dataset.table().inputs.max() == 2
    next(tmp_path.rglob("label.labels.txt")).write_text("cat\nfox\n")
    assert dataset.class_names() == ("cat", "fox")


def test_the_results_asked_for_last_are_kept():
    computed = []
    calls = [Call(computed.append, (i,)) for i in range(CACHED_TABLES + 1)]
    for call in (*calls[:-1], calls[0], calls[-1], calls[0]):
        result_of(call)
    assert computed == list(range(CACHED_TABLES + 1))
    result_of(calls[1])
    assert computed[-1] == 1


def test_a_call_that_fails_is_made_again():
    attempts = []

    def load():
        attempts.append(1)
        raise ValueError("no data")

    for _ in range(2):
        with pytest.raises(ValueError, match="no data"):
            result_of(Call(load))
    assert len(attempts) == 2
