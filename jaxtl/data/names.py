"""Names of classes as users write them: which are the same, and in which order they stand."""

import operator
import re
import unicodedata
from collections.abc import Iterable
from typing import Any


def natural(name: str) -> tuple[Any, ...]:
    """Key of the order 0, 1, 2, 10 and image2, image10; of plain text it is the usual one."""
    parts: list[Any] = re.split(r"([0-9]+)", name)  # text and digits in turn
    for i, digits in enumerate(parts[1::2]):
        number = digits.lstrip("0")
        parts[2 * i + 1] = (len(number), number)
    return tuple(parts), name


def nfc(name: str) -> str:
    """One Unicode form (NFC) of a name: macOS writes others than Linux and Windows."""
    return unicodedata.normalize("NFC", name)


def class_names(classes: Any) -> tuple[str, ...] | None:
    """The argument `classes`: names or whole numbers in any iterable; None if it is.

    Raises:
        ValueError: no names, something else than text and whole numbers, or a name given twice.
    """
    if classes is None:
        return None
    if isinstance(classes, str | bytes) or not isinstance(classes, Iterable):
        raise ValueError(f'classes must be several names, such as ["cat", "dog"]; got {classes!r}')
    names = tuple(map(_class_name, classes))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"classes names twice: {', '.join(twice)}")
    if not names:
        raise ValueError("classes is empty; leave it out to take those in the files")
    return names


def _class_name(value: Any) -> str:
    if isinstance(value, str):
        return nfc(str(value))
    try:
        if not isinstance(value, bool):
            return str(operator.index(value))
    except TypeError:
        pass
    raise ValueError(f"classes must be text or whole numbers; got {value!r}")


def refuse_alike(names: Iterable[str], what: str) -> None:
    """Refuse names that only upper and lower case tell apart.

    Raises:
        ValueError: naming them, and how to say that they are meant.
    """
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(name.casefold(), []).append(name)
    problems = [" and ".join(map(repr, same)) for same in spellings.values() if len(same) > 1]
    if problems:
        raise ValueError(
            f"{what} that differ only in case: {'; '.join(problems[:5])}; write them alike, or "
            "name them in classes= if they are different classes"
        )
