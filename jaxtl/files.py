"""Files: named by users, whole or not there, and one error that names what cannot be written."""

import contextlib
import errno
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
CHUNK, READERS = 2**20, 8
"""How many bytes of a file are read at a time, and of how many files."""
NOT_AS_WRITTEN = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
"""Errors of the operating system that are about what is there, not about getting at it."""
SYSTEM = re.compile(
    r"\b(RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|PERMISSION_DENIED"
    r"|UNAUTHENTICATED): |can't start new thread"
)
"""How XLA, TensorStore and threads spell that the system is short of something."""


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


class Damaged(ValueError):
    """A file does not hold what was written to it."""


class NotRead(OSError):
    """The system does not hand a file out; it may be whole.

    Attributes:
        filename: what could not be read.
        strerror: why.
    """


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the operating system inside become `NotWritten`, others pass."""
    try:
        yield
    except NotWritten:
        raise
    except Exception as error:
        number = system_error(error)
        if number is None:
            raise
        raise NotWritten(number, os.strerror(number), _culprit(error, path)) from error


def _culprit(error: BaseException, path: Path) -> str:
    """The file in a folder that could not be written, where an error names one."""
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if isinstance(named, str) and path.is_dir() and Path(named).is_relative_to(path):
        return named
    return str(path)


def is_of_system(error: BaseException) -> bool:
    """Whether an error in reading a file says nothing about what the file holds.

    Memory, threads, access, the disk and the network fail apart from it; a file that is missing, or
    a folder in its place, is damage.
    """
    number = system_error(error)
    if number is not None and number not in NOT_AS_WRITTEN:
        return True
    while error is not None:
        of_device = type(error).__name__ == "JaxRuntimeError"
        if of_device or isinstance(error, MemoryError) or SYSTEM.search(str(error)):
            return True
        error = error.__cause__
    return False


def system_error(error: BaseException | None) -> int | None:
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


def user_cache(name: str) -> Path:
    """The user's folder for what can be made again; it may not exist.

    Raises:
        RuntimeError: the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "jaxtl", name)


def checksums(root: Path, names: Iterable[str]) -> Iterator[tuple[str, list[int]]]:
    """(name, [bytes, CRC-32]) of files in a folder, several at once.

    Raises:
        OSError: one cannot be read.
    """
    from concurrent.futures import ThreadPoolExecutor  # which a help text need not wait for

    names = list(names)

    def sums_of(name: str) -> list[int]:
        size = total = 0
        with (root / name).open("rb") as file:
            while chunk := file.read(CHUNK):
                size, total = size + len(chunk), zlib.crc32(chunk, total)
        return [size, total]

    with ThreadPoolExecutor(READERS) as readers:
        yield from zip(names, readers.map(sums_of, names), strict=True)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


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


def read_json(
    path: Path, keys: Mapping[str, type] | None = None, remedy: str = ""
) -> dict[str, Any] | None:
    """The object in a JSON file, None if there is no such file.

    Args:
        keys: {name: type of its value} that it must have.
        remedy: what to do if it is damaged.

    Raises:
        Damaged: the file holds something else.
        NotRead: nobody knows what it holds.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        problem, record = "it is a folder, expected a file", {}
    except OSError as error:
        raise NotRead(error.errno, error.strerror, str(path)) from error
    else:
        problem, record = _parse(content, keys or {})
    if problem:
        raise Damaged(f"{path} is damaged: {problem}" + (f"; {remedy}" if remedy else ""))
    return record


def _parse(content: bytes, keys: Mapping[str, type]) -> tuple[str, dict[str, Any]]:
    """(what is wrong with the content of a file, or nothing; its JSON object)."""
    try:
        record = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return f"it is not JSON ({error})" if content.strip() else "it is empty", {}
    if not isinstance(record, dict):
        return f"it holds {_kind(record)}, expected an object", {}
    if missing := [key for key in keys if key not in record]:
        return f"it lacks {', '.join(missing)}", {}
    for key, kind in keys.items():
        if not isinstance(record[key], kind):
            return f"its {key} is {_kind(record[key])}, expected {KINDS[kind]}", {}
    return "", record


def _kind(value: Any) -> str:
    return KINDS[type(value)]
