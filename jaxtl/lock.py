"""One process at a time in a directory, and who it is.

The kernel holds the lock and frees it when its process ends, however that ends; the text beside it
is for people and never blocks.
"""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import shlex
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxtl.files import why_unwritable

logger = logging.getLogger(__name__)

FILE = ".lock"
PATIENCE_SECONDS = 0.5
"""How long a process that has just taken a lock may take to say who it is."""
ATTEMPTS = 100
LONGEST = 300  # characters of a command that are shown

_descriptors: set[int] = set()  # of the locks that this process holds


class Holder(NamedTuple):
    """A process at work in a directory.

    Attributes:
        since: when it took the lock, in ISO format with the time zone.
        started: when it began, in ticks since its host did; None where the system does not say.
    """

    pid: int
    host: str
    since: str
    command: str
    started: str | None

    def __str__(self) -> str:
        moment = datetime.datetime.fromisoformat(self.since).astimezone()
        today = moment.date() == datetime.date.today()
        since = moment.strftime("%H:%M" if today else "%Y-%m-%d %H:%M")
        host, command = map(_printable, (self.host, self.command))
        return f"process {self.pid} on host {host} since {since}, `{command}`"

    def is_at_work(self) -> bool | None:
        """None where this host cannot know."""
        if self.host != socket.gethostname():
            return None
        if (started := _started(self.pid)) is not None and self.started is not None:
            return started == self.started  # another process may have got its number since
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:
            pass
        return None


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Only one process is at work in a directory, which is made.

    Two locks of the kernel: the directory's, which outlasts a deleted `.lock`, and that of `.lock`,
    which holds between the hosts of a network file system. `.lock` says who is at work and is
    removed at the end. A file system that has neither lets all in but a process of the same host
    that is surely at work, and warns of one that may be. A directory that cannot be written needs
    no lock.

    Raises:
        ValueError: another process is at work there.
    """
    if why_unwritable(directory):
        yield
        return
    path, process = directory / FILE, os.getpid()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_opened(directory, os.O_RDONLY))
        in_folder = folder is not None and _take(folder, directory)
        file, in_file = _take_file(stack, path)
        if not in_folder and not in_file:
            _ask_the_text(directory)
        if file is not None:
            stack.callback(_remove, path, file, process)
            with contextlib.suppress(OSError):  # on a full disk the lock holds without a text
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps(_this_process()._asdict()).encode() + b"\n", 0)
        yield


def process_in(directory: Path) -> Holder | None:
    """The process that says it is at work in a directory; None if none does, or it is gone."""
    holder = _read(directory / FILE)
    return None if holder is None or holder.is_at_work() is False else holder


def _take_file(stack: contextlib.ExitStack, path: Path) -> tuple[int | None, bool]:
    """(descriptor of the lock's file, whether it is locked); None where there cannot be one."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(ATTEMPTS):
        with contextlib.ExitStack() as attempt:
            file = attempt.enter_context(_opened(path, flags))
            if file is None or not stat.S_ISREG(os.fstat(file).st_mode):
                return None, False
            locked = _take(file, path.parent)
            if _is_at(path, file):  # else its process removed it between our two calls
                stack.push(attempt.pop_all())
                return file, locked
    return None, False  # a file system that never tells the same of one file


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int | None]:
    """A descriptor that no process which this one starts inherits; None if there cannot be one."""
    process = os.getpid()
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError:
        yield None
        return
    _descriptors.add(descriptor)
    try:
        yield descriptor
    finally:
        if os.getpid() == process:  # a forked one has closed it already
            _descriptors.discard(descriptor)
            os.close(descriptor)


def _close_in_forked_process() -> None:
    """A worker that outlives its killed parent does not hold the parent's locks."""
    while _descriptors:
        os.close(_descriptors.pop())


os.register_at_fork(after_in_child=_close_in_forked_process)


def _take(descriptor: int, directory: Path) -> bool:
    """Whether the kernel's lock is taken; False where the file system has none.

    Raises:
        ValueError: another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(_refusal(directory, _wait_for_text(directory))) from None
    except OSError:
        return False
    return True


def _ask_the_text(directory: Path) -> None:
    """What is done where there are no locks.

    Raises:
        ValueError: another process of this host is surely at work.
    """
    holder = _read(directory / FILE)
    if holder is None or (at_work := holder.is_at_work()) is False:
        return
    if at_work:
        raise ValueError(_refusal(directory, holder))
    logger.warning(
        "%s: its file system has no locks, and %s may still be at work there: make sure that it is "
        "not",
        directory,
        holder,
    )


def _refusal(directory: Path, holder: Holder | None) -> str:
    who = f": {holder}" if holder else ""
    if holder and (holder.pid, holder.host) == (os.getpid(), socket.gethostname()):
        who += " (this very process, in another thread)"
    return f"another process is at work in {directory}{who}; wait for it, or name another --workdir"


def _wait_for_text(directory: Path) -> Holder | None:
    """Who holds a lock that is taken; None if its file is gone, damaged or of a dead process."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        holder = _read(directory / FILE)
        if holder is not None and holder.is_at_work() is not False:
            return holder
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)


def _read(path: Path) -> Holder | None:
    """What a lock's file says, None if nothing that can be read."""
    with _opened(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as file:
        if file is None or not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        try:
            text = os.pread(file, 2**20, 0)
        except OSError:
            return None
    try:
        holder = Holder(**json.loads(text))
        datetime.datetime.fromisoformat(holder.since).astimezone()
    except (ValueError, TypeError, OverflowError, OSError, RecursionError):
        return None
    texts = (holder.host, holder.command)
    is_whole = type(holder.pid) is int and holder.pid > 0 and all(type(x) is str for x in texts)
    return holder if is_whole else None


def _this_process() -> Holder:
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    command = shlex.join(sys.orig_argv)
    return Holder(os.getpid(), socket.gethostname(), now, command, _started(os.getpid()))


def _started(pid: int) -> str | None:
    """When a process of this host began; None if it is gone, or the system does not say."""
    try:
        # "pid (name) state ...": the name may hold anything
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in (b"Z", b"X") else fields[18].decode()


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except OSError:
        return False


def _remove(path: Path, descriptor: int, process: int) -> None:
    """Remove a lock's file, while it is locked, unless it is another one by now."""
    if os.getpid() == process and _is_at(path, descriptor):
        with contextlib.suppress(OSError):
            path.unlink()


def _printable(text: str) -> str:
    """One line, without codes that a terminal would obey."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} ..."
