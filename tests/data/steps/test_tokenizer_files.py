"""Tokenizer files that are damaged, or that declare more than a text needs."""

import copy
import json

import numpy as np
import pytest

from jaxtl import data

tokenizers = pytest.importorskip("tokenizers")
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "##s"]


def token(number, content):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, "special": True, **flags}


def content():
    special = {t: {"id": t, "ids": [TOKENS.index(t)], "tokens": [t]} for t in ("[CLS]", "[SEP]")}
    pieces = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    pieces += [{"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
    return {
        "version": "1.0",
        "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            **{"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None},
            **{"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        },
        "added_tokens": [token(i, t) for i, t in enumerate(TOKENS[:4])],
        "normalizer": {
            **{"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True},
            **{"strip_accents": None, "lowercase": True},
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            **{"type": "TemplateProcessing", "single": pieces, "special_tokens": special},
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            **{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"},
            "max_input_chars_per_word": 100,
            "vocab": {t: i for i, t in enumerate(TOKENS)},
        },
    }


def changed(path, value):
    """The file with another value at a path of keys."""
    tree = content()
    *places, last = path.split("/")
    part = tree
    for place in places:
        part = part[int(place) if isinstance(part, list) else place]
    part[int(last) if isinstance(part, list) else last] = value
    return tree


def ids(file, text="A cats x"):
    given = data.arrays(np.array([text, ""], object), np.zeros(2, int))
    return given.tokenize(file, 6).table().inputs["ids"].tolist()


@pytest.mark.parametrize(
    "path, value",
    [
        ("padding/strategy", {"Fixed": 10**9}),
        ("padding/pad_to_multiple_of", 10**9),
        ("padding", "no"),
        ("truncation/max_length", 10**18),
        ("truncation/stride", 10**18),
        ("decoder", {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}),
        ("version", []),
    ],
)
def test_lengths_of_its_own_do_not_count(tmp_path, path, value):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(changed(path, value)))
    assert ids(file) == [[2, 4, 5, 6, 1, 3], [2, 3, 0, 0, 0, 0]]


GROW = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
SEQUENCE = {"Sequence": {"id": "A", "type_id": 0}}
CLS = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("normalizer", GROW, "the normalizer 'Replace' is not read"),
        ("normalizer", {"type": "Prepend", "prepend": "a" * 9}, "the normalizer 'Prepend'"),
        ("normalizer", {"type": "Sequence", "normalizers": [GROW] * 9}, "'Sequence' is not read"),
        ("normalizer", "Lowercase", "the normalizer 'Lowercase' is not read"),
        ("normalizer/lowercase", 3, "cannot read the tokenizer file"),
        (
            "pre_tokenizer",
            {"type": "Split", "pattern": {"Regex": "(a+)+$"}},
            "pre_tokenizer 'Split'",
        ),
        ("post_processor/single", [CLS, SEQUENCE, SEQUENCE], "does not put"),
        ("post_processor/single", [CLS] * 9 + [SEQUENCE], "does not put"),
        ("post_processor/special_tokens/[CLS]/ids", [2] * 99, "does not put"),
        ("model", [], "no JSON object with a model"),
        ("model/type", "Other", "the model 'Other' is not read"),
        ("model/vocab", [], "no numbers from 0"),
        ("model/vocab/cat", 2**32 - 1, "no numbers from 0"),
        ("model/vocab/cat", "5", "no numbers from 0"),
        ("model/vocab/cat", True, "no numbers from 0"),
        ("model/vocab/cat", 4, "two tokens of the vocabulary have the same number"),
        ("model/unk_token", "<unk>", "lacks its unknown token '<unk>'"),
        ("model/continuing_subword_prefix", "#", "its continuing_subword_prefix is '#', not '##'"),
        ("model/continuing_subword_prefix", 3, "its continuing_subword_prefix is 3"),
        ("model/max_input_chars_per_word", 10**5, "its max_input_chars_per_word is 100000"),
        ("model/type", "BPE", "the model 'BPE' is not read"),
        ("added_tokens", {"x": 1}, "cannot read the tokenizer file"),
        ("added_tokens", ["x"], "cannot read the tokenizer file"),
        ("added_tokens/0/id", 2**31, "added tokens are not those of the vocabulary"),
    ],
)
def test_what_is_refused(tmp_path, path, value, message):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(changed(path, value)))
    with pytest.raises(ValueError, match=message) as error:
        ids(file)
    assert f"cannot read the tokenizer file {file}: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "nonsense", '{"a":' * 10**5, "\ufeff{}"])
def test_files_that_are_no_tokenizers(tmp_path, text):
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match="cannot read the tokenizer file"):
            ids(tmp_path / name)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe[PAD]")
    with pytest.raises(ValueError, match="cannot read the tokenizer file"):
        ids(tmp_path / "vocab.txt")


def test_a_huge_file_is_not_opened(tmp_path):
    for name in ("tokenizer.json", "vocab.txt"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(10**12)
        with pytest.raises(ValueError, match="is larger than 64 MB"):
            ids(tmp_path / name)


def test_any_damage_is_one_error(tmp_path):
    """Every part of a file is replaced by every kind of value."""
    file = tmp_path / "tokenizer.json"

    def places(tree, path=()):
        yield from ((*path, key) for key in tree)
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from places(value, (*path, key))

    whole = content()
    for *path, last in places(whole):
        for value in (
            None,
            True,
            -1,
            2**40,
            0.5,
            "",
            "x",
            [],
            [1],
            {},
            {"type": "x"},
            {"type": []},
        ):
            tree = copy.deepcopy(whole)
            part = tree
            for place in path:
                part = part[place]
            part[last] = value
            file.write_text(json.dumps(tree))
            try:
                assert np.shape(ids(file)) == (2, 6)
            except ValueError as error:
                assert "tokenizer" in str(error) and "\n" not in str(error)


def test_texts_that_are_none(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(content()))
    with pytest.raises(ValueError, match="needs whole characters"):
        ids(file, "a \ud800 cat")
    with pytest.raises(ValueError, match="needs UTF-8, but the bytes in row 0 are none"):
        ids(file, b"\xff\xfe")
