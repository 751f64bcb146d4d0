"""Told to stop: a process of our own ends at once, with one line, or saves first what it trains.

Signals are heard by a thread, as the main one may be in a compilation for minutes. Ending unwinds
nothing: XLA and Orbax are at work in other threads, and what is written is whole or not there.
"""

import atexit
import contextlib
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

GOES_ON = "the same command goes on from the last checkpoint"
STARTS_AGAIN = "nothing is lost, the same command starts again"
TOLD_TO_SAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_SECONDS = 0.5
"""How long the line may take to be written: nobody may read what stands before it."""

Handler = Callable[[int], None]


def obeyed(numbers: tuple[int, ...]) -> list[int]:
    """Those of some signals that are not for others: a SIGHUP under nohup is ignored."""
    handlers = {number: signal.getsignal(number) for number in numbers}
    ignored = {n for n in (signal.SIGHUP, signal.SIGQUIT) if handlers.get(n) is signal.SIG_IGN}
    return [n for n, handler in handlers.items() if handler is not None and n not in ignored]


class Listener:
    """Hears signals of a process from its first import to its end.

    Attributes:
        promise: what the line says of the next launch; empty: there is no line.
        handler: what is told of a signal instead; None: it ends the process.
    """

    def __init__(self):
        self.promise: str = STARTS_AGAIN
        self.handler: Handler | None = None
        self._turn = threading.Lock()
        self._numbers = obeyed((*TOLD_TO_SAVE, signal.SIGQUIT))
        ends = os.pipe()  # whose numbers may be those of a closed standard output
        self._read, self._write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends)
        for end in ends:
            os.close(end)
        os.set_blocking(self._write, False)

    def start(self) -> None:
        threading.Thread(target=self._hear, name="signals", daemon=True).start()
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, self._pass_on)
        os.register_at_fork(after_in_child=self._stop)  # a worker's signals are its own
        atexit.register(self._stop)  # after all that was registered later: no thread hears then

    def _stop(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in self._numbers:
            if signal.getsignal(number) == self._pass_on:
                signal.signal(number, signal.SIG_DFL)

    def _pass_on(self, number: int, frame: object) -> None:
        """The handler in the main thread; the interpreter has told the thread already."""
        writes_to = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        if writes_to != self._write:  # an event loop of the user's listens in our place
            signal.set_wakeup_fd(writes_to, warn_on_full_buffer=False)
            os.write(self._write, bytes([number]))

    def _hear(self) -> None:
        while numbers := os.read(self._read, 64):
            for number in numbers:
                if signal.getsignal(number) == self._pass_on:  # else the user's code has its own
                    self._obey(number)

    def _obey(self, number: int) -> None:
        with self._turn:
            if self.handler is None or number == signal.SIGQUIT:
                end(number, self.promise)
            self.handler(number)

    @contextlib.contextmanager
    def handing_to(self, handler: Handler) -> Iterator[None]:
        """Signals are told to a handler, in the thread, which has returned when this ends."""
        before = self.handler
        with self._turn:
            self.handler = handler
        try:
            yield
        finally:
            with self._turn:
                self.handler = before


_listener: Listener | None = None


def listen() -> None:
    """End this process, from now on, at any signal that asks for it; for the main thread."""
    global _listener
    if _listener is None and threading.current_thread() is threading.main_thread():
        listener = Listener()
        with contextlib.suppress(RuntimeError):  # no more threads: signals end it without a word
            listener.start()
            _listener = listener


def promise(text: str) -> None:
    """What a signal's line says of the next launch; empty: nothing is left to say."""
    if _listener is not None:
        _listener.promise = text


def promised() -> str:
    """What a signal's line says now."""
    return GOES_ON if _listener is None else _listener.promise


@contextlib.contextmanager
def handed_to(handler: Handler) -> Iterator[None]:
    """Signals that ask to stop are told to a handler.

    In a process that does not `listen`, one of somebody else's, by the main thread: its handlers
    get a second signal, and are set back; other threads are told nothing.
    """
    if _listener is not None:
        with _listener.handing_to(handler):
            yield
    elif threading.current_thread() is threading.main_thread():
        with _in_place_of_others(handler):
            yield
    else:
        yield


@contextlib.contextmanager
def _in_place_of_others(handler: Handler) -> Iterator[None]:
    """A handler in place of the process's own, which get what comes after the first signal."""
    before: dict[int, Any] = {}
    told: list[int] = []

    def hear(number: int, frame: object) -> None:
        previous = before.get(number)
        if told and callable(previous):
            previous(number, frame)  # a notebook's kernel is not to be ended
        else:
            told.append(number)
            handler(number)

    try:
        for number in obeyed(TOLD_TO_SAVE):
            before[number] = signal.signal(number, hear)
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def end(number: int, promised: str) -> NoReturn:
    """End the process at once, with one line if something is promised in it."""
    teller = threading.Thread(target=_tell, args=(number, promised), daemon=True)
    with contextlib.suppress(RuntimeError):
        teller.start()
        teller.join(PATIENCE_SECONDS)
    os._exit(128 + number)


def _tell(number: int, promised: str) -> None:
    name = signal.Signals(number).name
    verb = "interrupted" if number == signal.SIGINT else f"stopped by {name}"
    with contextlib.suppress(OSError):
        if os.isatty(1) and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
            os.write(1, b"\x1b[?25h\n")  # a progress bar hides the cursor, and ends no line
        if promised:
            os.write(2, f"{verb}; {promised}\n".encode())
    if sys.stdout is not None:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
