"""A run that was stopped goes on on other devices, and several processes stop at one step."""

import json
import shutil
import signal
import socket

import pytest
from launched import (
    assert_close_run,
    command,
    ended,
    record,
    run,
    saved,
    stages,
    start,
    undisturbed,
    wait_for,
)

pytestmark = pytest.mark.slow

MESH = ["--run.mesh=data=4,model=2", "--run.cpu_devices=8"]
SAVED = "SIGTERM: saved; the same command goes on from here\n"


def scratch(workdir, *more):
    return command(workdir, *more, arms="scratch")


def test_a_run_stopped_on_eight_devices_goes_on_on_one_and_then_on_eight_again(tmp_path):
    whole = undisturbed(tmp_path)
    for mesh in (MESH, []):
        before = saved(tmp_path, "scratch")
        process = start(scratch(tmp_path, *mesh))
        assert wait_for(process, lambda before=before: saved(tmp_path, "scratch") > before)
        process.send_signal(signal.SIGTERM)
        status, _, errors = ended(process)
        assert (status, errors) == (0, SAVED)
        assert before < saved(tmp_path, "scratch") < 24
        assert not record(tmp_path, "scratch")["finished"]
    run(scratch(tmp_path, *MESH))
    assert_close_run(tmp_path, whole)


def two(workdir):
    """Two processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    more = [f"--distributed={address},2", "--run.steps_per_dispatch=1"]
    return [start(scratch(workdir, f"{more[0]},{i}", *more[1:])) for i in range(2)]


def test_sigterm_on_one_of_two_processes_stops_both_at_a_step_from_which_one_or_two_go_on(tmp_path):
    whole, directory, copy = undisturbed(tmp_path), tmp_path / "run", tmp_path / "damaged"
    processes = two(directory)
    assert wait_for(processes[1], lambda: saved(directory, "scratch") >= 6)
    processes[1].send_signal(signal.SIGTERM)
    for status, _, errors in [ended(process) for process in processes]:
        assert status == 0 and errors.endswith(SAVED), errors
    step = saved(directory, "scratch")
    assert 6 <= step < 24 and not record(directory, "scratch")["finished"]
    lines = (stages(directory) / "scratch" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, step + 1))

    shutil.copytree(directory, copy)
    run(scratch(directory))
    assert_close_run(directory, whole)

    damaged = stages(copy) / "scratch" / "checkpoints" / str(step)
    for path in damaged.glob("state/**/d/*"):
        path.write_bytes(path.read_bytes()[:9])
    for status, _, errors in [ended(process) for process in two(copy)]:
        assert status == 0 and f"{damaged} is unreadable" in errors, errors
    assert damaged.with_name(f"damaged-{step}").is_dir()
    assert_close_run(copy, whole)
