"""Two processes, or two runs of several, in one directory at once."""

import json
import signal
import socket

import numpy as np
import pytest
from launched import (
    checkpoint,
    ended,
    folder,
    metrics,
    restless,
    run,
    saved,
    stages,
    start,
    wait_for,
)

pytestmark = pytest.mark.slow

STEPS = ["--config.steps=200", "--arms=scratch", "--run.steps_per_dispatch=1"]


def steps_logged(workdir):
    lines = (stages(workdir) / "scratch" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_the_second_of_two_processes_ends_with_one_line_and_goes_on_once_the_first_is_killed(
    tmp_path,
):
    first, whole = start(restless(tmp_path / "w", *STEPS)), tmp_path / "whole"
    assert wait_for(first, lambda: (tmp_path / "w/restless/.lock").exists())
    early = start(restless(tmp_path / "w", *STEPS))
    assert wait_for(first, lambda: saved(tmp_path / "w", "scratch") >= 30)
    late = start(restless(tmp_path / "w", *STEPS))
    for second in (early, late):
        status, output, errors = ended(second)
        assert (status, output) == (1, "")
        start_of_it = f"error: another process is at work in {tmp_path / 'w/restless'}: process "
        assert errors.startswith(f"{start_of_it}{first.pid} on host {socket.gethostname()} since ")
        assert "launch.py --experiment=" in errors and len(errors.splitlines()) == 1
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (folder(tmp_path / "w") / ".lock").exists()
    run(restless(tmp_path / "w", *STEPS))
    assert steps_logged(tmp_path / "w") == list(range(1, 201))
    assert not (folder(tmp_path / "w") / ".lock").exists()

    run(restless(whole, *STEPS))
    assert metrics(tmp_path / "w") == metrics(whole)
    leaves, expected = (
        checkpoint(stages(w) / "scratch" / "checkpoints") for w in (tmp_path / "w", whole)
    )
    assert leaves.keys() == expected.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(leaf, expected[path], err_msg=path)


def test_what_only_reads_may_read_where_a_process_is_at_work(tmp_path):
    args = ["--config.steps=200", "--arms=full", "--run.steps_per_dispatch=1"]
    first = start(restless(tmp_path / "w", *args))
    assert wait_for(first, lambda: saved(tmp_path / "w", "full") >= 3)
    first.send_signal(signal.SIGSTOP)
    source = f"--run.source_run={tmp_path / 'w/restless'}"
    status, output, errors = ended(start(restless(tmp_path / "v", *args, source)))
    assert (status, errors) == (0, "") and "stage pretrain: loaded from" in output
    first.kill()
    first.communicate()


def test_all_processes_of_a_second_run_hear_that_another_one_is_at_work(tmp_path):
    first = start(restless(tmp_path, *STEPS))
    try:
        lock = tmp_path / "restless" / ".lock"
        assert wait_for(first, lambda: lock.exists() and lock.stat().st_size)
        first.send_signal(signal.SIGSTOP)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = [f"--distributed={address},2,{i}" for i in range(2)]
        seconds = [start(restless(tmp_path, *STEPS, flag)) for flag in flags]
        for status, _, errors in map(ended, seconds):
            assert status == 1, errors
            assert f"process {first.pid} on host" in errors, errors
            assert errors.count("error: ") == 1, errors
    finally:
        first.kill()
        first.communicate()
