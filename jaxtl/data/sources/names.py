"""Names of classes as users write them: which are the same, and in which order they stand."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

from jaxtl.data.columns import names_of


def natural(name: str) -> tuple[Any, ...]:
    """Key of the order 0, 1, 2, 10 and image2, image10; of plain text it is the usual one."""
    parts: list[Any] = re.split(r"([0-9]+)", name)  # text and digits in turn
    for i, digits in enumerate(parts[1::2]):
        number = digits.lstrip("0")
        parts[2 * i + 1] = (len(number), number)
    return tuple(parts), name


def in_order(names: Iterable[str]) -> list[str]:
    """Numbers by their value if all names are whole ones, else the order of `natural`."""
    names = list(names)
    numeric = all(re.fullmatch(r"[+-]?[0-9]{1,99}", name) for name in names)
    return sorted(names, key=int) if numeric else sorted(names, key=natural)


def nfc(name: str) -> str:
    """One Unicode form (NFC) of a name: macOS writes others than Linux and Windows."""
    return unicodedata.normalize("NFC", name)


def class_names(classes: Iterable[Any] | None, column: str = "label") -> tuple[str, ...] | None:
    """The argument `classes` of data in files, or the categories of a column; None if it is.

    Raises:
        ValueError: it is a set, whose order changes from run to run, or no names for `names_of`.
    """
    if isinstance(classes, set | frozenset):
        raise ValueError(f"classes={classes} has no order; give a list, such as {sorted(classes)}")
    return None if classes is None else tuple(map(nfc, names_of(classes, column)))


def spelled_twice(names: Iterable[str], key: Callable[[str], str]) -> list[str]:
    """`'a' and 'A'`, for all names that share a key."""
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(key(name), []).append(name)
    return [" and ".join(map(repr, same)) for same in spellings.values() if len(same) > 1]


def refuse_alike(names: Iterable[str], what: str, argument: str = "classes=") -> None:
    """Refuse names that only upper and lower case, or blanks, tell apart.

    Args:
        argument: in which they can be named.

    Raises:
        ValueError: naming them, and how to say that they are meant.
    """
    if twice := spelled_twice(names, lambda name: " ".join(name.split()).casefold()):
        raise ValueError(
            f"{what} that differ only in case or blanks: {'; '.join(twice[:5])}; write them "
            f"alike, or name them in {argument} if they are different ones"
        )
