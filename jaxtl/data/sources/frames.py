"""Tables in the frames of pandas and polars, neither of which is imported."""

import decimal
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxtl.data.columns import names_of, plain_value
from jaxtl.data.sources.label_spelling import spelled
from jaxtl.data.sources.names import nfc
from jaxtl.data.sources.roles import Roles, places_of, roles_of, unnamed_problems, warn_of_unnamed
from jaxtl.data.sources.tables import Cells, as_splits, fraction_of, warn_of_row_numbers
from jaxtl.data.splits import Splits
from jaxtl.data.steps.one_hot import given
from jaxtl.data.table import Call

SHOWN_ERRORS = 5
LARGEST = float(np.finfo(np.float32).max)
PLAIN = re.compile(r"u?int(8|16|32|64)|float(16|32|64)|bool(ean)?")  # types of numbers
NUMBER = int | float | np.number | np.bool_
EXACT = 2**53  # whole numbers up to it are floats
REMEDIES = {  # of types that are no numbers, by how their names begin, longer ones first
    "datetime": "times; give numbers, such as the days since a date",
    "timestamp": "times; give numbers, such as the days since a date",
    "timedelta": "spans of time; give numbers, such as seconds",
    "date": "dates; give numbers, such as the days since a date",
    "time": "times of day; give numbers, such as seconds",
    "duration": "spans of time; give numbers, such as seconds",
    "period": "periods; give numbers, such as the year",
    "interval": "intervals; give their middles, or make them categories",
    "decimal": "decimals; convert them to floats",
    "complex": "complex numbers; give their parts as columns of their own",
    "list": "lists; give each part a column, or the whole to data.arrays",
    "array": "arrays; give each part a column, or the whole to data.arrays",
    "struct": "structures; give each part a column",
    "binary": "bytes, which are no number",
}


def frame(
    df: Any,
    label: str | Sequence[str] | Mapping[str, str] | None,
    *,
    name: str = "frame",
    test: float | Any = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] | Mapping[str, Iterable[str] | None] = (),
    classes: Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    regression: bool | Sequence[str] = False,
) -> Splits:
    """Train and test of a pandas or polars DataFrame, by the rules of `data.csv`.

        data.frame(df, label="survived", drop=["name"], categorical=["port"])

    Numbers and booleans are inputs, and so are categories (of pandas; Categorical and Enum of
    polars), which are one-hot in the order that their type declares. Texts and other columns are
    categories if `categorical` names them. The index is left out; missing values, times and nested
    columns are refused. The frame is read at once, and copied; `data.csv` reads when rows are used,
    so that `jaxtl.load` does without its file.

    A label column of categories has their names, unused ones too; those of other types are sorted,
    numbers by value, and 1.0 is the class `1`. None, NaN and NA are missing labels, and of texts
    what `data.csv` takes for missing.

    Args:
        df: one example a row. Names of columns that are numbers are given as text.
        label, columns, drop, categorical, classes, regression: see `data.csv`.
        name: for messages.
        test: a second frame with the same columns, or as `data.csv` takes it.

    Raises:
        ValueError: arguments of another kind, no frame, no rows, names of columns on several
            levels; columns that hold something else, all of them; what `data.csv` refuses.
    """
    try:
        roles = roles_of(
            label,
            classes=classes,
            regression=regression,
            columns=columns,
            drop=drop,
            categorical=categorical,
        )
        has_table = test is not None and not isinstance(test, numbers.Real)
        fraction = None if has_table else fraction_of(test, roles)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    parts = {"train": df, "test": test} if has_table else {"": df}
    tables = [_cells(part, roles, f"{name} {s}".strip()) for s, part in parts.items()]
    is_text = [values.dtype == object for values in tables[0].inputs.values()]
    reads = tuple(Call(given, (cells,)) for cells in tables)
    return as_splits(name, reads, roles, fraction, any(is_text))


def _cells(df: Any, roles: Roles, place: str) -> Cells:
    try:
        series = columns_of(df)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    names = [*series]
    places = places_of(names, roles, place)
    if not len(df):
        raise ValueError(f"{place} has no rows")
    categorical, problems, texts = dict(roles.categories), [], []
    inputs: dict[str, np.ndarray] = {}
    declared = {}

    def reading(name: str, read: Callable[[Any], Any]) -> Any:
        try:
            return read(series[name])
        except ValueError as error:
            problems.append(f"column {name!r} {error}")
            return None

    for name in (names[i] for i in (*places.inputs, *places.labels.values())):
        if space := reading(name, categories_of):
            declared[name] = space
    for i in places.inputs:
        name = names[i]
        if name in categorical or is_category(series[name]):
            values = reading(name, texts_of)
            inputs[name] = np.array([*(values or []), None], object)[:-1]
            _note_missing(problems, name, [value is None for value in inputs[name]])
        elif _is_text(series[name]):
            texts.append(name)
        else:
            inputs[name] = reading(name, numbers_of)
            if inputs[name] is not None:
                _note_missing(problems, name, np.isnan(inputs[name]))
    unnamed = {
        i: [text or "" for text in reading(names[i], texts_of) or ()] for i in places.unnamed
    }
    problems += unnamed_problems(names, unnamed)
    labels = {}
    for head, i in places.labels.items():
        read = numbers_of if head in roles.values else texts_of
        labels[head] = reading(names[i], read)
    if texts:
        named = [*categorical, *texts]
        problems.insert(
            0,
            f"texts in {', '.join(map(repr, texts[:SHOWN_ERRORS]))}: if they are categories, pass "
            f"categorical={named}; what is no input goes in drop=",
        )
    if problems:
        more = f"; {len(problems) - SHOWN_ERRORS} more" if len(problems) > SHOWN_ERRORS else ""
        raise ValueError(f"{place}: {'; '.join(problems[:SHOWN_ERRORS])}{more}")
    warn_of_unnamed(place, names, places.unnamed)
    warn_of_row_numbers(place, inputs)
    for head, values in labels.items():
        if head in roles.values:
            labels[head] = [None if np.isnan(value) else value for value in values]
        else:
            labels[head] = ["" if value is None else value for value in values]
    return Cells(place, inputs, labels, declared)


def is_frame(value: Any) -> bool:
    """Whether it is a DataFrame of pandas or polars."""
    return any(
        kind.__name__ == "DataFrame" and kind.__module__.split(".")[0] in ("pandas", "polars")
        for kind in type(value).__mro__
    )


def columns_of(df: Any) -> dict[str, Any]:
    """{name: series} of a frame.

    Raises:
        ValueError: it is none, or its names are on several levels or not all different.
    """
    if not is_frame(df):
        kind = type(df).__name__
        hints = {"LazyFrame": "; collect() makes one", "Series": "; to_frame() makes one"}
        hint = hints.get(kind, "; pandas.DataFrame(...) may make one")
        raise ValueError(f"expected a DataFrame of pandas or polars, got {kind}{hint}")
    names = [*df.columns]
    if levels := [name for name in names if isinstance(name, tuple)]:
        raise ValueError(
            f"the columns have names on several levels, such as {levels[0]}; give each one name: "
            'df.columns = ["_".join(map(str, name)) for name in df.columns]'
        )
    texts = [nfc(str(name).strip()) for name in names]
    if twice := sorted({text for text in texts if texts.count(text) > 1}):
        places = [str(i) for i, text in enumerate(texts, 1) if text == twice[0]]
        raise ValueError(
            f"{twice[0]!r} is the name of the columns {' and '.join(places)}; rename or remove all "
            "but one"
        )
    return dict(zip(texts, (df[name] for name in names), strict=True))


def _type(series: Any) -> str:
    """`datetime64[ns]`, `list(int64)`, ... in lower case."""
    return str(series.dtype).lower()


def is_category(series: Any) -> bool:
    """Whether its type is one of categories."""
    return _type(series).startswith(("category", "categorical", "enum", "dictionary"))


def categories_of(series: Any) -> tuple[str, ...] | None:
    """The names that the type of a series declares, in order; None if it declares none.

    Raises:
        ValueError: two of them are written alike.
    """
    if not _type(series).startswith(("category", "enum")):
        return None  # polars' Categorical shares its names with all other columns
    return names_of(map(_name, series.dtype.categories), str(series.name))


def _name(value: Any) -> str | None:
    """Of a class or category."""
    value = plain_value(value)
    is_plain = value is None or isinstance(value, str | numbers.Real | np.bool_)
    return spelled(value) if is_plain and not isinstance(value, decimal.Decimal) else str(value)


def _is_text(series: Any) -> bool:
    if _type(series).startswith("object"):
        return bool(kinds := _kinds(series)) and kinds <= {"str", "str_"}
    return _type(series).startswith(("string", "large_string")) or _type(series) == "str"


def _kinds(series: Any) -> set[str]:
    """The types of the values that are not missing."""
    values = (value for value in series.to_list() if plain_value(value) is not None)
    return {type(value).__name__ for value in values}


def texts_of(series: Any) -> list[str | None]:
    """The values as names of classes or categories, None where they are missing.

    Raises:
        ValueError: they are no names.
    """
    _refuse(series, but=("date", "interval", "period", "decimal"))
    kinds = _kinds(series)
    if len(kinds) > 1 and kinds & {"str", "str_"}:
        raise ValueError(f"holds values of the types {', '.join(sorted(kinds))}")
    if nested := kinds & {"list", "tuple", "dict", "set", "ndarray", "bytes"}:
        raise ValueError(f"holds values of the type {nested.pop()}, which name nothing")
    values = series.to_list()
    names = {key: _name(key[1]) for key in {(type(value), value) for value in values}}
    return [names[type(value), value] for value in values]


def numbers_of(series: Any) -> np.ndarray:
    """The values as float64 [n], NaN where they are missing.

    Raises:
        ValueError: they are something else, infinite, or whole numbers that floats do not tell
            apart.
    """
    _refuse(series)
    if PLAIN.fullmatch(_type(series)):
        is_pandas = hasattr(series, "index")
        options = {"dtype": np.float64, "na_value": np.nan} if is_pandas else {}
        floats = np.array(series.to_numpy(**options), np.float64)  # a copy, NaN for None
    else:
        raw = series.to_list()
        values = [plain_value(value) for value in raw]
        pairs = zip(raw, values, strict=True)
        if others := {type(r).__name__ for r, v in pairs if not isinstance(v, NUMBER | None)}:
            raise ValueError(f"holds values of the types {', '.join(sorted(others))}, no numbers")
        if values and not any(value is not None for value in values):
            raise ValueError("holds no value")
        floats = np.array(values, np.float64)  # NaN for None
    if (beyond := np.abs(floats) > LARGEST).any():
        row = int(np.argmax(beyond))
        raise ValueError(f"holds {floats[row]:g} in row {row}, which float32 does not")
    large = np.flatnonzero(np.abs(floats) > EXACT)
    values = series.to_list() if len(large) else []
    if any(isinstance(values[i], int | np.integer) and values[i] != int(floats[i]) for i in large):
        raise ValueError(
            "holds whole numbers beyond 2**53, which floats do not tell apart; if they name "
            "something make them categories, else leave them out"
        )
    return floats


def _refuse(series: Any, but: Sequence[str] = ()) -> None:
    """Raises ValueError for types that are no numbers, and say so."""
    kind = _type(series)
    for word, remedy in REMEDIES.items():
        if kind.startswith(word) and not kind.startswith(tuple(but) or " "):
            raise ValueError(f"holds {remedy}")


def _note_missing(problems: list[str], name: str, missing: Any) -> None:
    missing = np.asarray(missing, bool)
    if missing.any():
        rows = f"{missing.sum()} of {len(missing)} rows, first in row {np.argmax(missing)}"
        problems.append(
            f"column {name!r}: missing values in {rows}; fill them in, or remove the rows or the "
            "column"
        )
