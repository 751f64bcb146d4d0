"""Ctrl-C, SIGTERM and a closed terminal while training: finish the step, save, stop."""

import contextlib
import signal
from collections.abc import Iterator

import jax

from jaxtl.stopping import end, handed_to, promised


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

    Attributes:
        received: the signal's number, None if there was none.
    """

    def __init__(self, stack: contextlib.ExitStack):
        self.received: int | None = None
        self._stack, self._began = stack, False

    def begin(self) -> None:
        """Remember signals from now on; before, as there is nothing to save, they end the process.

        Not with several processes, which must stop at one step: there JAX watches SIGTERM, see
        `Checkpoints.preempted`.
        """
        if not self._began and jax.process_count() == 1:
            self._stack.enter_context(handed_to(self._remember))
        self._began = True

    def _remember(self, number: int) -> None:
        if self.received is not None:
            end(number, promised())
        self.received = number


@contextlib.contextmanager
def watch() -> Iterator[Watch]:
    """A watch that ends with this context."""
    with contextlib.ExitStack() as stack:
        yield Watch(stack)
