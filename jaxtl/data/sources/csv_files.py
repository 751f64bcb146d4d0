"""Tables in CSV files: cells, and the numbers and class names that they stand for."""

import collections
import logging
import numbers
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtl.data.arrays import as_inputs
from jaxtl.data.dataset import Dataset
from jaxtl.data.sources.delimited_text import rows_of
from jaxtl.data.sources.embedded import TEST_FRACTION, fixed_splits
from jaxtl.data.sources.label_spelling import MISSING, LabelSpace, label_space
from jaxtl.data.sources.names import class_names, nfc
from jaxtl.data.sources.stamps import stamp
from jaxtl.data.splits import Splits
from jaxtl.data.table import Call, Table, loaded
from jaxtl.paths import unknown

SHOWN_ERRORS = 5
MANY_ROWS = 10  # numbers that count up through fewer are no surprise
LARGEST = float(np.finfo(np.float32).max)
TRUTH = {"true": 1.0, "false": 0.0}
DELIMITERS = ",;\t|"  # of which one may be the right one
UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)*)?")  # pandas names an index so
OVERFLOW = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
PUNCTUATED = re.compile(r"[+-]?\d[\d.,'_\s]*")

logger = logging.getLogger(__name__)


def csv(
    path: str | os.PathLike,
    label: str,
    *,
    test: float | str | os.PathLike = TEST_FRACTION,
    classes: Iterable[str] | None = None,
    regression: bool = False,
    delimiter: str = ",",
    encoding: str | None = None,
) -> Splits:
    """Train and test of a table whose first line names the columns.

    Cells are stripped of blanks. Inputs are finite numbers; `true` and `false` are 1 and 0. A
    column without a name, or `Unnamed: 0` of pandas, that only numbers the rows or is empty is left
    out, which the log says. Blank lines are skipped.

    A label that is empty, `NA`, `NaN`, `N/A`, `null`, `None`, `<NA>`, `#N/A` or `?`, in any case,
    is missing, unless `classes` names it. If all labels are numbers, they are the same class when
    they are the same number: `1.0` is the class `1`. Others are taken as they are written, in
    Unicode's form NFC.

    Args:
        path: the file; one example a line. Its text is UTF-8, or UTF-16 or 32 with a mark.
        label: column of the labels. All other columns are inputs [features], float32 (float64 if
            float32 could not tell rows apart, such as 1,000,000,000 and 1,000,000,001).
        test: a second file with the same columns, or the fraction of this one that is the test
            set (drawn once and for all, stratified, at least one row of each class).
        classes: names of the classes (text or whole numbers); by default those in the files,
            sorted, numbers by value.
        regression: labels are numbers to predict (float32), not names of classes.
        delimiter: what separates the cells.
        encoding: of files in other encodings, such as "latin-1".

    Raises:
        ValueError: arguments of another kind; on use, a file that is not such text, has no rows, no
            or two label columns, columns of the same name, an unclosed quote, rows shorter or
            longer than the first line, cells that are not numbers (with line and column); labels
            that are not among `classes`, are numbers to predict by all appearances, or are spelled
            in two ways; a class with a single row for train and test.
    """
    path = Path(path).expanduser()
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"csv of {path}: label must be the name of a column, got {label!r}")
    if not isinstance(delimiter, str) or not re.fullmatch(r"[^\w\s.+\-\"]|[\t ]", delimiter):
        raise ValueError(
            f"csv of {path}: delimiter must be one sign such as ';', got {delimiter!r}"
        )
    whole = isinstance(test, numbers.Real)
    if whole and not 0 < test < 1:
        raise ValueError(
            f"csv of {path}: test must be a fraction between 0 and 1 or a file, got {test!r}"
        )
    if regression and classes is not None:
        raise ValueError(f"csv of {path}: numbers to predict (regression=True) have no classes")
    try:
        "".encode(encoding or "utf-8")
    except (LookupError, TypeError):
        raise ValueError(f"csv of {path}: there is no text encoding {encoding!r}") from None
    files = (str(path),) if whole else (str(path), str(Path(test).expanduser()))
    shape = Format(nfc(label.strip()), bool(regression), delimiter, encoding)
    names, stamps = class_names(classes), tuple(map(stamp, files))
    calls = [Call(_table, (file, files, stamps, shape, names)) for file in files]
    if whole:
        return fixed_splits(path.stem, Call(_divisible, (calls[0],)), float(test))
    train, test_set = calls
    return Splits(
        train=Dataset(f"{path.stem}.train", train), test=Dataset(f"{path.stem}.test", test_set)
    )


class Format(NamedTuple):
    """What the user says about the files, see `csv`."""

    label: str
    regression: bool
    delimiter: str
    encoding: str | None


class Cells(NamedTuple):
    """A file: names of the features, numbers [n, features] float64, labels as they are written."""

    features: tuple[str, ...]
    numbers: np.ndarray
    labels: list[str]


def _table(
    file: str, files: tuple[str, ...], stamps: Any, form: Format, classes: tuple[str, ...] | None
) -> Table:
    """One of the files that share a label space."""
    if len(files) == 2 and all(map(os.path.isfile, files)) and os.path.samefile(*files):
        raise ValueError(f"{file} is to be both train and test")
    versions = zip(files, stamps, strict=True)
    cells = {path: loaded(Call(_cells, (path, version, form))) for path, version in versions}
    first, this = cells[files[0]].features, cells[file]
    if set(first) != set(this.features):
        missing, more = (
            ", ".join(sorted(names)) or "none"
            for names in (set(first) - set(this.features), set(this.features) - set(first))
        )
        raise ValueError(f"{file} has other columns than {files[0]}: missing {missing}, new {more}")
    dtypes = [as_inputs(_ordered(part, first)).dtype for part in cells.values()]
    inputs = _ordered(this, first).astype(np.result_type(*dtypes))  # one for both files
    column = f"column {form.label!r}"
    if form.regression:
        if not any(_is_known(text) for path in files for text in cells[path].labels):
            raise ValueError(f"{file}, {column}: all labels are missing")
        values = [_number(text) if _is_known(text) else np.nan for text in this.labels]
        return Table(inputs, {"label": np.array(values, np.float64)})
    space = label_space([x for path in files for x in cells[path].labels], classes, column, files)
    _tell(file, this.labels, space)
    indices = np.array([space.index(text) for text in this.labels], np.int32)
    return Table(inputs, {"label": indices}, {"label": space.names})


def _ordered(cells: Cells, features: tuple[str, ...]) -> np.ndarray:
    """Numbers [n, features] in this order."""
    return cells.numbers[:, [cells.features.index(name) for name in features]]


def _divisible(call: Call) -> Table:
    """The table, in which every class has enough rows for two parts."""
    table = loaded(call)
    labels = table.labels["label"]
    if len(table) < 2:
        raise ValueError("a single row cannot be divided into train and test")
    names = table.classes.get("label", ())
    if single := [name for i, name in enumerate(names) if np.sum(labels == i) == 1]:
        raise ValueError(
            f"a single row cannot be in both train and test: {len(single)} classes have one row "
            f"({', '.join(single[:SHOWN_ERRORS])}). Pass a second file as test=, remove them, or "
            "pass regression=True if the labels are numbers to predict"
        )
    return table


def _tell(file: str, labels: Sequence[str], space: LabelSpace) -> None:
    """Log the labels that are missing and the classes that are."""
    indices = collections.Counter(labels)
    missing = collections.Counter({x: n for x, n in indices.items() if space.index(x) < 0})
    if missing:
        shown = ", ".join(f"{text!r} {n}" for text, n in missing.most_common(SHOWN_ERRORS))
        logger.info(
            "%s: %d of %d labels are missing (%s)", file, missing.total(), len(labels), shown
        )
    present = {space.index(text) for text in indices}
    if absent := [name for i, name in enumerate(space.names) if i not in present]:
        logger.warning("%s: no row of the classes %s", file, ", ".join(absent[:10]))


def _cells(path: str, version: Any, form: Format) -> Cells:
    """Reads a file, in the version that it has; all its problems at once."""
    rows = rows_of(path, form.delimiter, form.encoding)
    header = [nfc(name) for name in next(rows, (0, []))[1]]
    label, features, unnamed = _columns(path, header, form)
    values, labels, problems = [], [], []
    extra: dict[int, list[str]] = {i: [] for i in unnamed}
    bad: dict[int, list[tuple[int, str]]] = {i: [] for i in range(len(header))}
    blank = 0
    for line, cells in rows:
        if not any(cells):
            blank += 1
        elif len(cells) != len(header):
            hint = ", the last one empty" if cells[-1] == "" else ""
            problems.append(f"line {line} has {len(cells)} cells{hint}, the header {len(header)}")
        else:
            values.append([_number(cells[i]) for i in features])
            for i, value in zip(features, values[-1], strict=True):
                if value is None:
                    bad[i].append((line, cells[i]))
            labels.append(nfc(cells[label]))
            if form.regression and _is_known(labels[-1]) and _number(labels[-1]) is None:
                bad[label].append((line, cells[label]))
            for i in unnamed:
                extra[i].append(cells[i])
    problems += [_not_numbers(header[i], cells) for i, cells in bad.items() if cells]
    problems += [
        f"column {i + 1} has no name ({header[i]!r}) and more than row numbers; name or remove it"
        for i, cells in extra.items()
        if not _numbers_rows(cells)
    ]
    if problems:
        shown = "; ".join(problems[:SHOWN_ERRORS])
        more = f"; {len(problems) - SHOWN_ERRORS} more" if len(problems) > SHOWN_ERRORS else ""
        raise ValueError(f"{path}: {shown}{more}")
    if not values:
        raise ValueError(f"{path} has no rows")
    if blank:
        logger.info("%s: %d lines of empty cells are skipped", path, blank)
    for i in unnamed:
        logger.warning("%s: column %d has no name (%r) and is left out", path, i + 1, header[i])
    names, table = tuple(header[i] for i in features), np.array(values, np.float64)
    for name, column in zip(names, table.T, strict=True):
        if len(table) >= MANY_ROWS and np.array_equal(column - column[0], range(len(table))):
            logger.warning("%s: column %r, which numbers the rows, is an input", path, name)
    return Cells(names, table, labels)


def _columns(path: str, header: list[str], form: Format) -> tuple[int, list[int], list[int]]:
    """Positions of the label, of the features and of columns without a name."""
    if not header:
        raise ValueError(f"{path} is empty")
    if len(header) == 1 and (others := [d for d in DELIMITERS if d in header[0]]):
        raise ValueError(
            f"{path} has one column, {header[0][:80]!r}; if {others[0]!r} separates its columns, "
            f"pass delimiter={others[0]!r}"
        )
    twice = collections.Counter(header)
    if problems := [
        f"{name!r} is the name of the columns "
        + " and ".join(str(i + 1) for i, other in enumerate(header) if other == name)
        for name, n in twice.items()
        if name and n > 1
    ]:
        raise ValueError(f"{path}: {'; '.join(problems)}; rename or remove all but one")
    if form.label not in header:
        numeric = any(_number(name) is not None for name in header)
        hint = " The first line should name the columns, but it holds numbers." if numeric else ""
        raise ValueError(f"{path}: {unknown('column', form.label, header)}{hint}")
    label = header.index(form.label)
    others = [i for i in range(len(header)) if i != label]
    unnamed = [i for i in others if UNNAMED.fullmatch(header[i])]
    features = [i for i in others if i not in unnamed]
    if not features:
        raise ValueError(f"{path} has no column of inputs beside {form.label!r}")
    return label, features, unnamed


def _number(text: str) -> float | None:
    """The finite number that float32 holds, None if a text is none."""
    try:
        value = float(text)
    except ValueError:
        return TRUTH.get(text.lower())
    return value if abs(value) <= LARGEST and "_" not in text else None


def _is_known(text: str) -> bool:
    return text.casefold() not in MISSING


def _not_numbers(column: str, cells: list[tuple[int, str]]) -> str:
    """What is wrong in a column: its first cell that is no number, and how many there are."""
    line, text = cells[0]
    shown = text if len(text) < 40 else text[:40] + "..."
    if not _is_known(text):
        reason = "is not a number but a missing value; fill it in, or remove the row or column"
    elif PUNCTUATED.fullmatch(text):
        reason = "is not a number; write it with a decimal point and no thousands separators"
    elif OVERFLOW.fullmatch(text):
        reason = "is not a number that float32 holds"
    else:
        reason = "is not a number"
    more = f" ({len(cells)} such cells in the column)" if len(cells) > 1 else ""
    return f"line {line}, column {column!r}: {shown!r} {reason}{more}"


def _numbers_rows(cells: list[str]) -> bool:
    """Whether a column only tells the rows apart by whole numbers, or is empty."""
    whole = all(re.fullmatch(r"\d+", cell) for cell in cells)
    return (whole and len(set(cells)) == len(cells)) or not any(cells)
