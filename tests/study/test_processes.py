"""Two real processes, and eight simulated devices, do what one device does."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from contained import containing
from launched import ROOT, environment, metrics, restless, stages

from jaxtl import cli
from jaxtl.train.store.log import read_log

TINY = ["--config.source_steps=12", "--config.target_steps=6"]
TINY += ["--seeds=2", "--arms=scratch,partial"]


def command(workdir: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "launch.py", "--experiment=digits_halves", f"--workdir={workdir}"),
        *("--run.compilation_cache=", "--run.checkpoint_every=8", *TINY, *more),
    ]


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def run(*commands: list[str]) -> list[str]:
    """Run processes side by side; returns their outputs."""
    started = [
        subprocess.Popen(
            c,
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for c in commands
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    for process, output in zip(started, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs


def losses(workdir: Path) -> dict[str, list[float]]:
    return {name: values for name, values in metrics(workdir).items() if name.endswith("/loss")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    run(command(workdir))
    return losses(workdir)


def assert_close(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys() and len(found) >= 3
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, err_msg=name)


FEW = ["--config.steps=6", "--config.analyses=false", "--arms=scratch"]


def launch(workdir: Path, *more: str) -> dict[str, list[float]]:
    """The losses of a few steps in this process."""
    with containing():
        assert cli.main(restless(workdir, *FEW, *more)[1:]) == 0
    return all_losses(workdir)


def all_losses(workdir: Path) -> dict[str, list[float]]:
    """Those of each seed: at each step, and of each evaluation."""
    logs = {path.name: read_log(path) for path in stages(workdir).iterdir()}
    steps = {f"{name} {line['step']}": line["loss"] for name, log in logs.items() for line in log}
    return losses(workdir) | steps


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("one"))


def test_two_processes_take_the_steps_of_one(tmp_path, on_one_device):
    address = free_address()
    flags = [f"--distributed={address},2,{i}" for i in range(2)]
    first, second = run(*(restless(tmp_path, *FEW, flag) for flag in flags))
    assert "Did the transfer help?" in first and "Did the transfer help?" not in second
    assert_close(all_losses(tmp_path), on_one_device)


def test_eight_devices_take_the_steps_of_one(tmp_path, on_one_device):
    assert_close(launch(tmp_path, "--run.mesh=data=4,model=2"), on_one_device)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_and_leave_a_run_that_one_can_read(tmp_path, alone):
    address = free_address()
    flags = [f"--distributed={address},2,{i}" for i in range(2)]
    first, second = run(*(command(tmp_path, flag) for flag in flags))
    assert "Did the transfer help?" in first and "Did the transfer help?" not in second
    assert_close(losses(tmp_path), alone)
    records = sorted((tmp_path / "digits_halves" / "stages").glob("*/stage.json"))
    before = [record.read_bytes() for record in records]
    run(command(tmp_path))  # one process finds every stage finished
    assert len(before) == 3 and [record.read_bytes() for record in records] == before
    assert_close(losses(tmp_path), alone)


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one(tmp_path, alone):
    run(command(tmp_path, "--run.mesh=data=4,model=2", "--run.cpu_devices=8"))
    assert_close(losses(tmp_path), alone)


def pair(workdir: Path, *prefix: str) -> list[list[str]]:
    """The commands of two processes, the second one started by `prefix` instead of Python."""
    address = free_address()
    first, second = (command(workdir, f"--distributed={address},2,{i}") for i in range(2))
    return [first, [*(prefix or second[:1]), *second[1:]]]


UNREADABLE = """
import errno, pathlib, runpy, sys
path_open = pathlib.Path.open
def fails(path, *args, **more):
    if "checkpoints" in path.parts and "state" in path.parts:
        raise OSError(errno.EIO, "Input/output error", str(path))
    return path_open(path, *args, **more)
pathlib.Path.open = fails
sys.argv = sys.argv[1:]
sys.path.insert(0, "")
runpy.run_path("launch.py", run_name="__main__")
"""


@pytest.mark.slow
def test_one_process_that_cannot_read_a_checkpoint_stops_all_and_one_that_finds_damage_tells_all(
    tmp_path, alone
):
    workdir = tmp_path / "w"
    run(*pair(workdir))
    checkpoints = workdir / "digits_halves" / "stages" / "scratch" / "checkpoints"
    steps = [path for path in checkpoints.iterdir() if path.name.isdecimal()]
    last = max(steps, key=lambda path: int(path.name))
    before = sorted(checkpoints.rglob("*"))

    started = [
        subprocess.Popen(
            args, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )
        for args in pair(workdir, sys.executable, "-c", UNREADABLE)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [1, 1], outputs
    assert "error: process 1: " in outputs[0] and "Input/output error" in outputs[0], outputs[0]
    assert "error: cannot read " in outputs[1] and "Traceback" not in "".join(outputs), outputs[1]
    assert sorted(checkpoints.rglob("*")) == before

    share = list(json.loads((last / "checksums.json").read_text()))[1::2]  # of the second process
    (last / "state" / share[0]).write_bytes(b"x")
    shutil.rmtree(workdir / "digits_halves" / "figures")
    run(*pair(workdir))
    names = {path.name for path in checkpoints.iterdir()}
    assert f"damaged-{last.name}" in names and last.name in names
    assert_close(losses(workdir), alone)
