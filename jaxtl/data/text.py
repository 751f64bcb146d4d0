"""Texts as token ids of a fixed length."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from jaxtl.data.table import Table

CHUNK = 1024  # texts encoded at a time

logger = logging.getLogger(__name__)


def tokenize(table: Table, file: str, length: int, lowercase: bool) -> Table:
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
    texts = [text.decode() if isinstance(text, bytes) else text for text in inputs]
    if strange := [row for row, text in enumerate(texts) if not isinstance(text, str)]:
        raise ValueError(
            f"tokenize needs texts, but {len(strange)} of {len(texts)} rows hold something else, "
            f"such as {texts[strange[0]]!r} in row {strange[0]}"
        )
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
    try:
        if file.suffix == ".json":
            tokenizer = tokenizers.Tokenizer.from_file(str(file))
        else:
            tokenizer = tokenizers.BertWordPieceTokenizer(str(file), lowercase=lowercase)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"cannot read the tokenizer file {file}: {error}") from error
    known = {token: tokenizer.token_to_id(token) for token in ("[PAD]", "[CLS]", "[SEP]")}
    if missing := [token for token, number in known.items() if number is None]:
        raise ValueError(f"the tokenizer file {file} lacks {', '.join(missing)}")
    tokenizer.no_padding()
    if tokenizer.encode("").ids != [known["[CLS]"], known["[SEP]"]]:
        raise ValueError(f"the tokenizer file {file} does not put [CLS] and [SEP] around a text")
    return tokenizer
