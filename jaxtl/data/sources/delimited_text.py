"""The cells of a text file, the numbers in its columns, and what is wrong with them."""

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtl.data.sources.label_spelling import is_missing, spelled
from jaxtl.data.sources.names import nfc
from jaxtl.data.sources.roles import Places, Roles, places_of, unnamed_problems, warn_of_unnamed
from jaxtl.data.sources.tables import Cells, warn_of_row_numbers

PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zX", b"\xd0\xcf\x11\xe0")
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # starts as UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SHOWN_ERRORS = 5
LARGEST = float(np.finfo(np.float32).max)
TRUTH = {"true": 1.0, "false": 0.0}
DELIMITERS = ",;\t|"  # of which one may be the right one
OVERFLOW = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
WORD = re.compile(r"(?!(na|n/a|nan|null|none|inf|infinity)$)[^\W\d_]", re.I)
PUNCTUATED = re.compile(r"[+-]?\d[\d.,'_\s]*")


class Format(NamedTuple):
    """What the user says about the text of files, see `csv`."""

    delimiter: str
    encoding: str | None


def read_cells(path: str, roles: Roles, form: Format) -> Cells:
    """Reads a file; all its problems at once."""
    rows = _rows(path, *form)
    header = [nfc(name) for name in next(rows, (0, []))[1]]
    labels, features, unnamed = _places(path, header, roles)
    categories = {header.index(name) for name in dict(roles.categories)}
    numeric = {*features} - categories | {labels[head] for head in roles.values}
    columns: list[list[Any]] = [[] for _ in header]
    wrong: list[list[tuple[int, str]]] = [[] for _ in header]
    problems = []
    for line, cells in rows:
        if len(cells) != len(header):
            hint = ", the last one empty" if cells[-1] == "" else ""
            problems.append(f"line {line} has {len(cells)} cells{hint}, the header {len(header)}")
            continue
        for i, cell in enumerate(cells):
            columns[i].append(number_of(cell) if i in numeric else cell)
            absent = columns[i][-1] is None or (i in categories and is_missing(cell))
            if absent and not (i in labels.values() and is_missing(cell)):
                wrong[i].append((line, cell))
    problems += [
        _wrong_cells(header[i], cells, i in categories) for i, cells in enumerate(wrong) if cells
    ]
    problems += unnamed_problems(header, {i: columns[i] for i in unnamed})
    if problems:
        shown = "; ".join(problems[:SHOWN_ERRORS])
        more = f"; {len(problems) - SHOWN_ERRORS} more" if len(problems) > SHOWN_ERRORS else ""
        texts = [i for i in features if wrong[i] and columns[i].count(None) == len(columns[i])]
        words = [header[i] for i in texts if all(WORD.match(cell) for _, cell in wrong[i])]
        hint = (
            f"; if they are categories: categorical={[*dict(roles.categories), *words]}"
            if words
            else ""
        )
        raise ValueError(f"{path}: {shown}{more}{hint}")
    if not any(columns):
        raise ValueError(f"{path} has no rows")
    warn_of_unnamed(path, header, unnamed)
    inputs = {
        header[i]: np.array([*_spelled(columns[i]), None], object)[:-1]
        if i in categories
        else np.array(columns[i], np.float64)
        for i in features
    }
    warn_of_row_numbers(path, inputs)
    written = {
        head: columns[i] if head in roles.values else [*map(nfc, columns[i])]
        for head, i in labels.items()
    }
    return Cells(path, inputs, written)


def _spelled(cells: list[str]) -> list[str | None]:
    names = {cell: spelled(cell) for cell in {*cells}}
    return [names[cell] for cell in cells]


def _places(path: str, header: list[str], roles: Roles) -> Places:
    """Positions of the columns that have a role; see `places_of`."""
    if not header:
        raise ValueError(f"{path} is empty")
    if len(header) == 1 and (others := [d for d in DELIMITERS if d in header[0]]):
        raise ValueError(
            f"{path} has one column, {header[0][:80]!r}; if {others[0]!r} separates its columns, "
            f"pass delimiter={others[0]!r}"
        )
    numeric = any(number_of(name) is not None for name in header)
    hint = " The first line should name the columns, but it holds numbers." if numeric else ""
    return places_of(header, roles, path, hint)


def number_of(text: str) -> float | None:
    """The finite number that float32 holds, None if a text is none."""
    try:
        value = float(text)
    except ValueError:
        return TRUTH.get(text.lower())
    return value if abs(value) <= LARGEST and "_" not in text else None


def _wrong_cells(column: str, cells: list[tuple[int, str]], is_category: bool) -> str:
    """What is wrong in a column: its first cell that is no number, or no category, and how many."""
    line, text = cells[0]
    shown = text if len(text) < 40 else text[:40] + "..."
    if is_missing(text):
        kind = "a missing category" if is_category else "not a number but a missing value"
        reason = f"is {kind}; fill it in, or remove the row or column"
    elif PUNCTUATED.fullmatch(text):
        reason = "is not a number; write it with a decimal point and no thousands separators"
    elif OVERFLOW.fullmatch(text):
        reason = "is not a number that float32 holds"
    else:
        reason = "is not a number"
    more = f" ({len(cells)} such cells in the column)" if len(cells) > 1 else ""
    return f"line {line}, column {column!r}: {shown!r} {reason}{more}"


def _rows(path: str, delimiter: str, encoding: str | None) -> Iterator[tuple[int, list[str]]]:
    """(line, its cells without blanks around them) of a file, for lines that hold something."""
    text, line = io.StringIO(_text(path, encoding), newline=""), 0
    reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for line, cells in enumerate(reader, 1):
            if reader.line_num > line:
                raise ValueError(
                    f"{path}: a cell goes from line {line} to line {reader.line_num}; is a quote "
                    "missing?"
                )
            if any(cells := [cell.strip() for cell in cells]):
                yield line, cells
    except csv.Error as error:
        reason = "a quote is not closed" if "unexpected end" in str(error) else error
        raise ValueError(f"{path}, line {line + 1}: {reason}") from error


def _text(path: str, encoding: str | None) -> str:
    """A file's content, in the encoding that its first bytes declare, else the given one."""
    if not os.path.isfile(path):
        raise ValueError(f"no file {path}")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    if content.startswith(PACKED):
        raise ValueError(
            f"{path} is a compressed file or one of Excel; unpack it or save it as CSV"
        )
    marked = (codec for mark, codec in MARKS.items() if content.startswith(mark))
    encoding = next(marked, encoding or "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is not {encoding} text (byte 0x{content[error.start]:02x} in line {line}). "
            "Save it as UTF-8 or pass its encoding, such as encoding='latin-1' (Windows: 'cp1252')"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"{path}, line {line} holds NUL bytes: it is no text, or UTF-16 without a mark, for "
            "which encoding='utf-16-le' or 'utf-16-be' is right"
        )
    return text
