"""What arrays that a model does not read say about the architecture of a file."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxtl.pretrained.archives import shorten

_NAMES = 10  # of a kind, in a message
_CONFIG_BYTES = 2**20
_LENGTH = 200  # of names that are compared with those of the model

# {what it means: whole words of names that say so}, the first that fits counts.
_WORDS = {
    "LayerScale, a factor of each branch, which this model does not have": (
        r"ls_?[12]|gamma_[12]|layer_scale(_?[12])?|lambda_?[12]"
    ),
    "register tokens, which this model does not prepend": r"reg_tokens?|register_tokens?|registers",
    "norms of queries and keys, which this model does not have": (
        r"[qk]_norm|[qk]_ln|(query|key)_(layer_?)?norm"
    ),
    "a norm of the mean of the tokens instead of each (fc_norm)": r"fc_norm",
    "a norm before the first layer, which this model does not have": (
        r"norm_pre|pre_layr?norm|ln_pre"
    ),
    "the distillation token of DeiT, which this model does not prepend": (
        r"dist(illation)?_token|head_dist|distillation_classifier"
    ),
    "a layer between features and classifier (pre_logits), which this model does not have": (
        r"pre_logits"
    ),
    "relative positions, which this model does not have": (
        r"rel_pos(_bias|_[hw])?|relative_(position|attention)\w*|distance_embedding"
    ),
    "a class token, which this model does not prepend (its pooling is the mean)": (
        r"cls_token|cls$"
    ),
    "token types, which this model does not add (segments=0)": r"token_type_embeddings",
    "squeeze-and-excitation or another attention of channels, which this model does not have": (
        r"se|se_module|_se_\w+|eca|cbam|conv_reduce|conv_expand"
    ),
    "an anti-aliasing filter (BlurPool), which this model does not have": r"filt|aa|blur_?pool",
    "weights that the layer standardises, normalises or masks before it uses them": (
        r"gain|weight_(g|v|u|orig|mask|gain)|parametrizations"
    ),
    "RoBERTa or its kin, whose positions start at 2 and which has no token types": (
        r"(xlm_)?roberta|camembert|longformer|lm_head"
    ),
    'DistilBERT, which takes a model of its own: models.bert("distilbert", ...)': (
        r"distilbert|transformer\.layer|[qkv]_lin"
    ),
    "ALBERT, whose layers share their weights": r"albert\w*|embedding_hidden_mapping_in",
    "ELECTRA, whose embeddings may be projected": (
        r"electra|embeddings_project|discriminator_predictions|generator_\w+"
    ),
    "another kin of BERT": r"mpnet|deberta|mobilebert|funnel|nomic_bert|Wqkv",
    "a gated dense network, which this model does not have": r"w12|fc1_[gx]|gate|gate_proj|gated",
    "layers put in between afterwards, such as adapters": (
        r"crossattention|adapters?|lora_[AB]|prefix_encoder"
    ),
}
_MEANINGS = {re.compile(rf"\b({words})\b"): meaning for meaning, words in _WORDS.items()}


def meanings(leftover: Iterable[str], used: Iterable[str]) -> dict[str, list[str]]:
    """{what it means: the names that say so} of arrays that are not used.

    Args:
        leftover: their names.
        used: names of the arrays that are.
    """
    used, groups = set(used), {}
    depths: dict[str, list[str]] = {}
    # What the model reads too tells it from nothing.
    telling = {p: m for p, m in _MEANINGS.items() if not any(map(p.search, used))}
    places = {place for name in used for place in _around_numbers(name)}
    for name in leftover:
        # Only its number keeps it from being used: it is of a further layer.
        prefix = next((place[0] for place in _around_numbers(name) if place in places), "")
        meaning = next((m for pattern, m in telling.items() if pattern.search(name)), "")
        if prefix:
            depths.setdefault(prefix, []).append(name)
        elif meaning:
            groups.setdefault(meaning, []).append(name)
        elif name.endswith(".bias") and f"{name.removesuffix('bias')}weight" in used:
            groups.setdefault("biases that this model does not add", []).append(name)
        else:
            groups.setdefault("", []).append(name)
    for prefix, names in depths.items():
        in_file, in_model = _count(prefix, names), _count(prefix, used)
        groups[
            f"a deeper network: {prefix}* has {in_file} layers in the file, {in_model} in the model"
        ] = names
    return groups


def lines(groups: Mapping[str, list[str]]) -> list[str]:
    """One line a group, with the first of its names."""
    return [
        f"{meaning or 'no array of the model'} ({len(names)}): "
        + ", ".join(shorten(name) for name in names[:_NAMES])
        + (f", ... and {len(names) - _NAMES} more" if len(names) > _NAMES else "")
        for meaning, names in groups.items()
    ]


def roberta_problems(file: Mapping[str, np.ndarray]) -> list[str]:
    """A line if a file has the names of BERT, and the shapes of RoBERTa."""

    def rows(table: str) -> int:
        pattern = rf"(^|\.)embeddings\.{table}_embeddings\.weight$"
        return next((len(a) for n, a in file.items() if a.ndim and re.search(pattern, n)), 0)

    positions = rows("position")
    length = positions - 2  # of a text, a power of 2
    if rows("token_type") != 1 or length < 1 or length & (length - 1):
        return []
    return [
        f"{positions} positions and one token type are those of RoBERTa, whose "
        "positions start at 2: the names are BERT's, the function is not"
    ]


def config_problems(path: Path, config: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """A line for each key of the `config.json` beside a file that says something else.

    Args:
        path: of the file.
        config: as in `Scheme`.

    Raises:
        ValueError: it cannot be read.
    """
    beside = path.with_name("config.json")
    if not config or not beside.is_file():
        return []
    try:
        with beside.open("rb") as file:
            content = json.loads(file.read(_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {beside}: {shorten(error)}.") from error
    if not isinstance(content, dict):
        return []
    return [
        f"{beside.name} beside it says {key} {shorten(json.dumps(content[key]))}, expected "
        + " or ".join(map(json.dumps, values))
        for key, values in config.items()
        if key in content and content[key] not in values
    ]


def _around_numbers(name: str) -> list[tuple[str, str]]:
    """What stands before and behind each number in a name, the last number first."""
    if len(name) > _LENGTH:
        return []
    matches = re.finditer(r"(?<![A-Za-z0-9])\d+(?=[./])", name)
    return [(name[: match.start()], name[match.end() :]) for match in matches][::-1]


def _count(prefix: str, names: Iterable[str]) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)[./]")
    return 1 + max(int(match[1]) for name in names if (match := pattern.match(name)))
