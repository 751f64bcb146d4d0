"""Tables in CSV files."""

import numbers
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtl.data.sources.delimited_text import Format, read_cells
from jaxtl.data.sources.roles import Roles, roles_of
from jaxtl.data.sources.tables import Cells, as_splits, fraction_of
from jaxtl.data.splits import Splits
from jaxtl.data.table import Call, result_of

DELIMITER = re.compile(r"[^\w\s.+\-\"]|[\t ]")


def csv(
    path: str | os.PathLike,
    label: str | Sequence[str] | Mapping[str, str] | None,
    *,
    test: float | str | os.PathLike | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] | Mapping[str, Iterable[str] | None] = (),
    classes: Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    regression: bool | Sequence[str] = False,
    delimiter: str = ",",
    encoding: str | None = None,
) -> Splits:
    """Train and test of a table whose first line names the columns.

        data.csv("titanic.csv", label="survived", drop=["name"], categorical=["sex", "port"])

    Cells are stripped of blanks. Inputs are finite numbers; `true` and `false` are 1 and 0. A
    column without a name, or `Unnamed: 0` of pandas, that only numbers the rows or is empty is left
    out, which the log says. Blank lines, and lines of empty cells, are skipped.

    A column of categories becomes one input of 0 and 1 for each of them (one-hot), in the place of
    the column. They are those of both files, sorted, numbers by value; `predict` of a trained model
    takes the rows as they were before, and refuses a category that is none of them. Texts to be
    tokenized are no categories: `data.hub("csv", data_files=path, inputs=column)` reads them.

    A label that is empty, `NA`, `NaN`, `N/A`, `null`, `None`, `<NA>`, `#N/A` or `?`, in any case,
    is missing, unless `classes` names it. If all labels are numbers, they are the same class when
    they are the same number: `1.0` is the class `1`. Others are taken as they are written, in
    Unicode's form NFC.

    Args:
        path: the file; one example a line. Its text is UTF-8, or UTF-16 or 32 with a mark.
        label: column of the labels, which becomes the label column "label". Several are a list of
            columns, which keep their names, or {label column: column}; of each, labels may be
            missing by themselves. None if there are no labels.
        test: a second file with the same columns, or the fraction of this one that is the test
            set (drawn once and for all, stratified by the first label, at least one row of each
            class); None for a fifth, or for no test set if there are no labels.
        columns: the inputs, in this order: [features], float32 (float64 if float32 could not tell
            rows apart, such as 1,000,000,000 and 1,000,000,001). None for all that are no labels.
        drop: columns that are no inputs, in the place of `columns`.
        categorical: the inputs that are categories, or {column: its categories in order}; None
            among these stands for those in the files.
        classes: names of the classes (text or whole numbers); by default those in the files,
            sorted, numbers by value. {label column: names} of several.
        regression: labels are numbers to predict (float32), not names of classes; of several
            labels, which are.
        delimiter: what separates the cells.
        encoding: of files in other encodings, such as "latin-1".

    Raises:
        ValueError: arguments of another kind; on use, a file that is not such text, has no rows,
            lacks a column that is named, columns of the same name, an unclosed quote, rows shorter
            or longer than the first line, cells that are not numbers (with line and column) or
            missing categories; labels that are not among `classes`, are numbers to predict by all
            appearances, or are spelled in two ways; a class with a single row for train and test;
            more than 1,000 categories.
    """
    path = Path(path).expanduser()
    is_file = test is not None and not isinstance(test, numbers.Real)
    try:
        if not isinstance(delimiter, str) or not DELIMITER.fullmatch(delimiter):
            raise ValueError(f"delimiter must be one sign such as ';', got {delimiter!r}")
        _check_encoding(encoding)
        roles = roles_of(
            label,
            classes=classes,
            regression=regression,
            columns=columns,
            drop=drop,
            categorical=categorical,
        )
        fraction = None if is_file else fraction_of(test, roles)
    except ValueError as error:
        raise ValueError(f"csv of {path}: {error}") from error
    files = (str(path), *([str(Path(test).expanduser())] if is_file else []))
    form = Format(delimiter, encoding)
    reads = tuple(Call(_read, (file, files, roles, form)) for file in files)
    return as_splits(path.stem, reads, roles, fraction, bool(roles.categories))


def _check_encoding(encoding: Any) -> None:
    try:
        "".encode(encoding or "utf-8")
    except (LookupError, TypeError):
        raise ValueError(f"there is no text encoding {encoding!r}") from None


def _read(file: str, files: tuple[str, ...], roles: Roles, form: Format) -> Cells:
    if len(files) == 2 and all(map(os.path.isfile, files)) and os.path.samefile(*files):
        raise ValueError(f"{file} is to be both train and test")
    return result_of(Call(read_cells, (file, roles, form)))
