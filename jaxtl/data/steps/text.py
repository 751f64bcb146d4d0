"""Texts as token ids of a fixed length."""

import contextlib
import dataclasses
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxtl.data.steps.tokenizer_files import MAX_FILE, safe_content
from jaxtl.data.table import Table

CHUNK = 1024  # texts encoded at a time
SURROGATE = re.compile("[\ud800-\udfff]")

logger = logging.getLogger(__name__)


def tokenize(table: Table, file: str, length: int, lowercase: bool) -> Table:
    """See `Dataset.tokenize`."""
    texts, tokenizer = _texts(table.inputs), _tokenizer(Path(file), lowercase)
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id("[PAD]"))
    ids, mask = (np.zeros((len(texts), length), np.int32) for _ in range(2))
    cut = 0
    for start in range(0, len(texts), CHUNK):
        for row, encoding in enumerate(_encode(tokenizer, texts[start : start + CHUNK]), start):
            ids[row], mask[row] = encoding.ids, encoding.attention_mask
            cut += bool(encoding.overflowing)
    if cut:
        logger.info("%d of %d texts are cut to %d tokens", cut, len(texts), length)
    return dataclasses.replace(table, inputs={"ids": ids, "mask": mask})


def _texts(inputs: Any) -> list[str]:
    if not isinstance(inputs, np.ndarray) or inputs.ndim != 1 or inputs.dtype.kind not in "OUS":
        kinds = getattr(inputs, "dtype", type(inputs).__name__)
        raise ValueError(f"tokenize needs one text an example, an array [n] of str; got {kinds}")
    rows = enumerate(inputs)
    texts = [_decode(row, text) if isinstance(text, bytes) else text for row, text in rows]
    if strange := [row for row, text in enumerate(texts) if not isinstance(text, str)]:
        raise ValueError(
            f"tokenize needs texts, but {len(strange)} of {len(texts)} rows hold something else, "
            f"such as {texts[strange[0]]!r} in row {strange[0]}"
        )
    return texts


def _encode(tokenizer: Any, texts: list[str]) -> list[Any]:
    if broken := list(filter(SURROGATE.search, texts)):
        raise ValueError(f"tokenize needs whole characters, but {broken[0][:40]!r} has half of one")
    with _library_errors("the tokenizer cannot encode the texts"):
        return tokenizer.encode_batch(texts)


@contextlib.contextmanager
def _library_errors(message: str) -> Iterator[None]:
    """Everything that the library raises as a ValueError of one line."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # it raises nothing narrower, and its panics are no Exception
        raise ValueError(f"{message}: {' '.join(str(error).split())}") from error


def _decode(row: int, text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"tokenize needs UTF-8, but the bytes in row {row} are none: {error}"
        ) from None


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
    with _library_errors(f"cannot read the tokenizer file {file}"):
        if file.suffix == ".json":
            tokenizer = tokenizers.Tokenizer.from_str(safe_content(file.read_text("utf-8")))
        else:
            tokenizer = tokenizers.BertWordPieceTokenizer(str(file), lowercase=lowercase)
    special = {token: tokenizer.token_to_id(token) for token in ("[PAD]", "[CLS]", "[SEP]")}
    if missing := [token for token, number in special.items() if number is None]:
        raise ValueError(f"the tokenizer file {file} lacks {', '.join(missing)}")
    tokenizer.no_padding()
    if tokenizer.encode("").ids != [special["[CLS]"], special["[SEP]"]]:
        raise ValueError(f"the tokenizer file {file} does not put [CLS] and [SEP] around a text")
    return tokenizer
