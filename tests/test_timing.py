"""Where the time goes: each second in one phase."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import pytest

from jaxtl import timing


@pytest.fixture
def clock():
    """A clock that is set: `clock.now`."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


def test_a_second_belongs_to_the_innermost_phase(clock):
    watch = timing.Stopwatch(began=-2.0, clock=clock)
    with watch.phase("train"):
        clock.now = 3.0
        with pytest.raises(ValueError), watch.phase("evaluate"):
            clock.now = 5.0
            raise ValueError
        clock.now = 6.0
        watch.move(0.5, "compile")
    clock.now = 10.0
    expected = {"start": 6.0, "check": 0.0, "compile": 0.5, "train": 3.5, "evaluate": 2.0}
    assert watch.seconds() == {**expected, "report": 0.0}
    assert sum(watch.seconds().values()) == clock.now + 2.0


def test_phases_add_up_whatever_is_told(clock):
    watch = timing.Stopwatch(began=0.0, clock=clock)
    with watch.phase("train"):
        clock.now = 2.0
        watch.move(1.5, "compile")
        watch.move(1.5, "compile")  # of which the first was a part
    assert watch.seconds()["compile"] == sum(watch.seconds().values()) == 2.0


def test_what_threads_do_counts_nowhere_and_the_wait_for_them_once():
    """As seeds that train, batches that are measured and programs that are compiled at a time."""
    began = time.perf_counter()
    with timing.measured(began) as watch, timing.phase("evaluate"):

        def work(number):
            with timing.phase("train"):
                jax.jit(lambda x: jnp.sin(x) * number)(jnp.arange(5.0)).block_until_ready()
            return watch.seconds()

        with ThreadPoolExecutor(4) as threads:
            read = list(threads.map(work, [1.25, 2.5, 3.75, 5.5]))
    passed = time.perf_counter() - began
    seconds = watch.seconds()
    assert seconds["train"] == 0 and all(sum(each.values()) <= passed for each in read)
    assert sum(seconds.values()) == pytest.approx(passed, abs=0.05)
    assert seconds["evaluate"] > 0.5 * passed


def test_what_jax_compiles_is_told_apart_and_other_threads_have_their_own():
    with timing.measured() as watch, timing.phase("train"):
        jax.jit(lambda x: jnp.cos(x) * 1.2345678)(jnp.arange(7.0)).block_until_ready()
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(timing.seconds()))
        thread.start()
        thread.join()
    assert watch.seconds()["compile"] > 0 and elsewhere == [None]
    assert timing.seconds() is None
    with timing.phase("train"):
        pass  # nobody counts


def test_the_longest_is_said_first():
    seconds = {"start": 3.2, "check": 0.2, "compile": 12.0, "train": 25.6, "evaluate": 0.0}
    assert timing.in_words(seconds) == "41 s: training 26 s, compiling 12 s, starting 3 s"
    assert timing.in_words(dict.fromkeys(timing.PHASES, 0.01)) == "0 s"
