"""Files of a run: whole or not there, and one error that names what cannot be written."""

import contextlib
import os
import re
from pathlib import Path


class NotWritten(OSError):
    """The disk is full, say; what was written before is whole.

    Attributes:
        filename: what could not be written.
        strerror: why.
    """


@contextlib.contextmanager
def writing(path: Path):
    """Errors of the operating system inside become `NotWritten`, others pass."""
    try:
        yield
    except Exception as error:
        number = _os_error(error)
        if number is None:
            raise
        raise NotWritten(number, os.strerror(number), str(path)) from error


def _os_error(error: BaseException | None) -> int | None:
    """The errno behind an error; TensorStore's are a ValueError that holds it as text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if found := re.search(r"os_error_code='(\d+)'", str(error)):
            return int(found[1])
        error = error.__cause__
    return None


def write_text(path: Path, text: str) -> None:
    """Write a file, and its folder, so that a reader finds the old content or the new.

    Raises:
        NotWritten: the old content stays.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text)
        os.replace(temporary, path)
