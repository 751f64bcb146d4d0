"""The roles of a table's columns: which are inputs, categories or labels, as users say it."""

import collections
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxtl.data.columns import names_of
from jaxtl.data.sources.label_spelling import number
from jaxtl.data.sources.names import class_names, nfc
from jaxtl.paths import unknown

UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)*)?")  # pandas names an index so

logger = logging.getLogger(__name__)


class Roles(NamedTuple):
    """What the user says of the columns, see `roles_of`.

    Attributes:
        labels: ((label column of the dataset, column of the table), ...).
        classes: ((label column, names of its classes), ...) as far as they are given.
        values: label columns of numbers to predict.
        columns: those of the inputs, in order; None for all that are no labels.
        drop: those that are no inputs.
        categories: ((column, its categories, or None for those that it holds), ...).
    """

    labels: tuple[tuple[str, str], ...]
    classes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    values: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    categories: tuple[tuple[str, tuple[str, ...] | None], ...] = ()


class Places(NamedTuple):
    """Positions of columns: {label column: its}, those of inputs, and of those without a name."""

    labels: dict[str, int]
    inputs: list[int]
    unnamed: list[int]


def roles_of(
    label: str | Sequence[str] | Mapping[str, str] | None,
    *,
    classes: Any,
    regression: bool | Sequence[str],
    columns: Sequence[str] | None,
    drop: Sequence[str],
    categorical: Sequence[str] | Mapping[str, Iterable[str] | None],
) -> Roles:
    """The roles of columns, of arguments as `csv` and `frame` take them.

    Raises:
        ValueError: arguments of another kind, or that contradict each other.
    """
    labels = label_columns(label)
    if twice := _twice([column for _, column in labels]):
        raise ValueError(f"label names the column {twice[0]!r} twice")
    heads = [head for head, _ in labels]
    values = tuple(heads) if regression is True else _names(regression or (), "regression")
    if strangers := [head for head in values if head not in heads]:
        raise ValueError(f"regression: {unknown('label', strangers[0], heads)}")
    by_head = classes if isinstance(classes, Mapping) else {} if classes is None else {"": classes}
    if "" in by_head and len(heads) != 1:
        raise ValueError(f"classes must be {{label: names}} for {len(heads)} labels")
    by_head = {h or heads[0]: class_names(names, h or heads[0]) for h, names in by_head.items()}
    for head in by_head:
        if head not in heads:
            raise ValueError(f"classes: {unknown('label', head, heads)}")
        if head in values:
            raise ValueError("numbers to predict (regression=True) have no classes")
    chosen, dropped = None if columns is None else _names(columns, "columns"), _names(drop, "drop")
    if chosen is not None and dropped:
        raise ValueError("columns= names the inputs and drop= what is none: give one of the two")
    if both := sorted({column for _, column in labels} & {*(chosen or ()), *dropped}):
        raise ValueError(
            f"column {both[0]!r} is a label, so it is no input"
            + ("; leave it out of drop=" if dropped else "; leave it out of columns=")
        )
    if isinstance(categorical, Mapping):
        named = {nfc(name): _categories(v, name) for name, v in categorical.items()}
    else:
        named = dict.fromkeys(_names(categorical, "categorical"))
    return Roles(labels, tuple(by_head.items()), values, chosen, dropped, tuple(named.items()))


def _categories(names: Iterable[Any] | None, column: str) -> tuple[str, ...] | None:
    texts = class_names(names, column)
    return texts and names_of((number(text) or text for text in texts), column)


def label_columns(
    label: str | Sequence[str] | Mapping[str, str] | None,
) -> tuple[tuple[str, str], ...]:
    """((label column of a dataset, where it comes from), ...) of the argument `label`.

    A single name is the column "label", several keep theirs, and a mapping gives them others.

    Raises:
        ValueError: it is something else.
    """
    if label is None:
        return ()
    pairs = [("label", label)]
    if isinstance(label, Mapping):
        pairs = list(label.items())
    elif isinstance(label, list | tuple):
        pairs = [(name, name) for name in label]
    for name in [name for pair in pairs for name in pair]:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(
                f"label must be the name of a column, got {name!r}; several are a list of names or "
                "{label: column}, none is None"
            )
    names = tuple((nfc(head.strip()), nfc(column.strip())) for head, column in pairs)
    if twice := _twice([head for head, _ in names]):
        raise ValueError(f"label names {twice[0]!r} twice")
    return names


def _names(names: Any, argument: str) -> tuple[str, ...]:
    """Names of columns.

    Raises:
        ValueError: they are something else, or one stands twice.
    """
    is_list = isinstance(names, list | tuple | np.ndarray)
    if not is_list or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"{argument} must be a list of names of columns, got {names!r}")
    names = tuple(nfc(name.strip()) for name in names)
    if twice := _twice(names):
        raise ValueError(f"{argument} names {twice[0]!r} twice")
    return names


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name, count in collections.Counter(names).items() if count > 1]


def places_of(header: Sequence[str], roles: Roles, place: str, hint: str = "") -> Places:
    """Where the columns stand that have a role.

    Args:
        header: all names, in Unicode's form NFC.
        place: for messages.
        hint: what may be wrong with the header.

    Raises:
        ValueError: two columns of a name, none of one that is given, or none that is an input.
    """
    positions: dict[str, list[int]] = {}
    for i, name in enumerate(header):
        positions.setdefault(name, []).append(i)
    if twice := [name for name in positions if name and len(positions[name]) > 1]:
        shown = [f"{n!r} is the name of the columns {_listed(positions[n])}" for n in twice]
        raise ValueError(f"{place}: {'; '.join(shown)}; rename or remove all but one")
    asked = [column for _, column in roles.labels]
    asked += [*(roles.columns or ()), *roles.drop, *dict(roles.categories)]
    if absent := [name for name in asked if name not in positions]:
        raise ValueError(f"{place}: {unknown('column', absent[0], header)}{hint}")
    labels = {head: positions[column][0] for head, column in roles.labels}
    if roles.columns is not None:
        inputs, unnamed = [positions[name][0] for name in roles.columns], []
    else:
        others = [i for i in range(len(header)) if i not in labels.values()]
        others = [i for i in others if header[i] not in roles.drop]
        unnamed = [i for i in others if UNNAMED.fullmatch(header[i])]
        inputs = [i for i in others if i not in unnamed]
    if no_input := [name for name in dict(roles.categories) if positions[name][0] not in inputs]:
        raise ValueError(f"{place}: the column {no_input[0]!r} of categorical= is no input")
    if not inputs:
        beside = f" beside {', '.join(repr(column) for _, column in roles.labels)}" * bool(labels)
        raise ValueError(f"{place} has no column of inputs{beside}")
    return Places(labels, inputs, unnamed)


def _listed(positions: Sequence[int]) -> str:
    return " and ".join(str(i + 1) for i in positions)


def unnamed_problems(header: Sequence[str], columns: Mapping[int, Sequence[str]]) -> list[str]:
    """What is wrong with columns {position: [n] texts} without a name, which are left out."""
    return [
        f"column {i + 1} has no name ({header[i]!r}) and more than row numbers; name or remove it"
        for i, cells in columns.items()
        if not _numbers_rows(cells)
    ]


def _numbers_rows(cells: Sequence[str]) -> bool:
    """Whether a column only tells the rows apart by whole numbers, or is empty."""
    whole = all(re.fullmatch(r"\d+", cell) for cell in cells)
    return (whole and len(set(cells)) == len(cells)) or not any(cells)


def warn_of_unnamed(place: str, header: Sequence[str], unnamed: Sequence[int]) -> None:
    """Log the columns that are left out."""
    for i in unnamed:
        logger.warning("%s: column %d has no name (%r) and is left out", place, i + 1, header[i])
