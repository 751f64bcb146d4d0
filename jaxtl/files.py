"""Files: named by users, whole or not there, and one error that names what cannot be written."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def user_path(text: str | os.PathLike) -> str:
    """A path that a user gave: `~` and `~name` are home folders, empty stays empty.

    Raises:
        ValueError: nobody knows that home folder.
    """
    path = os.path.expanduser(os.fspath(text))
    if path.startswith("~"):
        raise ValueError(f"{text}: there is no home folder {path.split('/')[0]!r}; write it out")
    return path


class NotWritten(OSError):
    """The disk is full, say; what was written before is whole.

    Attributes:
        filename: what could not be written.
        strerror: why.
    """


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
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
        if match := re.search(r"os_error_code='(\d+)'", str(error)):
            return int(match[1])
        error = error.__cause__
    return None


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


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` at the end: a reader finds the old content or the new.

    The folder is made. What is raised inside leaves the old content, and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(directory: Path) -> None:
    """Remove what killed processes left half-written in a run's directory, which is locked.

    Not of checkpoints, which Orbax keeps clean, nor of exports, which are written without a lock.
    """
    for folder, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if name not in ("checkpoints", "export")]
        for name in names:
            if re.fullmatch(r"\..+\.\d+\.tmp", name):
                with writing(partial := Path(folder, name)):
                    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `atomically`.

    Raises:
        NotWritten: the old content stays.
    """
    with writing(path), atomically(path) as partial:
        yield partial


def write_text(path: Path, text: str) -> None:
    """Write a text file as `replacing` does.

    Raises:
        NotWritten: the old content stays.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, in the first of several processes.

    Raises:
        NotWritten: the file stays as it was.
    """
    import jax  # which a path on the command line need not wait for

    if jax.process_index() > 0:
        return
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, None if there is no such file.

    Raises:
        ValueError: the file is not JSON.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
