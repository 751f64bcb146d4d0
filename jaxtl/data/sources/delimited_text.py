"""The cells of a text file, line by line, and what is wrong with the text."""

import codecs
import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zX", b"\xd0\xcf\x11\xe0")
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # starts as UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def rows_of(path: str, delimiter: str, encoding: str | None) -> Iterator[tuple[int, list[str]]]:
    """(line, its cells without blanks around them) of a file, for lines that are not blank.

    Args:
        path: of the file.
        delimiter: one sign.
        encoding: None for what a mark at its start says, else UTF-8.

    Raises:
        ValueError: there is no file, it is no text of that encoding, a quote is not closed.
    """
    if not os.path.isfile(path):
        raise ValueError(f"no file {path}")
    line = 0
    try:
        encoding = _encoding(path, encoding)
        with open(path, newline="", encoding=encoding) as file:
            reader = csv.reader(
                _without_nul(file, path),
                delimiter=delimiter,
                skipinitialspace=True,
                strict=True,
            )
            for cells in reader:
                line += 1
                if reader.line_num > line:
                    raise ValueError(
                        f"{path}: a cell goes from line {line} to line {reader.line_num}; is a "
                        "quote missing?"
                    )
                if any(cells := [cell.strip() for cell in cells]) or len(cells) > 1:
                    yield line, cells
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except csv.Error as error:
        reason = "a quote is not closed" if "unexpected end" in str(error) else error
        raise ValueError(f"{path}, line {line + 1}: {reason}") from error
    except UnicodeError as error:
        raise ValueError(
            f"{path} is not {encoding} text{_where(path, encoding)}. Save it as UTF-8 or pass its "
            "encoding, such as encoding='latin-1' (Windows: 'cp1252')"
        ) from error


def _encoding(path: str, given: str | None) -> str:
    """The one that the file's first bytes declare, else the given one, else UTF-8."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start.startswith(PACKED):
        raise ValueError(
            f"{path} is a compressed file or one of Excel; unpack it or save it as CSV"
        )
    marked = (encoding for mark, encoding in MARKS.items() if start.startswith(mark))
    return next(marked, given or "utf-8")


def _where(path: str, encoding: str) -> str:
    content = Path(path).read_bytes()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f" (byte 0x{content[error.start]:02x} in line {line})"
    return ""


def _without_nul(lines: Iterable[str], path: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise ValueError(
                f"{path}, line {number} holds NUL bytes: it is no text, or UTF-16 without a mark, "
                "for which encoding='utf-16-le' or 'utf-16-be' is right"
            )
        yield line
