"""Ctrl-C, SIGTERM and a closed terminal while training: finish the step, save, stop."""

import contextlib
import os
import signal
import threading

import jax


class Interrupted(Exception):
    """Training was stopped by a signal after its state was saved.

    Attributes:
        signal: the signal's number.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.signal = number


class Watch:
    """Remembers the first signal; a second one ends the process at once.

    Nothing is unwound then: XLA and Orbax are at work in other threads, and what they write is
    atomic.

    Attributes:
        received: the signal's number, None if there was none.
    """

    received: int | None = None

    def __call__(self, number: int, frame) -> None:
        if self.received is not None:
            os.write(2, b"stopped; the same command goes on from the last checkpoint\n")
            os._exit(128 + number)
        self.received = number


@contextlib.contextmanager
def watch():
    """Signals set `received` instead of ending the process (in the main thread).

    Not with several processes, which must stop at one step: there JAX watches SIGTERM, see
    `Checkpoints.preempted`.
    """
    watcher = Watch()
    alone = jax.process_count() == 1
    if not alone or threading.current_thread() is not threading.main_thread():
        yield watcher
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, watcher) for number in numbers}
    try:
        yield watcher
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
