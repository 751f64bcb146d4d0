"""Files of a run: whole or not there, and one error that names what cannot be written."""

import contextlib
import fcntl
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


@contextlib.contextmanager
def lock(directory: Path):
    """Only one process is at work in a directory; a file system without locks lets all.

    Raises:
        ValueError: another one is.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"another process is at work in {directory}; wait for it, or name another "
                    "--workdir"
                ) from None
        yield
    finally:
        os.close(descriptor)


def why_unwritable(directory: Path) -> str | None:
    """Why a directory cannot be made or written, None if it can."""
    probe = directory / f".writable-{os.getpid()}"
    try:
        str(directory.absolute()).encode()
        directory.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except UnicodeError:  # Orbax takes nothing else
        return "its name is no UTF-8 text"
    except OSError as error:
        return error.strerror
    return None


def write_text(path: Path, text: str) -> None:
    """Write a file, and its folder, so that a reader finds the old content or the new.

    Raises:
        NotWritten: the old content stays.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
