"""What a process of our own makes of where it runs: its output, JAX's settings, other processes.

Nothing here is done for a program that imports jaxtl.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import select
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtl.files import NotRead, user_cache, why_unwritable

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 20
"""Columns that are written even where a terminal claims to have fewer."""
CONNECT_SECONDS, CLUSTER_SECONDS = 60, 300
"""How long processes wait for each other that people start, and that a cluster starts."""


class Unfailing(io.FileIO):
    """A file descriptor that swallows what nobody takes.

    Attributes:
        error: why the first write failed, None as long as none did; what follows is dropped.
    """

    error: OSError | None = None

    def write(self, data) -> int:
        while self.error is None:
            try:
                if (count := super().write(data)) is not None:
                    return count
                select.select([], [self], [])  # it does not block by itself
            except OSError as error:
                self.error = error
        return len(data)


def keep_output() -> None:
    """Standard output and error never fail: closed, full, unread, or of few letters."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass  # one of the three was closed: no file of the run must get its number
    os.close(descriptor)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        unbuffered = getattr(stream, "write_through", False)  # python -u
        unfailing = io.TextIOWrapper(
            io.BufferedWriter(Unfailing(number, "w", closefd=False)),
            stream.encoding if stream else "utf-8",
            "replace",
            line_buffering=number == 2 or unbuffered or os.isatty(number),
        )
        setattr(sys, name, unfailing)


def lost_output() -> str | None:
    """Why what `keep_output` keeps was not written; None if it was, or its reader went away."""
    sys.stdout.flush()
    error = sys.stdout.buffer.raw.error
    return None if error is None or isinstance(error, BrokenPipeError) else error.strerror


def terminal(quiet: bool = False) -> Console:
    """Standard output. Nothing is drawn anew unless it is a terminal, whatever FORCE_COLOR says."""
    from rich.console import Console

    console = Console(quiet=quiet, force_interactive=None if sys.stdout.isatty() else False)
    if console.width < NARROWEST:
        console.width = NARROWEST
    return console


def configure(verbose: bool) -> None:
    """Figures are files, and what is logged is printed as it is.

    Garbage that holds itself is looked for less often: tracing and drawing make objects by the
    million, nearly all of which stay, and looking through them is a twentieth of a short run.
    """
    gc.set_threshold(20_000, 10, 10)
    os.environ["MPLBACKEND"] = "agg"  # another one may not even exist
    logging.basicConfig(format="%(message)s")
    logging.getLogger("jaxtl").setLevel(logging.INFO if verbose else logging.WARNING)


def cache_folder(option: str) -> str:
    """Where compiled programs are kept; empty, with a word, where that cannot be written.

    Args:
        option: `auto` for the user's cache folder; empty for none, without a word.
    """
    if not option:
        return ""
    try:
        if option == "auto":
            option = str(user_cache("compiled"))
        if (reason := why_unwritable(Path(option))) is None:
            return option
        reason = f"{option}: {reason}"
    except RuntimeError as error:  # no home
        reason = str(error)
    print(f"warning: no compilation cache: {reason}", file=sys.stderr)
    return ""


def check_devices() -> None:
    """Raises ValueError if JAX finds no device of the platforms that it is told to use."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0] or "not among the devices that JAX finds"
        raise ValueError(
            f"JAX_PLATFORMS={jax.config.jax_platforms or ''}: no such device here: {reason}"
        ) from error


def check_precision() -> None:
    """Raises ValueError if JAX computes in 64 bits, which would change every number of a run."""
    import jax

    if jax.config.jax_enable_x64:
        raise ValueError(
            "JAX_ENABLE_X64 is on, and the same seeds would give other numbers: runs compute in 32 "
            "bits or fewer (--run.dtype); unset it, and let the experiment file leave it alone"
        )


def explanation(error: BaseException) -> str | None:
    """One line on an error that the machine made, or JAX where it was asked to; None for others."""
    reason = str(error).strip().split("\n")[0]
    exhausted = "RESOURCE_EXHAUSTED" in reason or "out of memory" in reason.lower()
    if exhausted or isinstance(error, MemoryError):
        return (
            f"not enough memory ({reason or 'asked the system for more'}); smaller batches, fewer "
            "seeds at once or a smaller --run.eval_batch need less"
        )
    if isinstance(error, FloatingPointError):
        return f"{reason}: JAX_DEBUG_NANS stops at the first one, a run without it goes on"
    if "can't start new thread" in reason:
        return "the system gives no more threads; see ulimit -u"
    if isinstance(error, NotRead):
        return (
            f"cannot read {error.filename}: {error.strerror}; once that is mended, the same "
            "command goes on"
        )
    return None


@contextlib.contextmanager
def without_echoes(verbose: bool) -> Iterator[None]:
    """Drops what Orbax and TensorStore say of a failed write, which is raised too, and only that.

    Args:
        verbose: drop nothing.
    """
    if verbose:
        yield
        return
    logger, report = logging.getLogger("absl"), sys.unraisablehook

    def hook(unraisable) -> None:
        closed = str(unraisable.exc_value) == "Event loop is closed"
        if not (closed and unraisable.object is None):  # a callback of TensorStore's own threads
            report(unraisable)

    logger.addFilter(_not_of_orbax)
    sys.unraisablehook = hook
    warnings.filterwarnings("ignore", "coroutine 'async_serialize.*' was never awaited")
    try:
        yield
    finally:
        logger.removeFilter(_not_of_orbax)
        sys.unraisablehook = report


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}checkpoint{os.sep}" not in record.pathname


def connect(distributed: str) -> None:
    """Join the other processes of a run, before JAX is used.

    Args:
        distributed: `off`; `auto` for what the cluster says (a TPU pod, Slurm); or
            `ADDRESS:PORT,COUNT,INDEX`: the first process's address, the number of processes and
            which of them this one is.

    Raises:
        ValueError: another form, an address that cannot be, or there is no cluster that says.
    """
    if distributed == "off":
        return
    import jax

    auto = distributed == "auto"
    processes = () if auto else parse_process(distributed)
    with _patience(distributed, CLUSTER_SECONDS if auto else CONNECT_SECONDS):
        try:
            jax.distributed.initialize(*processes)
        except ValueError as error:
            if not auto:
                raise
            raise ValueError(
                "--distributed=auto: no cluster says which processes there are; use "
                f"--distributed=ADDRESS:PORT,COUNT,INDEX ({error})"
            ) from error


def parse_process(distributed: str) -> tuple[str, int, int]:
    """(address, number of processes, which one) of `ADDRESS:PORT,COUNT,INDEX`.

    Raises:
        ValueError: it is not of that form, nobody knows the address, or its port is taken.
    """
    address, *numbers = distributed.split(",")
    host, _, port = address.rpartition(":")
    refusal = f"--distributed={distributed}: "
    if not host or len(numbers) != 2 or not all(n.isdecimal() for n in (port, *numbers)):
        raise ValueError(f"{refusal}expected off, auto or ADDRESS:PORT,COUNT,INDEX")
    count, index = map(int, numbers)
    if not 0 < int(port) < 2**16:
        raise ValueError(f"{refusal}a port is a number from 1 to 65535, got {port}")
    if count == 0:
        raise ValueError(f"{refusal}expected at least one process, got COUNT 0")
    if index >= count:
        raise ValueError(
            f"{refusal}of {count} processes, INDEX is one of 0 to {count - 1}, got {index}"
        )
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
        if index == 0:
            socket.create_server(("", int(port))).close()
    except OSError as error:
        raise ValueError(f"{refusal}{host}, port {port}: {error.strerror}") from error
    return address, count, index


@contextlib.contextmanager
def _patience(distributed: str, seconds: float) -> Iterator[None]:
    """Ends the process, with one line, where the others do not come; JAX would only abort it."""

    def end() -> None:
        print(
            f"error: --distributed={distributed}: not all processes met within {seconds} seconds; "
            "is the address that of the first one, do all run, does a firewall stand "
            "between them?",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
