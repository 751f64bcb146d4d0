"""Texts as token ids, by a vocabulary small enough to tokenise by hand."""

import json
import logging

import numpy as np
import pytest

from jaxtl import data

pytest.importorskip("tokenizers")
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "un",
    "##aff",
    "##able",
    "a",
    "cat",
    "!",
]
PAD, UNK, CLS, SEP, UN, AFF, ABLE, A, CAT, MARK = 0, 1, 2, 3, 5, 6, 7, 8, 9, 10


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY))
    return path


@pytest.fixture
def saved(vocabulary, tmp_path):
    """A tokenizer.json of the same vocabulary, with a length and padding of its own."""
    import tokenizers

    tokenizer = tokenizers.BertWordPieceTokenizer(str(vocabulary))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=20)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def texts(*values, dtype=object):
    return data.arrays(np.array(values, dtype), np.zeros(len(values), int), name="texts")


@pytest.mark.parametrize("file", ["vocabulary", "saved"])
def test_ids_by_hand(file, request):
    given = texts("Unaffable cat!", "a dog", "", b"\xc3\xa0 CAT".decode())
    table = given.tokenize(request.getfixturevalue(file), 7).table()
    expected = [
        [CLS, UN, AFF, ABLE, CAT, MARK, SEP],
        [CLS, A, UNK, SEP, PAD, PAD, PAD],
        [CLS, SEP, PAD, PAD, PAD, PAD, PAD],
        [CLS, A, CAT, SEP, PAD, PAD, PAD],  # lower case, without accents
    ]
    np.testing.assert_array_equal(table.inputs["ids"], expected)
    mask = np.arange(7) < np.array([[7], [4], [2], [4]])
    np.testing.assert_array_equal(table.inputs["mask"], mask)
    assert {leaf.dtype for leaf in table.inputs.values()} == {np.dtype(np.int32)}


def test_long_texts_are_cut_and_counted(vocabulary, caplog):
    with caplog.at_level(logging.INFO):
        table = texts("a cat a cat a", "cat").tokenize(vocabulary, 4).table()
    np.testing.assert_array_equal(table.inputs["ids"], [[CLS, A, CAT, SEP], [CLS, CAT, SEP, PAD]])
    assert "1 of 2 texts are cut to 4 tokens" in caplog.text


def test_case_is_kept_on_request(vocabulary):
    table = texts("A cat").tokenize(vocabulary, 4, lowercase=False).table()
    np.testing.assert_array_equal(table.inputs["ids"], [[CLS, UNK, CAT, SEP]])


@pytest.mark.parametrize(("values", "dtype"), [((b"a cat",), object), ((b"a cat",), "S9")])
def test_bytes_are_utf8(values, dtype, vocabulary):
    table = texts(*values, dtype=dtype).tokenize(vocabulary, 4).table()
    np.testing.assert_array_equal(table.inputs["ids"], [[CLS, A, CAT, SEP]])


def test_many_texts_keep_their_rows_and_labels(vocabulary, monkeypatch):
    monkeypatch.setattr("jaxtl.data.steps.text.CHUNK", 4)
    labels = np.arange(10) % 3
    given = data.arrays(np.array(["a " * (n % 5) for n in range(10)], object), labels)
    part = given.tokenize(vocabulary, 6).few(2)
    table = part.table().select(part.rows(0))
    np.testing.assert_array_equal(table.inputs["mask"].sum(1), part.rows(0) % 5 + 2)
    np.testing.assert_array_equal(table.labels["label"], labels[part.rows(0)])


def test_it_is_lazy_and_equal_handles_share_a_table(vocabulary):
    given = texts("a cat")
    given.tokenize("nowhere/vocab.txt", 8)
    assert given.tokenize(vocabulary, 8).table() is given.tokenize(str(vocabulary), 8).table()


def test_errors(vocabulary, saved, tmp_path):
    with pytest.raises(ValueError, match="tokenize of texts: length must be at least 3"):
        texts("a").tokenize(vocabulary, 2)

    def fails(file, message, given=None):
        with pytest.raises(ValueError, match=message) as error:
            (given or texts("a")).tokenize(file, 8).table()
        assert str(error.value).startswith("dataset ")

    nowhere = tmp_path / "none.json"
    fails(nowhere, f"there is no tokenizer file {nowhere}")
    broken = tmp_path / "broken.json"
    broken.write_text('{"version": ')
    fails(broken, f"cannot read the tokenizer file {broken}: ")
    content = json.loads(saved.read_text())
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps({**content, "post_processor": None}))
    fails(bare, f"{bare}: it does not put \\[CLS\\] and \\[SEP\\] around a text")
    other = tmp_path / "other.json"
    other.write_text(saved.read_text().replace("[PAD]", "<pad>"))
    fails(other, f"{other} lacks \\[PAD\\]")
    fails(vocabulary, r"one text an example, .*; got float32", data.arrays(np.ones((2, 3)), [0, 1]))
    fails(vocabulary, "2 of 3 rows hold something else, such as None in row 1", texts("a", None, 3))
