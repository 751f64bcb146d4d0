"""A run that is killed at any moment, or whose disk is full, loses nothing but time."""

import contextlib
import resource
import signal
import time
from collections import Counter

import numpy as np
import pytest
from disturbed import Disturber
from forked import Forked, server
from full_disk import disk_of
from launched import (
    assert_same_run,
    command,
    ended,
    record,
    reported,
    restless,
    run,
    saved,
    stages,
    start,
    undisturbed,
    wait_for,
)
from tiny import mlp_stage, run_tiny, train

from jaxtl.files import NotWritten, read_json, write_json
from jaxtl.train.options import RunOptions
from jaxtl.train.store.log import read_log

ONE_SAVE = RunOptions(checkpoint_every=1000, steps_per_dispatch=4)
KINDS = {
    "plain": [],
    "sweep": ["--arms=full", "--sweep=rate=0.03,0.1", "--sweep=width=8,6"],
    "selection": ["--config.select=true"],
    "preparation": ["--config.prepares=true", "--arms=scratch,pada"],
    "streaming": ["--config.freezes=true", "--arms=scratch,partial", "--run.feature_cache_mb=0"],
}
IN_TURN = ("writing", "training", "between", "anywhere")


@pytest.fixture(scope="module")
def imported():
    """What launches are forked from."""
    with server() as process:
        yield process


@pytest.fixture
def disturbed(imported, tmp_path):
    """(kind, more arguments) -> a disturber of such launches."""

    def make(kind, *more, seeds=2):
        inputs, whole, workdir = (tmp_path / name for name in ("inputs", "whole", "stopped"))
        inputs.mkdir()
        more = [*KINDS[kind], *more, *([f"--config.folder={inputs}"] * (kind == "streaming"))]

        def launch(workdir=workdir):
            args = restless(workdir, *more, seeds=seeds)[1:]
            return Forked(imported, args, tmp_path / "output.txt")

        output = launch(whole).communicate()[0]
        assert (whole / "restless" / "report.html").exists(), output
        return Disturber(launch, workdir, whole, np.random.default_rng(0))

    return make


def test_a_run_killed_three_times_ends_with_the_same_bits(disturbed):
    quick = ["--config.steps=18", "--config.analyses=false", "--arms=scratch"]
    disturber = disturbed("plain", *quick, seeds=1)
    disturber.disturb(("writing", "training", "reporting"))
    assert disturber.ended.total() == 3, disturber
    disturber.leave_alone()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_many_times_ends_with_the_same_bits(disturbed, kind):
    disturber = disturbed(kind, "--config.steps=60")
    rounds = 6 if kind == "plain" else 2
    disturber.disturb(IN_TURN * rounds)
    disturber.disturb(["reporting"] * 2)
    print(f"{kind}: {disturber}")
    assert disturber.ended.total() >= 4 * rounds and disturber.hits >= 2, disturber
    disturber.leave_alone()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "sweep"])
def test_a_run_that_saves_by_time_killed_many_times_ends_with_the_same_bits(disturbed, kind):
    more = ["--config.steps=20000", "--config.analyses=false", "--run.checkpoint_minutes=0.001"]
    disturber = disturbed(kind, *more)
    disturber.disturb(IN_TURN * 3)
    print(f"{kind}: {disturber}")
    assert disturber.ended.total() >= 9 and disturber.hits >= 2, disturber
    disturber.leave_alone()


@pytest.mark.slow
def test_a_run_killed_while_it_starts_and_while_it_ends_ends_with_the_same_bits(disturbed):
    disturber = disturbed("selection")

    def launch():  # a process of its own, imports included
        return start(restless(disturber.workdir, *KINDS["selection"]))

    forked, disturber.launch = disturber.launch, launch
    disturber.disturb(["starting"] * 8)
    assert disturber.ended["starting"] >= 7, disturber
    disturber.launch = forked
    disturber.disturb(["reporting"] * 10)
    print(disturber)
    assert disturber.ended["reporting"] >= 6, disturber
    disturber.leave_alone()


@pytest.fixture
def hang_up_is_heard():
    """By processes started meanwhile, though the tests themselves may run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.usefixtures("hang_up_is_heard")
def test_a_signal_while_a_run_starts_or_ends_is_one_line(tmp_path):
    args, lines = restless(tmp_path, "--arms=scratch"), {}

    def at_work():
        lock = tmp_path / "restless" / ".lock"  # a stopped process leaves its own
        return lock.exists() and lock.stat().st_mtime >= since

    moments = {
        "imports": lambda: time.monotonic() > began + 0.3,
        "work": at_work,
        "report": lambda: reported(tmp_path, since),
    }
    for moment, event in moments.items():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            began, since, process = time.monotonic(), time.time(), start(args)
            assert wait_for(process, event)
            process.send_signal(number)
            status, _, errors = ended(process)
            (lines[moment, number],) = errors.splitlines()
            assert status == 128 + number or "saved" in errors, errors
    assert all(line.endswith("starts again") for (m, _), line in lines.items() if m == "imports")
    assert {line for (m, _), line in lines.items() if m == "report"} == {
        "interrupted; the same command goes on from the last checkpoint",
        "stopped by SIGTERM; the same command goes on from the last checkpoint",
        "stopped by SIGHUP; the same command goes on from the last checkpoint",
    }


@pytest.mark.slow
def test_a_large_run_killed_two_dozen_times_ends_with_the_same_bits(tmp_path):
    args, whole = command(tmp_path, steps=400), undisturbed(tmp_path, 400)
    disturber = Disturber(lambda: start(args), tmp_path, whole, np.random.default_rng(0))
    disturber.disturb(("writing", "training", "writing", "anywhere") * 6)
    print(disturber)
    assert disturber.ended.total() >= 20 and disturber.hits >= 8, disturber
    disturber.leave_alone()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_by_signals_ends_with_the_same_bits(disturbed, kind):
    disturber = disturbed(kind, "--config.steps=60")
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    moments = ("writing", "training", "between", "anywhere", "reporting")
    moments *= 4 if kind == "plain" else 2
    disturber.disturb(moments, numbers)
    print(f"{kind}: {disturber}, statuses {dict(Counter(disturber.statuses))}")
    assert set(disturber.statuses) <= {0, *(128 + number for number in numbers)}
    disturber.leave_alone()


@pytest.mark.slow
def test_a_second_signal_during_the_last_save_ends_at_once_and_loses_nothing(tmp_path):
    args, whole = command(tmp_path), undisturbed(tmp_path)
    process = start(args)
    assert wait_for(process, lambda: saved(tmp_path, "pretrain") >= 4)
    while process.poll() is None:  # the first is obeyed after a dispatch, the second stops that
        process.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    status, _, errors = ended(process)
    # The save may have ended before the second signal comes; one that comes when the interpreter
    # is nearly gone ends the process as it would any other.
    assert status in (128 + signal.SIGTERM, -signal.SIGTERM, 0)
    assert len(errors.splitlines()) <= 1 and "Traceback" not in errors
    assert not record(tmp_path, "pretrain")["finished"]
    run(args)
    assert_same_run(tmp_path, whole)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(tmp_path):
    args, whole = command(tmp_path), undisturbed(tmp_path)
    process = start(args)
    assert wait_for(process, lambda: saved(tmp_path, "pretrain") >= 6)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    status, _, errors = ended(process)
    folder = stages(tmp_path) / "pretrain" / "checkpoints"
    assert status == 1
    assert errors == (
        f"error: cannot write {folder}: File too large; once that is mended, the same command "
        "goes on from the last whole checkpoint\n"
    )
    assert not record(tmp_path, "pretrain")["finished"]
    assert 6 <= saved(tmp_path, "pretrain") < 24
    run(args)
    assert_same_run(tmp_path, whole)


def test_a_json_file_that_cannot_be_written_stays_as_it_was(tmp_path):
    path = tmp_path / "stage.json"
    write_json(path, {"finished": False})
    with disk_of(50), pytest.raises(NotWritten, match=r"File too large: '.*/stage\.json'"):
        write_json(path, {"finished": True, "notes": "x" * 50})
    assert read_json(path) == {"finished": False}


def train_with_a_disk_that_shrinks(tmp_path, size, at):
    """The error of a stage whose files may not grow beyond `size` bytes after a step."""

    def shrink(step, metrics):
        if step == at:
            limit.enter_context(disk_of(size))

    with pytest.raises(NotWritten) as error, contextlib.ExitStack() as limit:
        train(mlp_stage(), tmp_path, progress=shrink, options=ONE_SAVE)
    assert read_json(tmp_path / "stage.json")["finished"] is False
    return str(error.value)


def test_a_log_that_cannot_be_written_names_itself_and_is_whole_in_the_end(tmp_path):
    error = train_with_a_disk_that_shrinks(tmp_path, 1000, at=4)
    assert error == f"[Errno 27] File too large: '{tmp_path / 'metrics.jsonl'}'"
    assert (tmp_path / "metrics.jsonl").stat().st_size == 1000  # a part of a line
    assert 4 <= len(read_log(tmp_path)) < 23
    train(mlp_stage(), tmp_path, options=ONE_SAVE)
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1, 24))


def test_a_stage_whose_last_save_fails_is_not_finished(tmp_path):
    error = train_with_a_disk_that_shrinks(tmp_path, 3000, at=23)
    assert error == f"[Errno 27] File too large: '{tmp_path / 'checkpoints'}'"
    assert not (tmp_path / "checkpoints" / "23").exists()


@pytest.mark.slow
def test_a_summary_that_cannot_be_written_is_not_there(tmp_path):
    run_tiny(tmp_path, arms=("scratch",))
    (tmp_path / "summary.json").unlink()
    with disk_of(800), pytest.raises(NotWritten, match=f"File too large: '{tmp_path}"):
        run_tiny(tmp_path, arms=("scratch",))
    assert not (tmp_path / "summary.json").exists()
