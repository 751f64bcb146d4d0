"""Tables in CSV files: inputs, and labels in one label space for train and test."""

import collections
import logging
import numbers
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from jaxtl.data.arrays import as_inputs
from jaxtl.data.dataset import Dataset
from jaxtl.data.sources.delimited_text import Format, read_cells
from jaxtl.data.sources.embedded import TEST_FRACTION, fixed_splits
from jaxtl.data.sources.label_spelling import label_space
from jaxtl.data.sources.names import class_names, nfc
from jaxtl.data.splits import Splits
from jaxtl.data.table import Call, Table, result_of

SHOWN_ERRORS = 5
DELIMITER = re.compile(r"[^\w\s.+\-\"]|[\t ]")

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
    out, which the log says. Blank lines, and lines of empty cells, are skipped.

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
    path, by_fraction = Path(path).expanduser(), isinstance(test, numbers.Real)

    def refuse(problem: str) -> None:
        raise ValueError(f"csv of {path}: {problem}")

    if not isinstance(label, str) or not label.strip():
        refuse(f"label must be the name of a column, got {label!r}")
    if not isinstance(delimiter, str) or not DELIMITER.fullmatch(delimiter):
        refuse(f"delimiter must be one sign such as ';', got {delimiter!r}")
    if by_fraction and not 0 < test < 1:
        refuse(f"test must be a fraction between 0 and 1 or a file, got {test!r}")
    if regression and classes is not None:
        refuse("numbers to predict (regression=True) have no classes")
    try:
        "".encode(encoding or "utf-8")
    except (LookupError, TypeError):
        refuse(f"there is no text encoding {encoding!r}")
    files = (str(path),) if by_fraction else (str(path), str(Path(test).expanduser()))
    form = Format(nfc(label.strip()), bool(regression), delimiter, encoding)
    names = class_names(classes)
    calls = [Call(_table, (file, files, form, names)) for file in files]
    if by_fraction:
        return fixed_splits(path.stem, Call(_divisible, (calls[0],)), float(test))
    train, held_out = calls
    return Splits(
        train=Dataset(f"{path.stem}.train", train), test=Dataset(f"{path.stem}.test", held_out)
    )


def _table(
    file: str, files: tuple[str, ...], form: Format, classes: tuple[str, ...] | None
) -> Table:
    """One of the files that share a label space."""
    if len(files) == 2 and all(map(os.path.isfile, files)) and os.path.samefile(*files):
        raise ValueError(f"{file} is to be both train and test")
    cells = {path: result_of(Call(read_cells, (path, form))) for path in files}
    features, others = cells[files[0]].numbers, cells[files[-1]].numbers
    if features.keys() != others.keys():
        missing = ", ".join(sorted(features.keys() - others.keys())) or "none"
        new = ", ".join(sorted(others.keys() - features.keys())) or "none"
        raise ValueError(
            f"{files[-1]} has other columns than {files[0]}: missing {missing}, new {new}"
        )
    inputs = {
        path: np.stack([read.numbers[f] for f in features], 1) for path, read in cells.items()
    }
    dtype = np.result_type(*(as_inputs(values).dtype for values in inputs.values()))
    column = f"column {form.label!r}"
    written = [label for read in cells.values() for label in read.labels]
    if form.regression:
        if all(value is None for value in written):
            raise ValueError(f"{file}, {column}: all labels are missing")
        values = np.array(cells[file].labels, np.float64)  # NaN for None
        return Table(inputs[file].astype(dtype), {"label": values})
    names, indices = label_space(written, classes, f"{', '.join(files)}: {column}")
    labels = np.array([indices.get(text, -1) for text in cells[file].labels], np.int32)
    _log_missing(file, cells[file].labels, labels, names)
    return Table(inputs[file].astype(dtype), {"label": labels}, {"label": names})


def _divisible(call: Call) -> Table:
    """The table, in which every class has enough rows for two parts."""
    table = result_of(call)
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


def _log_missing(
    file: str, texts: Sequence[str], labels: np.ndarray, names: tuple[str, ...]
) -> None:
    """Log the labels that are missing and the classes that are."""
    pairs = zip(texts, labels, strict=True)
    missing = collections.Counter(text for text, label in pairs if label < 0)
    if missing:
        shown = ", ".join(f"{text!r} {n}" for text, n in missing.most_common(SHOWN_ERRORS))
        logger.info(
            "%s: %d of %d labels are missing (%s)", file, missing.total(), len(labels), shown
        )
    present = set(labels.tolist())
    if absent := [name for i, name in enumerate(names) if i not in present]:
        logger.warning("%s: no row of the classes %s", file, ", ".join(absent[:10]))
