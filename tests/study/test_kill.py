"""A run that is killed at any moment, or whose disk is full, loses nothing but time."""

import contextlib
import resource
import signal
import time

import numpy as np
import pytest
from launched import (
    assert_same_run,
    command,
    ended,
    half_written,
    logged,
    record,
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


def launch_and_kill(args, workdir, moment, rng) -> tuple[bool, bool]:
    """Whether SIGKILL came before the end, and whether it left a half-written checkpoint."""
    began, lines, seen = time.time(), logged(workdir), set()
    delay, writes, deadline = rng.uniform(0, 0.03), rng.integers(1, 4), began + rng.uniform(2, 6)

    def writing():
        seen.update(half_written(workdir, began))
        return len(seen) >= writes

    events = {
        "writing": writing,
        "training": lambda: logged(workdir) > lines,
        "anywhere": lambda: time.time() > deadline,
    }
    process = start(args)
    try:
        wait_for(process, events[moment])
        time.sleep(delay * {"writing": 1, "training": 10, "anywhere": 0}[moment])
    finally:
        process.kill()
        process.communicate()
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode == -signal.SIGKILL, bool(half_written(workdir, began))


def kill_until_it_ends(tmp_path, moments, steps):
    """(kills, kills that hit the writing of a checkpoint); the rest is as if none had come."""
    args, whole = command(tmp_path, steps=steps), undisturbed(tmp_path, steps)
    rng, kills, hits = np.random.default_rng(0), 0, 0
    for moment in moments:
        killed, hit = launch_and_kill(args, tmp_path, moment, rng)
        kills, hits = kills + killed, hits + (killed and hit)
    run(args)
    assert_same_run(tmp_path, whole)
    assert not list(stages(tmp_path).glob("*/checkpoints/damaged-*"))
    return kills, hits


@pytest.mark.slow
def test_a_run_killed_three_times_ends_with_the_same_bits(tmp_path):
    kills, hits = kill_until_it_ends(tmp_path, ("writing", "training", "writing"), 24)
    assert kills == 3 and hits >= 1


@pytest.mark.slow
def test_a_run_killed_two_dozen_times_ends_with_the_same_bits(tmp_path):
    moments = ("writing", "training", "writing", "anywhere") * 6
    kills, hits = kill_until_it_ends(tmp_path, moments, 400)
    print(f"{kills} kills, {hits} of them within the writing of a checkpoint")
    assert kills >= 20 and hits >= 8


@pytest.mark.slow
def test_a_second_signal_during_the_last_save_ends_at_once_and_loses_nothing(tmp_path):
    args, whole = command(tmp_path), undisturbed(tmp_path)
    process = start(args)
    assert wait_for(process, lambda: saved(tmp_path, "pretrain") >= 4)
    while process.poll() is None:  # the first is obeyed after a dispatch, the second stops that
        process.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    status, _, errors = ended(process)
    # Signals that come while XLA computes are one to Python: then the first is obeyed to its end,
    # and one that comes after that ends the process as it would any other.
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


@contextlib.contextmanager
def disk_of(size):
    """No file may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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
    with disk_of(800), pytest.raises(NotWritten, match=f"File too large: '{tmp_path}'"):
        run_tiny(tmp_path, arms=("scratch",))
    assert not (tmp_path / "summary.json").exists()
