"""Class labels as they are written in text: missing ones, numbers, and which are the same."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtl.data.sources.names import natural, refuse_alike
from jaxtl.paths import unknown

MISSING = frozenset({"", "na", "nan", "n/a", "null", "none", "<na>", "#n/a", "?"})  # in any case
MANY = 50  # classes are odd if they are more, and
ODD_SHARE = 0.2  # more than this share of the labelled rows
SHOWN = 5
REMEDY = "pass regression=True if they are to be predicted, classes= if they are classes"
COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
WHOLE = re.compile(r"([+-]?)(0|[1-9][0-9]*)(\.0*)?")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class LabelSpace(NamedTuple):
    """Class names and the index of each spelling."""

    names: tuple[str, ...]
    indices: Mapping[str, int]

    def index(self, text: str) -> int:
        """Of the class that a label means, -1 if it is missing."""
        return self.indices.get(text, -1)


def label_space(
    labels: Sequence[str], classes: tuple[str, ...] | None, column: str, files: Iterable[str]
) -> LabelSpace:
    """The classes of some labels.

    Args:
        labels: as they are written.
        classes: names of the classes, None for those that the labels name.
        column, files: for messages.

    Raises:
        ValueError: labels that are not among `classes`; without `classes`: no label, labels that
            seem to be values, or two spellings of what seems to be one class.
    """
    what = f"{', '.join(files)}: {column}"
    texts = set(labels)
    if classes is not None:
        return _given(texts, classes, what)
    texts = {text for text in texts if text.casefold() not in MISSING}
    if not texts:
        raise ValueError(f"{what}: all labels are missing; say which classes there are: classes=")
    numbers = {text: number(text) for text in texts}
    numeric = None not in numbers.values()
    labelled = sum(text in texts for text in labels)
    if numeric:
        _refuse_values(set(numbers.values()), labelled, what)
        names = tuple(sorted(set(numbers.values()), key=int))
        return LabelSpace(names, {t: names.index(n) for t, n in numbers.items()})
    if all(map(COMMA.fullmatch, texts)):
        raise ValueError(
            f"{what}: labels such as {min(texts)!r} are numbers with a decimal comma; write a "
            f"point and {REMEDY}"
        )
    if len(texts) > max(MANY, ODD_SHARE * labelled):
        raise ValueError(
            f"{what}: {len(texts)} different labels in {labelled} rows, such as {min(texts)!r}; if "
            "they are classes, name them in classes="
        )
    spellings: dict[str, list[str]] = {}
    for text in sorted(texts):
        spellings.setdefault(numbers[text] or _plain(text), []).append(text)
    if twice := [" and ".join(map(repr, same)) for same in spellings.values() if len(same) > 1]:
        raise ValueError(
            f"{what}: the same number in different spellings: {'; '.join(twice[:SHOWN])}; write "
            "them alike, or name them in classes="
        )
    refuse_alike(sorted(texts), f"{what}: labels")
    names = tuple(sorted(texts, key=natural))
    return LabelSpace(names, {name: i for i, name in enumerate(names)})


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


def _plain(text: str) -> str:
    """Digits without the zeros in front of them; another text as it is."""
    return text.lstrip("0") or "0" if text.isdecimal() else text


def _given(texts: set[str], classes: tuple[str, ...], what: str) -> LabelSpace:
    by_number: dict[Any, int] = {}
    for i, name in enumerate(classes):
        value = number(name)
        if value in by_number and value is not None:
            raise ValueError(f"{what}: classes has {classes[by_number[value]]!r} and {name!r}")
        by_number[value] = i
    by_number.pop(None, None)
    indices = {name: i for i, name in enumerate(classes)}
    strangers = []
    for text in sorted(texts):
        if text not in indices and (value := number(text)) in by_number:
            indices[text] = by_number[value]
        elif text not in indices and text.casefold() not in MISSING:
            strangers.append(text)
    if strangers:
        shown = " ".join(unknown("class", text, classes) for text in strangers[:SHOWN])
        more = f" {len(strangers) - SHOWN} more." if len(strangers) > SHOWN else ""
        raise ValueError(f"{what}: {shown}{more}")
    return LabelSpace(classes, indices)


def _refuse_values(values: set[str], labelled: int, what: str) -> None:
    """Refuse numbers that do not seem to be classes."""
    if broken := [value for value in sorted(values) if not WHOLE.fullmatch(value)]:
        raise ValueError(f"{what}: {broken[0]!r} is no whole number; {REMEDY}")
    if len(values) > max(MANY, ODD_SHARE * labelled):
        raise ValueError(f"{what}: {len(values)} different numbers in {labelled} rows; {REMEDY}")
