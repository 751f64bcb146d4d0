"""What a tokenizer.json may declare: parts that neither blow a text up nor encode it at random."""

import json
from collections.abc import Iterator
from typing import Any

MAX_FILE = 2**26  # bytes
MAX_ID = 2**24
MAX_WORD = 1000  # characters; cutting takes their cube
MAX_AFFIX = 16  # characters of what joins the pieces of a word
MAX_TEMPLATE = 8  # pieces around a text, and tokens in each
PARTS = {  # of the kinds that the library knows; the others may lengthen a text without a bound
    "model": ("WordPiece", "WordLevel", "BPE", "Unigram"),
    "normalizer": (
        *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip"),
        *("StripAccents", "Sequence"),
    ),
    "pre_tokenizer": (
        *("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits"),
        *("Metaspace", "ByteLevel", "UnicodeScripts", "Sequence"),
    ),
    "post_processor": ("TemplateProcessing", "BertProcessing", "RobertaProcessing", "Sequence"),
}
INSIDE = {  # where the parts of a Sequence stand
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
}


def safe_content(text: str) -> str:
    """A tokenizer.json without lengths, fillings and a decoder of its own.

    Raises:
        ValueError: it is no such file, or declares what is not read, all of it at once.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError("it is no JSON object with a model")
    problems = [
        f"the {part} {kind!r} is not read ({', '.join(PARTS[part])} are)"
        for part in PARTS
        for kind in _kinds(content.get(part), part)
        if kind not in PARTS[part]
    ]
    problems += _problems(content["model"], content.get("added_tokens"))
    problems += [
        f"its template is not one text among at most {MAX_TEMPLATE} pieces"
        for processor in _sequence(content.get("post_processor"), "post_processor")
        if processor.get("type") == "TemplateProcessing" and not _is_short(processor)
    ]
    if problems:
        raise ValueError("; ".join(problems))
    return json.dumps(content | {"truncation": None, "padding": None, "decoder": None})


def _kinds(value: Any, part: str) -> Iterator[str]:
    for step in _sequence(value, part):
        # Old files leave out what the model is, and the library finds it out.
        yield step.get("type", "WordPiece" if part == "model" else None)


def _sequence(value: Any, part: str) -> Iterator[dict[str, Any]]:
    """The steps of a part, those of a Sequence one by one."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise ValueError(f"the {part} is no JSON object")
    yield value
    steps = value.get(INSIDE.get(part, ""), ())
    if not isinstance(steps, list | tuple):
        raise ValueError(f"the {part} is no sequence")
    for step in steps:
        yield from _sequence(step, part)


def _problems(model: dict[str, Any], added: Any) -> Iterator[str]:
    """What is wrong with the vocabulary and how words are cut."""
    vocabulary, added = model.get("vocab"), added or []
    if model.get("type") == "Unigram" and isinstance(vocabulary, list):
        ids = list(range(len(vocabulary)))
    elif isinstance(vocabulary, dict):
        ids = list(vocabulary.values())
        unknown = model.get("unk_token")
        if unknown is not None and unknown not in vocabulary:
            yield f"the vocabulary lacks its unknown token {unknown!r}"
    else:
        ids = [None]
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        yield "the added tokens are no list of objects"
        added = []
    ids += [token.get("id") for token in added]
    if not all(type(number) is int and 0 <= number < MAX_ID for number in ids):
        yield f"its tokens have no numbers from 0 to {MAX_ID - 1}"
    elif isinstance(vocabulary, dict) and len(set(vocabulary.values())) < len(vocabulary):
        yield "two tokens of the vocabulary have the same number"
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        sign = model.get(affix) or ""
        if not isinstance(sign, str) or len(sign) > MAX_AFFIX:
            yield f"its {affix} is no text of at most {MAX_AFFIX} characters"
    longest = model.get("max_input_chars_per_word", 0)
    if type(longest) is not int or longest > MAX_WORD:
        yield f"it cuts words of more than {MAX_WORD} characters, which takes for ever"
    if model.get("dropout"):
        yield "its model encodes at random (dropout)"


def _is_short(template: dict[str, Any]) -> bool:
    """Whether a template repeats neither the text nor much else, and explains its tokens."""
    single, special = template.get("single"), template.get("special_tokens")
    if not isinstance(single, list) or not isinstance(special, dict) or len(single) > MAX_TEMPLATE:
        return False
    pieces = [*single, *(template.get("pair") or ())]
    tokens = [piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece]
    texts = sum("Sequence" in piece for piece in single)
    lengths = [len(token["ids"]) for token in special.values()]
    return texts == 1 and set(tokens) <= special.keys() and max(lengths, default=0) <= MAX_TEMPLATE
