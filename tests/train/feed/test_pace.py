"""Which steps each dispatch takes: by the clock, never past a point where something is due."""

import itertools
import os
import random
import signal

import jax
import numpy as np
import pytest
from tiny import assert_same, mlp_stage, train

from jaxtl.train import loop
from jaxtl.train.dispatch import programs
from jaxtl.train.feed import pace
from jaxtl.train.feed.pace import SECONDS, Pace, dispatches
from jaxtl.train.options import RunOptions
from jaxtl.train.signals import Interrupted


class Clock:
    """Seconds that pass when it is told so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def driven(num_steps, seconds, most=2**14, periods=(), options=None, adapts=True):
    """[(first step, the next one's, seconds, saved)] of a stage whose dispatches take a time.

    Args:
        seconds: of one step, or count -> of a dispatch.
    """
    options = options or RunOptions(checkpoint_minutes=0)
    takes = seconds if callable(seconds) else lambda count: count * seconds
    clock = Clock()
    timer, running, result = Pace(most, options, adapts, clock), None, []
    for first, step in dispatches(0, num_steps, periods, lambda: timer.steps):
        before, running = running, timer.launch(first, step - first, {})
        if before:
            clock.now += takes(before.count)
            timer.wait(before)
        saves = timer.agree()
        result.append((first, step, takes(step - first), saves))
        if saves:
            clock.now += takes(running.count)
            timer.wait(running)
            running = None
            timer.saved(0.0)
    return result


@pytest.mark.parametrize(
    ("seconds", "steps"), [(1e-6, 2**14), (1e-5, 5000), (1e-3, 50), (0.04, 1), (3.0, 1)]
)
def test_dispatches_take_about_their_time(seconds, steps):
    counts = [step - first for first, step, _, _ in driven(100 * steps, seconds)]
    assert sum(counts) == 100 * steps
    assert counts[:4] == [1, 1, 1, min(2, steps)]  # the first result warms up, and one runs ahead
    assert all(b <= 2 * a for a, b in itertools.pairwise(counts))
    assert max(counts) == pytest.approx(steps, rel=0.01)
    ramp = 3 * int(np.log2(steps) + 3)
    assert len(counts) <= 100 + ramp  # few are shorter than they should be


def test_what_a_call_costs_is_no_reason_to_make_calls_short():
    counts = [b - a for a, b, _, _ in driven(400_000, lambda count: 0.002 + 1e-6 * count)]
    assert max(counts) == 2**14 and len(counts) < 45


def test_a_hiccup_shortens_some_dispatches_only():
    times = itertools.count()

    def takes(count):
        return count * 1e-4 * (40 if next(times) == 40 else 1)

    counts = [b - a for a, b, _, _ in driven(40_000, takes)]
    assert counts[-8:-1] == [500] * 7 and max(counts) <= 500


def test_a_fixed_number_of_steps_stays():
    sizes = {b - a for a, b, _, _ in driven(64, 1.0, most=16, adapts=False)}
    assert sizes == {16}


def test_a_dispatch_never_passes_a_point_where_something_is_due():
    rng = random.Random(0)
    for _ in range(300):
        start, steps = rng.randrange(50), rng.randrange(1, 200)
        periods = [rng.choice([0, 0, 1, 3, 7, 20, 64]) for _ in range(3)]
        bounds = list(dispatches(start, start + steps, periods, lambda: rng.randrange(1, 40)))
        assert [a for a, _ in bounds] == [start, *(b for _, b in bounds[:-1])]
        assert bounds[-1][1] == start + steps
        for first, step in bounds:
            assert first < step < first + 40
            for period in filter(None, periods):
                assert not any(i % period == 0 for i in range(first + 1, step))
    assert not list(dispatches(7, 7, (3,), lambda: 1))


def test_saving_is_due_by_the_clock():
    options = RunOptions(checkpoint_minutes=1)
    turns = driven(5000, 0.05, options=options)
    saves = [step for _, step, _, saved in turns if saved]
    assert np.diff(saves) == pytest.approx(1200, abs=2) and len(saves) == 4
    assert not any(saved for *_, saved in driven(5000, 0.05))
    assert not any(saved for *_, saved in driven(500, 0.05, options=options))  # it ends before


def test_saving_that_takes_long_is_done_less_often():
    clock = Clock()
    timer = Pace(16, RunOptions(checkpoint_minutes=1), True, clock)
    timer.wait(timer.launch(0, 1, {}))
    clock.now += 60
    assert timer.agree()
    timer.saved(30)
    clock.now += 299
    assert not timer.agree()
    clock.now += 1
    assert timer.agree()


def test_all_processes_do_as_the_primary_one_says(monkeypatch):
    clock, heard = Clock(), []

    def from_primary(text):
        heard.append(text)
        return "37 1"

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(pace, "from_primary", from_primary)
    timer = Pace(64, RunOptions(), True, clock)
    timer.wait(timer.launch(0, 1, {}))
    assert timer.agree() and timer.steps == 37 and heard == ["1 0"]
    timer.wait(timer.launch(0, 1, {}))
    assert timer.steps == 37  # what one measures changes nothing before the others hear of it
    fixed = Pace(16, RunOptions(checkpoint_minutes=0), False, clock)
    assert not fixed.agree() and len(heard) == 1  # nothing to agree on


STEPS = 60


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """(the stage with one step a dispatch, its log)."""
    directory = tmp_path_factory.mktemp("one_by_one")
    options = RunOptions(log_every=7, steps_per_dispatch=1)
    run = train(mlp_stage(STEPS), directory, options=options)
    return run, (directory / "metrics.jsonl").read_bytes()


@pytest.fixture
def restless(monkeypatch):
    """The dispatches of stages whose number of steps changes at random: [(first, count)]."""
    launched, rng, compiled = [], random.Random(1), []

    class Restless(Pace):
        def launch(self, first, count, metrics):
            launched.append((first, count))
            return super().launch(first, count, metrics)

        def agree(self):
            due = super().agree()
            self.steps = rng.randrange(1, 12)
            return due

    monkeypatch.setattr(loop, "Pace", Restless)
    make = programs.make_dispatch

    def counted(*args):
        compiled.append(args)
        return make(*args)

    monkeypatch.setattr(programs, "make_dispatch", counted)
    return launched, compiled


def test_any_dispatches_give_the_same_bits_and_lines_also_after_a_stop(
    tmp_path, one_by_one, restless
):
    launched, compiled = restless
    whole, log = one_by_one
    options = RunOptions(log_every=7)

    def stop(step, metrics):
        if 20 < step < 40:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(mlp_stage(STEPS), tmp_path, options=options, progress=stop)
    assert len({count for _, count in launched}) > 2 and len(compiled) == 1
    stopped = sum(launched[-1])
    run = train(mlp_stage(STEPS), tmp_path, options=options)
    assert (stopped, 0) < launched[-1] and len(compiled) == 2
    assert_same(run.params, whole.params)
    assert (tmp_path / "metrics.jsonl").read_bytes() == log
    firsts = [first for first, _ in launched]
    assert firsts == sorted(firsts) and sum(count for _, count in launched) == STEPS


def test_checkpoints_are_written_by_time_and_the_log_is_not_behind(tmp_path, monkeypatch):
    clock, saved = Clock(), []

    class Slow(Pace):
        def __init__(self, *args):
            super().__init__(*args, clock)

        def wait(self, dispatch):
            clock.now += 20 * dispatch.count
            super().wait(dispatch)

        def saved(self, seconds):
            lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
            saved.append(len(lines))
            super().saved(0)

    monkeypatch.setattr(loop, "Pace", Slow)
    train(mlp_stage(12), tmp_path, options=RunOptions(checkpoint_minutes=1))
    assert saved == [5, 9] and SECONDS < 20  # a minute after the first one, and again
    steps = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {9, 12}
