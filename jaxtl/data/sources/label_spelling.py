"""Class labels as they are written in text: missing ones, numbers, and which are the same."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtl.data.columns import plain_value
from jaxtl.data.sources.names import natural, nfc, refuse_alike, spelled_twice
from jaxtl.paths import unknown

MISSING = frozenset({"", "na", "nan", "n/a", "null", "none", "<na>", "#n/a", "?"})  # in any case
MANY = 50  # classes are odd if they are more, and
ODD_SHARE = 0.2  # more than this share of the labelled rows
SHOWN = 5
REMEDY = "pass regression=True if they are to be predicted, classes= if they are classes"
COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
WHOLE = re.compile(r"([+-]?)(0|[1-9][0-9]*)(\.0*)?")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def label_space(
    labels: Sequence[str], classes: tuple[str, ...] | None, what: str
) -> tuple[tuple[str, ...], dict[str, int]]:
    """(names of the classes, {spelling: its class}) of some labels; missing ones have no class.

    Args:
        labels: as they are written.
        classes: names of the classes, None for those that the labels name.
        what: the files and the column, for messages.

    Raises:
        ValueError: labels that are not among `classes`; without `classes`: no label, labels that
            seem to be values, or two spellings of what seems to be one class.
    """
    texts = set(labels)
    if classes is not None:
        return classes, _matched(texts, classes, what)
    texts = sorted(text for text in texts if not is_missing(text))
    if not texts:
        raise ValueError(f"{what}: all labels are missing; say which classes there are: classes=")
    numbers = {text: number(text) for text in texts}
    labelled = sum(not is_missing(text) for text in labels)
    if None not in numbers.values():
        _refuse_values(set(numbers.values()), labelled, what)
        names = tuple(sorted(set(numbers.values()), key=int))
        return names, {text: names.index(value) for text, value in numbers.items()}
    if all(map(COMMA.fullmatch, texts)):
        raise ValueError(
            f"{what}: labels such as {texts[0]!r} are numbers with a decimal comma; write a "
            f"point and {REMEDY}"
        )
    if len(texts) > max(MANY, ODD_SHARE * labelled):
        raise ValueError(
            f"{what}: {len(texts)} different labels in {labelled} rows, such as {texts[0]!r}; if "
            "they are classes, name them in classes="
        )
    if twice := spelled_twice(texts, lambda text: numbers[text] or _without_zeros(text)):
        raise ValueError(
            f"{what}: the same number in different spellings: {'; '.join(twice[:SHOWN])}; write "
            "them alike, or name them in classes="
        )
    refuse_alike(texts, f"{what}: labels")
    names = tuple(sorted(texts, key=natural))
    return names, {name: i for i, name in enumerate(names)}


def spelled(value: Any) -> str | None:
    """The text of a value that names a class or a category, None where it is missing.

    Texts of numbers are written as these are: `1` for 1, 1.0, "1.0" and "1e0".
    """
    value = plain_value(value)
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    text = nfc(value) if isinstance(value, str) else repr(np.asarray(value).item())
    return number(text) or text


def is_missing(text: str) -> bool:
    """Whether a cell stands for nothing."""
    return text.casefold() in MISSING


def number(text: str) -> str | None:
    """The one spelling of a number in decimal digits, None if a text is none.

    Digits behind a leading zero, as in `007`, are a code and no number.
    """
    if match := WHOLE.fullmatch(text):
        sign, digits, _ = match.groups()
        return ("-" if sign == "-" and digits != "0" else "") + digits
    if not NUMBER.fullmatch(text) or re.match(r"[+-]?0[0-9]", text):
        return None
    value = float(text)
    if abs(value) == float("inf"):
        return None
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _without_zeros(text: str) -> str:
    """Digits without the zeros in front of them; another text as it is."""
    return text.lstrip("0") or "0" if text.isdecimal() else text


def _matched(texts: set[str], classes: tuple[str, ...], what: str) -> dict[str, int]:
    """{spelling: its class}, the same if the text is, or the number that it is."""
    numeric = {name: number(name) for name in classes if number(name) is not None}
    if twice := spelled_twice(numeric, numeric.get):
        raise ValueError(f"{what}: classes has {twice[0]}")
    places = {name: i for i, name in enumerate(classes)}
    by_number = {value: places[name] for name, value in numeric.items()}
    others = texts - places.keys()
    places |= {text: by_number[number(text)] for text in others if number(text) in by_number}
    strangers = [text for text in sorted(others - places.keys()) if not is_missing(text)]
    if strangers:
        shown = " ".join(unknown("class", text, classes) for text in strangers[:SHOWN])
        more = f" {len(strangers) - SHOWN} more." if len(strangers) > SHOWN else ""
        raise ValueError(f"{what}: {shown}{more}")
    return places


def _refuse_values(values: set[str], labelled: int, what: str) -> None:
    """Refuse numbers that do not seem to be classes."""
    if broken := [value for value in sorted(values) if not WHOLE.fullmatch(value)]:
        raise ValueError(f"{what}: {broken[0]!r} is no whole number; {REMEDY}")
    if len(values) > max(MANY, ODD_SHARE * labelled):
        raise ValueError(f"{what}: {len(values)} different numbers in {labelled} rows; {REMEDY}")
