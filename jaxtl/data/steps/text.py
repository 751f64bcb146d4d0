"""Texts as token ids of a fixed length.

Tokenizers are those of BERT: the vocabulary and the options of a `tokenizer.json` are read, and
what else it may declare is refused, so that no file can blow a text up or encode it at random.
"""

import contextlib
import dataclasses
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxtl.data.table import Table

CHUNK = 1024  # texts encoded at a time
MAX_FILE = 2**26  # bytes
MAX_ID = 2**24
SURROGATE = re.compile("[\ud800-\udfff]")
PARTS = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
USUAL = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}  # of the model
OPTIONS = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")  # of the normalizer

logger = logging.getLogger(__name__)


def tokenize(table: Table, file: str | os.PathLike, length: int, lowercase: bool) -> Table:
    """See `Dataset.tokenize`."""
    texts, tokenizer = _texts(table.inputs), _tokenizer(Path(file), lowercase)
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id("[PAD]"))
    ids, mask = (np.zeros((len(texts), length), np.int32) for _ in range(2))
    cut = 0
    for start in range(0, len(texts), CHUNK):
        for row, encoding in enumerate(tokenizer.encode_batch(texts[start : start + CHUNK]), start):
            ids[row], mask[row] = encoding.ids, encoding.attention_mask
            cut += bool(encoding.overflowing)
    if cut:
        logger.info("%d of %d texts are cut to %d tokens", cut, len(texts), length)
    return dataclasses.replace(table, inputs={"ids": ids, "mask": mask})


def _texts(inputs: Any) -> list[str]:
    if not isinstance(inputs, np.ndarray) or inputs.ndim != 1 or inputs.dtype.kind not in "OUS":
        kinds = getattr(inputs, "dtype", type(inputs).__name__)
        raise ValueError(f"tokenize needs one text an example, an array [n] of str; got {kinds}")
    texts = []
    for row, text in enumerate(inputs):
        try:
            texts.append(text.decode() if isinstance(text, bytes) else text)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"tokenize needs UTF-8, but the bytes in row {row} are none: {error}"
            ) from None
    if strange := [row for row, text in enumerate(texts) if not isinstance(text, str)]:
        raise ValueError(
            f"tokenize needs texts, but {len(strange)} of {len(texts)} rows hold something else, "
            f"such as {texts[strange[0]]!r} in row {strange[0]}"
        )
    if broken := list(filter(SURROGATE.search, texts)):
        raise ValueError(f"tokenize needs whole characters, but {broken[0][:40]!r} has half of one")
    return texts


def _tokenizer(file: Path, lowercase: bool) -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise ValueError(
            "texts need tokenizers. Install it: pip install 'jaxtl[pretrained]'"
        ) from error
    if not file.is_file():
        raise ValueError(f"there is no tokenizer file {file}; it is a tokenizer.json or vocab.txt")
    if file.stat().st_size > MAX_FILE:
        raise ValueError(f"the tokenizer file {file} is larger than {MAX_FILE >> 20} MB")
    vocabulary, added, options = str(file), [], {"lowercase": lowercase}
    with _reading(file):
        if file.suffix == ".json":
            vocabulary, added, options = _word_pieces(file.read_text("utf-8"))
        tokenizer = tokenizers.BertWordPieceTokenizer(vocabulary, **options)
        tokenizer.add_special_tokens(added)
    special = ("[PAD]", "[CLS]", "[SEP]")
    if missing := [token for token in special if tokenizer.token_to_id(token) is None]:
        raise ValueError(f"the tokenizer file {file} lacks {', '.join(missing)}")
    return tokenizer


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Everything that a file and the library raise as a ValueError of one line."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library's panics are no Exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot read the tokenizer file {file}: {reason}") from error


def _word_pieces(text: str) -> tuple[dict[str, int], list[str], dict[str, Any]]:
    """(vocabulary, added tokens, options of the library's class) of a tokenizer.json.

    Raises:
        ValueError: it is no such file, or declares what is not read, all of it at once.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError("it is no JSON object with a model")
    model = {"type": "WordPiece", **content["model"]}  # old files leave out what it is
    problems = []
    for part, usual in PARTS.items():
        declared = model if part == "model" else content.get(part)
        kind = declared.get("type") if isinstance(declared, dict) else declared
        if kind != usual:
            problems.append(f"the {part} {kind!r} is not read ({usual} is)")
    problems += [
        f"its {name} is {model[name]!r}, not {usual!r}"
        for name, usual in USUAL.items()
        if model.get(name, usual) != usual
    ]
    vocabulary, added = model.get("vocab"), content.get("added_tokens") or []
    if not isinstance(vocabulary, dict) or not all(map(_is_id, vocabulary.values())):
        raise ValueError("; ".join([*problems, f"its tokens have no numbers from 0 to {MAX_ID}"]))
    if len(set(vocabulary.values())) < len(vocabulary):
        problems.append("two tokens of the vocabulary have the same number")
    unknown = model.get("unk_token")
    if unknown not in vocabulary:
        problems.append(f"the vocabulary lacks its unknown token {unknown!r}")
    if not all(vocabulary.get(token["content"]) == token["id"] for token in added):
        problems.append("its added tokens are not those of the vocabulary")
    if not _surrounds(content.get("post_processor"), vocabulary):
        problems.append("it does not put [CLS] and [SEP] around a text")
    if problems:
        raise ValueError("; ".join(problems))
    options = {name: content["normalizer"][name] for name in OPTIONS}
    return vocabulary, [token["content"] for token in added], {"unk_token": unknown, **options}


def _is_id(number: Any) -> bool:
    return type(number) is int and 0 <= number < MAX_ID


def _surrounds(processor: Any, vocabulary: dict[str, int]) -> bool:
    """Whether what is done to a text's tokens is to put [CLS] before and [SEP] behind them."""
    if not isinstance(processor, dict):
        return False
    if processor["type"] == "BertProcessing":
        around = [processor["cls"], processor["sep"]]
        return around == [[token, vocabulary.get(token)] for token in ("[CLS]", "[SEP]")]
    names = [part["id"] for piece in processor["single"] for part in piece.values()]
    ids = {name: token["ids"] for name, token in processor["special_tokens"].items()}
    return names == ["[CLS]", "A", "[SEP]"] and all(
        ids[token] == [vocabulary.get(token)] for token in ("[CLS]", "[SEP]")
    )
