"""What Orbax and TensorStore say of a failure beside raising it."""

import contextlib
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Iterator

LIBRARIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("orbax", "tensorstore"))


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Drops the echoes of what is raised inside: their log, and coroutines that nobody awaits."""
    report, loggers = sys.unraisablehook, [logging.getLogger(name) for name in ("absl", "asyncio")]

    def hook(unraisable) -> None:
        closed = str(unraisable.exc_value) == "Event loop is closed"
        if not closed and not inspect.iscoroutine(unraisable.object):
            report(unraisable)

    for logger in loggers:
        logger.addFilter(_is_of_others)
    sys.unraisablehook = hook
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
    finally:
        sys.unraisablehook = report
        for logger in loggers:
            logger.removeFilter(_is_of_others)


def _is_of_others(record: logging.LogRecord) -> bool:
    never = "exception was never retrieved" in str(record.msg)
    return not never and not any(library in record.pathname for library in LIBRARIES)
