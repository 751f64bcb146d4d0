"""The command line as a careless or hostile user meets it."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from contained import containing

from jaxtl import cli, files
from jaxtl.lock import lock

ROOT = Path(__file__).parents[1]
TOY = '''\
"""Which of two ways is better on three clusters?

    python launch.py --experiment=toy

Result: 0.5 on
one core.
"""

import dataclasses

import numpy as np
import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Optimizer:
    learning_rate: float = 0.1
    nesterov: bool = False


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 3
    shift: float = 0.5
    name: str = "blobs"
    hidden: tuple[int, ...] = (4,)
    optimizer: Optimizer = Optimizer()

    def __post_init__(self):
        if self.shift > 9:
            raise ValueError(f"shift must be at most 9, got {self.shift}")


def blobs(shift, seed):
    labels = np.arange(24) % 3
    inputs = np.eye(3)[labels] + shift + np.random.default_rng(seed).normal(size=(24, 3)) / 4
    return data.arrays(inputs.astype(np.float32), labels, name="blobs")


def build(config):
    model = models.mlp({"y": models.classes(3)}, hidden=config.hidden)
    tx = optax.sgd(config.optimizer.learning_rate, nesterov=config.optimizer.nesterov)

    def stage(name, shift, method):
        domains = [labelled(blobs(shift, 0), "y")]
        return Stage(
            name, model, method, domains=domains, batch_size=8, num_steps=config.steps
        )

    full = transfer.full(tx)
    pretrain = stage("pretrain", 0.0, full)
    arms = {
        "scratch": [stage("scratch", config.shift, full)],
        "full": [pretrain, stage("full", config.shift, full)],
    }
    test = classification(blobs(config.shift, 1), "y")
    return Experiment(arms, "scratch", {"test": test}, primary=maximize("test", "accuracy"))
'''


@pytest.fixture(scope="module", autouse=True)
def contained():
    with containing():
        yield


@pytest.fixture
def launch(monkeypatch, capsys):
    """Runs a command in this process; (status, stdout, stderr)."""
    monkeypatch.chdir(ROOT)

    def run(*args):
        try:
            status = cli.main(["launch.py", *map(str, args)])
        finally:
            for name in [n for n in sys.modules if n.partition(".")[0] == "experiments"]:
                del sys.modules[name]
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(launch):
    """Runs a command that must fail with one message; it holds each of `expected`."""

    def run(command, *expected):
        args = command.split() if isinstance(command, str) else command
        status, _, errors = launch(*args)
        assert status == 1
        assert errors.startswith("error: ") and errors.count("error: ") == 1, errors
        assert "Traceback" not in errors
        for text in expected:
            assert text in errors, errors
        return errors

    return run


@pytest.fixture
def toy(tmp_path, launch, monkeypatch):
    """A folder of experiments with one of our own; the current directory."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def summary_of(directory, name="toy"):
    return json.loads((directory / name / "summary.json").read_text())


def metrics_of(summary):
    return {name: arm["metrics"] for name, arm in summary["arms"].items()}


# Before JAX is imported.

BEFORE_JAX = """
import sys
import jaxtl
from jaxtl import cli, files
for command in {commands!r}:
    status = cli.main(["launch.py", *command.split()])
    heavy = {heavy!r} & set(sys.modules)
    print(f"\\n@{{command}}|{{status}}|{{sorted(heavy)}}")
"""
HEAVY = {"orbax", "tensorflow_datasets", "grain", "matplotlib", "sklearn", "tensorflow", "torch"}


def test_no_part_of_scipy_is_imported_before_it_is_asked_for():
    """They would be a tenth of what a run needs to start."""
    script = (
        "import sys, jaxtl.study.experiment, jaxtl.methods.adapt, jaxtl.report\n"
        "print({'scipy.' + name for name in ('linalg', 'sparse', 'spatial', 'special', 'stats')}"
        " & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def run_in_fresh_process(commands, heavy):
    """[(command, status, those of the heavy modules that are loaded)], CPU seconds."""
    script = BEFORE_JAX.format(commands=commands, heavy=heavy)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    lines = [line[1:].split("|") for line in done.stdout.splitlines() if line.startswith("@")]
    assert len(lines) == len(commands)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return lines, done.stderr, seconds


def test_unknown_names_are_answered_without_jax():
    commands = {
        "--experiment=digts": "unknown experiment 'digts'. Did you mean 'digits'?",
        "--experiment=digits --sedes=3": "unknown flag '--sedes'. Did you mean '--seeds'?",
        "--experiment=digits --seeds=0": "--seeds=0: expected at least one seed",
        "--experiment=digits --run.checkpoint_evry=3": "Did you mean '--run.checkpoint_every'?",
        "": "--experiment=NAME is missing",
    }
    lines, errors, seconds = run_in_fresh_process(list(commands), {*HEAVY, "jax", "flax", "optax"})
    for command, status, loaded in lines:
        assert (status, loaded) == ("1", "[]"), command
    assert errors.count("error: ") == len(commands) and "Traceback" not in errors
    for expected in commands.values():
        assert expected in errors
    assert seconds < 2


def test_list_and_help_load_little():
    commands = ["--help", "--list", "--experiment=digits --help"]
    lines, errors, _ = run_in_fresh_process(commands, HEAVY)
    assert [(status, loaded) for _, status, loaded in lines] == [("0", "[]")] * 3
    assert errors == ""


def test_the_script_exits_with_the_status():
    done = subprocess.run(
        [sys.executable, "launch.py", "--experiment=digts"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: unknown experiment 'digts'.")


def test_a_failed_run_waits_for_no_thread(tmp_path):
    path = tmp_path / "stuck.py"
    path.write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
        "Config = dict\ndef build(config): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-u", "launch.py", f"--experiment={path}", "--config.x=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1


# Flags and fields.


def test_help_on_an_experiment_of_ours(launch):
    status, output, errors = launch("--experiment=digits", "--help")
    assert (status, errors) == (0, "")
    assert "--config.labels_per_class=2" in output and "--run.checkpoint_minutes=1.0" in output
    assert "does the transfer help?" in " ".join(output.split())


def test_list_shows_every_experiment(launch):
    output = launch("--list")[1]
    for path in (ROOT / "experiments").glob("*.py"):
        assert path.stem in output


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("extra", "unexpected argument 'extra'"),
        ("--seeds=x", "--seeds=x: expected a number or a list such as 0,3,7"),
        ("--seeds=", "expected a number"),
        ("--seeds=-2", "at least one seed"),
        ("--seeds=1,1", "named once"),
        ("--seeds=0,-1", "each in [0, 2**31)"),
        ("--seeds=0,2147483648", "each in [0, 2**31)"),
        ("--seeds=99999999999999", "at most 10,000 seeds"),
        ("--seeds=18446744073709551616", "at most 10,000 seeds"),
        ("--run.eval_batch=2147483648", "run.eval_batch must be below 2**31, got 2147483648"),
        ("--arms=", "unknown arm ''"),
        ("--arms=scratch,ful", "unknown arm 'ful'. Did you mean 'full'? Known: full, scratch."),
        ("--arms=full,full", "--arms names 'full' twice"),
        ("--seeds=five", "--seeds=five: expected a number or a list such as 0,3,7"),
        ("--seeds=1e3", "--seeds=1e3: expected a number"),
        ("--seeds=2 --seeds=3", "--seeds stands 2 times; give it once"),
        ("--workdir=", "--workdir= names nothing"),
        ("--resume --noresume", "--resume stands 2 times"),
        ("--resume=maybe", "error: --resume=maybe: expected true or false"),
        ("--shift=3", "unknown flag '--shift'. Did you mean '--config.shift'?"),
        ("--learning_rate=3", "Did you mean '--config.optimizer.learning_rate'?"),
        ("--tensorboard", "unknown flag '--tensorboard'. Did you mean '--run.tensorboard'?"),
        ("--config.seeds=3", "unknown field '--config.seeds'. Did you mean '--seeds'?"),
        ("--config.dtype=bfloat16", "Did you mean '--run.dtype'?"),
        ("--run.steps=3", "unknown field '--run.steps'. Did you mean '--config.steps'?"),
        ("--run.dtype=bf16", "unknown run.dtype 'bf16'. Did you mean 'bfloat16'?"),
        ("--run.data_dir=~nobody_here/x", "there is no home folder '~nobody_here'"),
        ("--config.shift=1 --config.shift=2", "--config.shift stands 2 times"),
        ("--config.shift=nan", "--config.shift=nan: nan is no value"),
        ("--distributed=10.0.0.1,2,0", "expected off, auto or ADDRESS:PORT,COUNT,INDEX"),
        ("--distributed=:1234,2,0", "expected off, auto or ADDRESS:PORT,COUNT,INDEX"),
        ("--distributed=localhost:1234,2", "expected off, auto or ADDRESS:PORT,COUNT,INDEX"),
        ("--distributed=localhost:1234,2,-1", "expected off, auto or ADDRESS:PORT,COUNT,INDEX"),
        ("--distributed=localhost:99999,2,0", "a port is a number from 1 to 65535, got 99999"),
        ("--distributed=localhost:0,2,0", "a port is a number from 1 to 65535, got 0"),
        ("--distributed=localhost:1234,2,2", "INDEX is one of 0 to 1, got 2"),
        ("--distributed=localhost:1234,0,0", "at least one process, got COUNT 0"),
        ("--distributed=no.such.host.invalid:1234,2,1", "no.such.host.invalid, port 1234: "),
        ("--config.steps", "write --config.steps=VALUE"),
        ("--config.stps=3", "unknown field '--config.stps'. Did you mean '--config.steps'?"),
        ("--config.optimizer.learning=3", "Did you mean '--config.optimizer.learning_rate'?"),
        ("--config.optimizer=3", "unknown field '--config.optimizer'."),
        ("--config.steps=2.5", "--config.steps=2.5: expected int, as in 3"),
        ("--config.steps=1e3", "--config.steps=1e3: expected int, as in 3"),
        ("--config.steps=", "--config.steps=: expected int"),
        ("--config.shift=fast", "--config.shift=fast: expected float, as in 0.5"),
        ("--config.optimizer.nesterov=3", "expected bool, as in False"),
        ("--config.hidden=(4,x)", "expected tuple[int, ...], as in (4,)"),
        ("--config.hidden=4", "expected tuple[int, ...], as in (4,)"),
        ("--config.shift=10", "shift must be at most 9, got 10"),
        ("--run.log_evry=3", "Did you mean '--run.log_every'?"),
        ("--run.checkpoint_every=x", "--run.checkpoint_every=x: expected int, as in 0"),
        ("--run.checkpoint_every=-1", "run.checkpoint_every must be at least 0, got -1"),
        ("--run.checkpoint_minutes=-1", "run.checkpoint_minutes must be at least 0, got -1.0"),
        ("--run.checkpoint_minutes=nan", "--run.checkpoint_minutes=nan: nan is no value"),
        ("--run.checkpoint_minutes=inf", "run.checkpoint_minutes must be finite, got inf"),
        ("--run.cpu_devices=100000", "run.cpu_devices must be at most 512, got 100000"),
        ("--run.source_run=nowhere", "nowhere holds no run"),
        ("--sweep=shfit=1,2", "unknown field '--config.shfit'. Did you mean '--config.shift'?"),
        ("--sweep=shift", "--sweep=shift: expected FIELD=V1,V2,..."),
        ("--sweep=shift=1,x", "--config.shift=x: expected float"),
        ("--sweep=shift=nan,1e-3", "--config.shift=nan: nan is no value"),
        ("--sweep=shift=1,-inf", "--sweep=shift: -inf is no point of a sweep"),
        ("--sweep=shift=1e-3,0.001", "the point shift=0.001 stands twice"),
        ("--sweep=shift=1 --sweep=shift=2", "--sweep=shift=... stands twice"),
        ("--sweep=hidden=(4,),(8", "the brackets of (4,),(8 do not fit together"),
        ("--sweep=hidden=(4,),[(8)]x", "--config.hidden=[(8)]x: expected tuple"),
    ],
)
def test_wrong_values_are_one_message_and_leave_nothing(refused, toy, args, expected):
    refused(f"--experiment=toy --workdir=here {args}", expected)
    assert not list(toy.glob("here/toy/stages/*"))


def test_all_wrong_fields_are_listed_and_no_right_one(refused, toy):
    args = "--config.steps=x --config.shift=2 --config.stps=1 --config.optimizer.learning_rate=?"
    message = refused(f"--experiment=toy {args}", "steps=x: expected int", "learning_rate=?: ")
    assert "unknown field '--config.stps'" in message and "shift=2" not in message


def test_values_are_read_as_their_fields_are_declared():
    import importlib.util

    spec = importlib.util.spec_from_loader("toy_config", loader=None)
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_config"] = module
    exec(compile(TOY, "toy.py", "exec"), module.__dict__)
    args = {
        "steps": "1_000",
        "shift": "-3",
        "name": "3",
        "hidden": "(8, 2)",
        "optimizer.learning_rate": "3",
        "optimizer.nesterov": "true",
    }
    config = cli.parse(module.Config(), "config", [f"--config.{k}={v}" for k, v in args.items()])
    assert config == module.Config(1000, -3.0, "3", (8, 2), module.Optimizer(3.0, True))
    assert isinstance(config.shift, float) and isinstance(config.optimizer.learning_rate, float)
    assert cli.parse(module.Config(), "config", []) == module.Config()
    del sys.modules["toy_config"]


def test_an_unknown_dataset_names_the_closest(refused, tmp_path):
    args = f"--experiment=cifar --workdir={tmp_path} --config.dataset=cifar1"
    refused(args, "unknown dataset 'cifar1'", "cifar10")
    refused("--prepare=cifar1", "unknown dataset 'cifar1'", "cifar10")


def test_experiments_that_cannot_be_read(refused, launch, toy, monkeypatch):
    (toy / "experiments" / "broken.py").write_text("x = 1\ndef build(:\n")
    refused("--experiment=broken", "experiments/broken.py, line 2: ")
    (toy / "experiments" / "empty.py").write_text("x = 1\n")
    refused("--experiment=empty", "experiments/empty.py has no Config and no build")
    monkeypatch.chdir(toy / "experiments")
    refused("--experiment=toy", "no folder experiments/ here", "repository's root")


# Directories.


def test_a_workdir_that_cannot_be_written(refused, toy):
    (toy / "file").write_text("")
    refused("--experiment=toy --workdir=file", "cannot write to file/toy", "--workdir")
    assert "no UTF-8 text" in files.why_unwritable(toy / "\udcff")
    refused("--experiment=toy --workdir=/proc/nowhere", "cannot write to /proc/nowhere/toy")


@pytest.mark.slow
def test_a_run_again_of_the_same_and_of_others(launch, refused, toy):
    run = ["--experiment=toy", "--workdir=w", "--seeds=2"]
    assert launch(*run, "--arms=scratch")[0] == 0
    status, output, errors = launch(*run, "--arms=full")
    assert (status, errors) == (0, "") and "gain over scratch" in " ".join(output.split())
    first = summary_of(toy / "w")
    assert first["arms"].keys() == {"scratch", "full"}
    assert first["config"]["hidden"] == [4]
    stages = {p: p.stat().st_mtime_ns for p in (toy / "w/toy/stages").rglob("*") if p.is_file()}
    assert launch(*run)[0] == 0
    assert metrics_of(summary_of(toy / "w")) == metrics_of(first)
    assert stages == {p: p.stat().st_mtime_ns for p in stages}

    blocked = toy / f"w/toy/.writable-{os.getpid()}"
    blocked.mkdir()  # as on a full or read-only file system
    report = (toy / "w/toy/report.html").stat().st_mtime_ns
    status, output, errors = launch(*run, "--arms=full")
    assert (status, errors) == (0, "") and "gain over scratch" in " ".join(output.split())
    assert (toy / "w/toy/report.html").stat().st_mtime_ns == report
    refused([*run, "--sweep=shift=1,2"], "cannot write to w/toy: ")
    stage = toy / "w/toy/stages/full/stage.json"
    finished = stage.read_text()
    stage.write_text(finished.replace('"finished": true', '"finished": false'))
    refused(run, "cannot write to w/toy: ", "name another --workdir")
    stage.write_text(finished)
    blocked.rmdir()
    with lock(toy / "w/toy"):
        refused(run, "another process is at work in w/toy")

    common = "--experiment=toy --workdir=w --seeds=2"
    other = refused(f"{common} --config.steps=4 --config.hidden=(5,)", "--overwrite=")
    assert "config.steps: there 3, now 4" in other and "config.hidden: there [4], now [5]" in other
    assert "config.shift" not in other
    refused(f"{common} --resume=false", "holds a run and --resume=false")
    refused(f"{common} --overwrite=ful", "unknown stage 'ful'. Did you mean 'full'?")
    assert launch("--experiment=toy", "--workdir=v", "--seeds=2", "--noresume")[0] == 0
    assert metrics_of(summary_of(toy / "v")) == metrics_of(first)

    path = toy / "experiments" / "toy.py"
    path.write_text(path.read_text() + "\n# another file\n")
    (toy / "w/toy/config.json").write_text("{")
    status, output, errors = launch(*common.split())
    assert (status, errors) == (0, "") and output.count("found finished") == 3
    path.write_text(TOY)
    assert metrics_of(summary_of(toy / "w")) == metrics_of(first)


@pytest.mark.slow
def test_a_sweep_has_a_point_for_each_value(launch, toy):
    run = ["--experiment=toy", "--workdir=w", "--seeds=2", "--config.steps=2"]
    sweep = ["--sweep=shift=0.5,-2", "--sweep=optimizer.learning_rate=0.1,1"]
    assert launch(*run, *sweep)[0] == 0
    summary = summary_of(toy / "w")
    points = [point["config"] for point in summary["sweep"]]
    assert points == [
        {"shift": shift, "optimizer.learning_rate": rate}
        for shift in (0.5, -2.0)
        for rate in (0.1, 1.0)
    ]
    here = summary["sweep"][0]["arms"]["full"]
    assert here["metrics"] == summary["arms"]["full"]["metrics"]
    assert here["metrics"] != summary["sweep"][3]["arms"]["full"]["metrics"]
    assert here.keys() >= {"gain", "verdict", "metrics"}
    folder = toy / "w/toy/sweep"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "shift=0.5;optimizer.learning_rate=1.0",
        "shift=-2.0;optimizer.learning_rate=0.1,1.0",
    }
    for name in names:
        stages = folder / name / "stages"
        assert {path.name for path in stages.iterdir()} == {"scratch", "pretrain", "full"}


# Signals.


def process(*args):
    command = [sys.executable, "launch.py", "--experiment=iris", "--arms=full", "--seeds=2", *args]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def signal_at(running, stage, step, number):
    """Send a signal when a stage has saved a step; (status, stderr)."""
    deadline = time.monotonic() + 60
    while running.poll() is None and time.monotonic() < deadline:
        saved = [int(p.name) for p in stage.glob("checkpoints/*") if p.name.isdigit()]
        if max(saved, default=0) >= step:
            running.send_signal(number)
            break
        time.sleep(0.002)
    errors = running.communicate(timeout=60)[1]
    return running.returncode, errors


@pytest.mark.slow
def test_a_run_interrupted_then_killed_ends_as_one_that_was_not(tmp_path, launch):
    fields = ["--config.source_steps=90", "--config.target_steps=4", "--run.checkpoint_every=2"]
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    stage = stopped / "iris" / "stages" / "pretrain"

    def finished():
        return json.loads((stage / "stage.json").read_text())["finished"]

    args = [f"--workdir={stopped}", *fields]
    status, errors = signal_at(process(*args), stage, 4, signal.SIGINT)
    assert status == 130 and "Traceback" not in errors
    assert errors == "SIGINT: saved; the same command goes on from here\n"
    assert not finished()
    status, _ = signal_at(process(*args), stage, 40, signal.SIGKILL)
    assert status == -signal.SIGKILL and not finished()
    last = process(*args)
    errors = last.communicate(timeout=60)[1]
    assert (last.returncode, errors) == (0, "") and finished()

    status, _, errors = launch(
        "--experiment=iris", "--arms=full", "--seeds=2", f"--workdir={whole}", *fields
    )
    assert (status, errors) == (0, "")
    metrics = [metrics_of(summary_of(directory, "iris")) for directory in (stopped, whole)]
    assert metrics[0] == metrics[1] and metrics[0]["full"]
    logs = [
        [p.read_bytes() for p in sorted(d.glob("iris/stages/*/metrics.jsonl"))]
        for d in (stopped, whole)
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 2


def test_ctrl_c_while_nothing_trains_is_a_message_too(launch, monkeypatch):
    def interrupt(*args):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    monkeypatch.setattr(cli, "find", interrupt)
    status, _, errors = launch("--experiment=digits")
    assert status == 130 and errors.startswith("interrupted; the same command")


@pytest.mark.parametrize(
    "arms",
    [
        "dict(arms, more=arms['full'])",
        "{**arms, 'more': arms['full']}",
        "arms | {'more': arms['full']}",
        "arms.update(more=arms['full']) or arms",
        "{name + end: arms[name] for name in arms for end in ('', '/all, with [r=8]')}",
    ],
)
def test_an_arm_is_known_however_the_file_names_it(toy, refused, arms):
    text = TOY.replace("Experiment(arms,", f"Experiment({arms},")
    (toy / "experiments/grown.py").write_text(text)
    name = "full/all, with [r=8]" if "end" in arms else "more"
    message = refused([f"--arms={name},scratch,mroe", "--experiment=grown"], "unknown arm 'mroe'")
    assert message.count("unknown") == 1
