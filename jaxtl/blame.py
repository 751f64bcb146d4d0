"""Where in the user's code an exception comes from, told without the frames of libraries."""

import functools
import inspect
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

MOST_FRAMES = 8
MOST_CHARACTERS = 400
PACKAGE = Path(__file__).resolve().parent
STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
INSTALLED = {"site-packages", "dist-packages"}


def account(error: BaseException) -> str | None:
    """What went wrong, and where in the user's files.

    `experiments/mine.py, line 42, in build: KeyError: 'rate'`, then the calls in the user's files
    that led there, if there are several. Of what our own code refuses with a ValueError the message
    alone is told, after the place. None: no file of the user's is involved.
    """
    trace = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in trace if _is_users(frame.filename)]
    if isinstance(error, SyntaxError) and _is_users(error.filename or ""):
        file = _short_path(error.filename)
        return f"{file}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    if not frames:
        return None
    place = _place(frames[-1])
    if is_refusal(error):
        return f"{place}: {error}"
    lines = [f"{place}: {summary(error)}"]
    if len(frames) > 1:
        omitted = len(frames) - MOST_FRAMES
        lines += [f"  ({omitted} calls before these)"] if omitted > 0 else []
        for frame in frames[-MOST_FRAMES:]:
            lines.append(f"  {_place(frame)}: {frame.line}")
    return "\n".join(lines)


def summary(error: BaseException) -> str:
    """The type of an exception and the first line of what it says."""
    if isinstance(error, SystemExit):
        return f"SystemExit: it ended the program ({error})"
    first = next(iter(str(error).strip().splitlines()), "")
    shown = first if len(first) <= MOST_CHARACTERS else f"{first[:MOST_CHARACTERS]} ..."
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__


def explain(error: Exception) -> str:
    """`account`, or what else is to be said of an exception in a library or in our own code."""
    if (message := account(error)) is not None:
        return message
    if is_refusal(error):
        return str(error)
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return f"{summary(error)} (raised in {'/'.join(last.parts[-3:])})"


def place_of(definition: ModuleType | Callable) -> str:
    """`experiments/mine.py`, or `experiments/mine.py, line 3, in loss`; empty if not the user's."""
    if isinstance(definition, ModuleType):
        file = getattr(definition, "__file__", None)  # a notebook's module has none
        return _short_path(file) if file else definition.__name__
    while isinstance(definition, functools.partial):
        definition = definition.func
    code = getattr(inspect.unwrap(definition), "__code__", None)
    if code is None or not _is_users(code.co_filename):
        return ""
    return f"{_short_path(code.co_filename)}, line {code.co_firstlineno}, in {code.co_name}"


def is_refusal(error: BaseException) -> bool:
    """Whether it is a ValueError that our own code raised."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, ValueError) and Path(last).resolve().is_relative_to(PACKAGE)


def _is_users(filename: str) -> bool:
    if not filename or filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    library = path.is_relative_to(PACKAGE) or path.is_relative_to(STANDARD)
    return not library and INSTALLED.isdisjoint(path.parts)


def _short_path(filename: str) -> str:
    path = Path(filename).resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _place(frame: traceback.FrameSummary) -> str:
    inside = "" if frame.name == "<module>" else f", in {frame.name}"
    return f"{_short_path(frame.filename)}, line {frame.lineno}{inside}"
