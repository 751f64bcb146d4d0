"""Where the time of a run goes: seconds by phase, each moment charged to the innermost one.

A thread has at most one stopwatch; `phase` charges it, and does nothing where there is none. So
what other threads do meanwhile counts nowhere, the wait for them where it is waited, and the phases
add up to the time that has passed.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping

BEGAN = time.perf_counter()
"""About when this process began, if it imports jaxtl first."""
PHASES = {
    "start": "starting",
    "check": "checking",
    "compile": "compiling",
    "train": "training",
    "evaluate": "measuring",
    "report": "writing the report",
}
"""{phase: what is done in it}."""

_here = threading.local()


class Stopwatch:
    """Seconds by phase; other threads may read them.

    Args:
        began: when the first phase, "start", did; None for now.
        clock: seconds since some moment.
    """

    def __init__(self, began: float | None = None, clock: Callable[[], float] = time.perf_counter):
        self._clock, self._seconds = clock, dict.fromkeys(PHASES, 0.0)
        self._stack = ["start"]
        self._since = clock() if began is None else began
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge a phase with what happens inside, but for what inner phases are charged with."""
        with self._lock:
            self._settle()
            self._stack.append(name)
        try:
            yield
        finally:
            with self._lock:
                self._settle()
                self._stack.pop()

    def move(self, seconds: float, name: str) -> None:
        """Charge another phase than the innermost one with seconds that have just passed.

        With no more than the innermost one was charged with: what is told of twice, once within
        the other, counts once.
        """
        with self._lock:
            self._settle()
            seconds = min(seconds, self._seconds[self._stack[-1]])
            self._seconds[self._stack[-1]] -= seconds
            self._seconds[name] += seconds

    def seconds(self) -> dict[str, float]:
        """{phase: seconds until now}."""
        with self._lock:
            self._settle()
            return {name: round(value, 3) for name, value in self._seconds.items()}

    def _settle(self) -> None:
        now = self._clock()
        self._seconds[self._stack[-1]] += now - self._since
        self._since = now


@contextlib.contextmanager
def measured(began: float | None = None) -> Iterator[Stopwatch]:
    """A stopwatch for what this thread does inside, which counts what JAX compiles by itself."""
    before, watch = getattr(_here, "watch", None), Stopwatch(began)
    _listen()
    _here.watch = watch
    try:
        yield watch
    finally:
        _here.watch = before


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Charge this thread's stopwatch, if it has one, with a phase."""
    watch = getattr(_here, "watch", None)
    with watch.phase(name) if watch else contextlib.nullcontext():
        yield


def seconds() -> dict[str, float] | None:
    """Those of this thread's stopwatch until now; None if it has none."""
    watch = getattr(_here, "watch", None)
    return watch.seconds() if watch else None


def in_words(seconds: Mapping[str, float]) -> str:
    """`41 s: starting 4 s, compiling 12 s, training 15 s, ...`, what takes most first."""
    parts = sorted(seconds.items(), key=lambda item: -item[1])
    longest = [f"{PHASES.get(name, name)} {value:.0f} s" for name, value in parts if value >= 0.5]
    return f"{sum(seconds.values()):.0f} s" + (f": {', '.join(longest)}" if longest else "")


_COMPILING = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
_listening = threading.Lock()


def _listen() -> None:
    """JAX tells how long it compiled, once and for all: it forgets no listener."""
    import jax

    if _listening.acquire(blocking=False):
        jax.monitoring.register_event_duration_secs_listener(_heard)


def _heard(event: str, seconds: float, **details: object) -> None:
    if event in _COMPILING and (watch := getattr(_here, "watch", None)):
        watch.move(seconds, "compile")
