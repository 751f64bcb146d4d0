"""`jaxtl.run`: an experiment given in any way, in a process that is somebody else's."""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import types

import jax
import numpy as np
import pytest
from tiny import OPTIONS, experiment

import jaxtl
from jaxtl.measure.analyses import classes
from jaxtl.study.front import call, given
from jaxtl.study.front.process import settings
from jaxtl.train.options import RunOptions

QUIET = {"options": dataclasses.replace(OPTIONS, compilation_cache=""), "progress": False}
FILE = """\
'''Which of two is better?'''
import dataclasses
import tiny


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 6
    rate: float = 0.1


def build(config):
    return tiny.experiment(steps=config.steps)
"""


@pytest.fixture
def runs(result):
    """A folder with a run of the tiny experiment."""
    return result.directory.parent


@pytest.fixture
def file(tmp_path, monkeypatch):
    """An experiment file that builds the same; the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    path = tmp_path / "experiments" / "small.py"
    path.write_text(FILE)
    return path


def refused(expected, *args, **kwargs):
    with pytest.raises(ValueError) as caught:
        jaxtl.run(*args, **QUIET | kwargs)
    for text in [expected] if isinstance(expected, str) else expected:
        assert text in str(caught.value)
    return caught.value


# Going on.


def test_a_value_goes_on_from_what_computes_the_same_and_from_nothing_else(runs, capsys):
    options = QUIET["options"]
    jaxtl.run(experiment(analyses=[classes()]), 2, runs, options=options)
    printed = capsys.readouterr().out
    assert printed.count("found finished") == 3 and "warning" not in printed
    message = str(refused("holds other results than this run", experiment(steps=7), 2, runs))
    assert "steps: there 6, now 7" in message and "--overwrite=" in message


def test_code_that_cannot_be_looked_into_is_never_the_same():
    plain = [given.read(experiment(), None, "").digest() for _ in range(2)]
    assert plain[0] == plain[1] and "-" not in plain[0]
    unreadable = memoryview(b"1")
    derived = {"target/odd": lambda metrics: len(unreadable)}
    odd = dataclasses.replace(experiment(), derived=derived)
    first, again = (given.read(odd, None, "").digest() for _ in range(2))
    assert first != again and first.partition("-")[0] == again.partition("-")[0]


# What an experiment is given as.


def test_names_paths_and_modules(file):
    for source in ("small", "experiments/small.py", file, str(file)):
        found = given.read(source, given.locate(source), "")
        assert (found.name, found.headline) == ("small", "Which of two is better?")
        assert found.build(found.config).arms.keys() == {"scratch", "full"}
    module = types.ModuleType("notebook")
    exec(FILE, vars(module))
    made = given.read(module, given.locate(module), "")
    assert (made.name, made.file) == ("notebook", None)
    other = types.ModuleType("notebook")
    exec(FILE.replace("steps=config.steps", "steps=config.steps + 1"), vars(other))
    assert made.digest() == given.read(module, None, "").digest()
    assert made.digest() != given.read(other, None, "").digest()
    module.__file__ = other.__file__ = str(file)
    assert given.read(module, None, "").digest() == found.digest()  # it is what the file says
    assert given.read(other, None, "").digest() != found.digest()


def test_a_notebook_beside_the_experiments_calls_them_by_name(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert given.locate("small").resolve() == file


def test_what_is_no_experiment(file):
    refused("unknown experiment 'smal'. Did you mean 'small'?", "smal")
    refused("no file other/one.py", "other/one.py")
    refused(
        ["expected an Experiment, the name", "a module, got the function", "run(build("],
        test_what_is_no_experiment,
    )
    refused("got the class SimpleNamespace; did you mean to call it?", types.SimpleNamespace)
    refused("module json has no Config and no build", json)
    refused("the file names this experiment", "small", name="other")
    for name in ("a/b", ".hidden", "a\nb"):
        refused("cannot name a folder", experiment(), name=name)


def test_bad_arguments_are_one_message_before_any_work(tmp_path):
    tiny = experiment()
    for seeds in (0, -1, [], [1, 1], [2**31], [-1]):
        refused("expected at least one seed", tiny, seeds, tmp_path)
    for seeds in (2.5, True, [0.5], None, {"a"}):
        refused("expected how many, as in seeds=5, or a list", tiny, seeds, tmp_path)
    refused("unknown arm 'ful'. Did you mean 'full'?", tiny, 1, tmp_path, arms=["ful"])
    refused("arms names 'full' twice", tiny, 1, tmp_path, arms=["full", "full"])
    refused("names no arm", tiny, 1, tmp_path, arms=[])
    refused("unknown stage 'adap'", tiny, 1, tmp_path, overwrite=["adap"])
    refused("unknown field of options 'evalbatch'. Did you mean", tiny, options={"evalbatch": 1})
    refused("options: eval_batch: 'many' is no value", tiny, options={"eval_batch": "many"})
    refused("run.eval_batch must be at least 0", tiny, options={"eval_batch": -1})
    refused("an Experiment value has no fields", tiny, config={"steps": 3})
    refused("an Experiment value has no fields", tiny, sweep={"steps": [3]})
    refused("workdir='' names nothing", tiny, workdir="")
    refused("progress must be True or False", tiny, progress="no")
    assert not list(tmp_path.iterdir())


def test_config_and_sweep_are_of_the_declared_types(file):
    found = given.read("small", given.locate("small"), "")

    def config(values):
        return given.read_fields("config", found.config, values)

    assert config({"steps": np.int64(3), "rate": 1}) == dataclasses.replace(
        found.config, steps=3, rate=1.0
    )
    assert config(config({"rate": np.float32(0.5)})).rate == 0.5
    for values, expected in [
        ({"step": 3}, "unknown field of config 'step'. Did you mean 'steps'?"),
        ({"steps": 2.5}, "config: steps: 2.5 is no value like 6"),
        ({"rate": "fast"}, "rate: 'fast' is no value like 0.1"),
        ([3], "config must be {field: value}"),
    ]:
        refused(expected, "small", config=values)
    points = given.read_points(found, found.config, {"rate": np.array([0.1, 0.5])})
    assert [values for values, _ in points] == [{"rate": 0.1}, {"rate": 0.5}]
    assert [each.rate for _, each in points] == [0.1, 0.5]
    assert given.read_points(found, found.config, ["rate=0.1,0.5"]) == points
    assert given.read_points(found, found.config, {}) == []
    asked = found._replace(sweep={"rate": (0.1, 0.5)})
    assert given.read_points(asked, found.config, None) == points
    assert given.read_points(asked, found.config, None, ["steps"]) == points
    assert given.read_points(asked, found.config, None, ["rate"]) == []
    refused("unknown field '--config.rat'", "small", sweep={"rat": [1]})
    refused("sweep['rate'] must be a list of values", "small", sweep={"rate": 1})


def test_flags_in_a_message_are_told_in_python(runs):
    error = refused("--overwrite=", experiment(steps=7), 2, runs)
    assert "overwrite=['A', 'B']" in error.__notes__[0]
    (line, note) = error._render_traceback_()  # what a notebook shows
    assert line.startswith("ValueError: ") and note == error.__notes__[0]


# Somebody else's process.


def test_settings_are_set_back(tmp_path, monkeypatch):
    cache = "jax_compilation_cache_dir"
    before, path = getattr(jax.config, cache), [*sys.path]
    monkeypatch.setenv("TFDS_DATA_DIR", "/somewhere")
    monkeypatch.chdir(tmp_path)
    options = RunOptions(data_dir="/elsewhere", compilation_cache=str(tmp_path / "compiled"))
    with settings(options), given.importable(None):
        with settings(RunOptions()):  # another thread's
            assert getattr(jax.config, cache) == options.compilation_cache
        assert os.environ["TFDS_DATA_DIR"] == "/elsewhere" and str(tmp_path) in sys.path
    assert getattr(jax.config, cache) == before and sys.path == path
    assert os.environ["TFDS_DATA_DIR"] == "/somewhere"


def test_devices_that_cannot_be_made_any_more(tmp_path):
    jax.devices()
    count = jax.device_count("cpu")
    with settings(RunOptions(cpu_devices=count)):  # as they are
        pass
    refused(
        [f"cpu_devices={count + 1} comes too late", f"with {count} CPU device", "kernel"],
        *(experiment(), 1, tmp_path),
        options={"cpu_devices": count + 1},
    )


def test_a_temporary_folder_goes_with_what_is_made_of_it(runs, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="unknown arm"):
        jaxtl.run(experiment(), 1, arms=["none"], **QUIET)
    assert not list(tmp_path.iterdir())
    folder = call.Temporary()
    result = jaxtl.open(runs / "experiment")
    result.models.temporary, place = folder, folder.path
    arm = result["full"]
    del result, folder
    assert os.path.isdir(place)  # an arm still reads its models there
    del arm
    assert not os.path.exists(place)


def test_one_thread_at_a_time_in_a_folder(runs):
    from jaxtl.lock import lock

    told = []

    def other():
        told.append(str(refused("another thread", experiment(), 2, runs)))

    with lock(runs / "experiment"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "(this very process, in another thread)" in told[0]


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, monkeypatch):
    long = experiment(steps=100_000)

    class Pressed(call.SilentReporter):
        pressed, number = False, signal.SIGINT
        task_ids = (0,)

        def bar(self, name, num_steps):
            return contextlib.nullcontext(self)

        def update(self, task, completed, loss=""):
            if loss and not self.pressed:  # steps were trained: there is something to save
                self.pressed = True
                os.kill(os.getpid(), self.number)

    monkeypatch.setattr(call, "SilentReporter", Pressed)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(jaxtl.Stopped) as caught:
        jaxtl.run(long, 2, tmp_path, **QUIET)
    assert isinstance(caught.value, KeyboardInterrupt) and caught.value.__suppress_context__
    text = f"saved; the same call goes on from there: {tmp_path}"
    assert caught.value._render_traceback_() == [f"interrupted: {text}"]
    assert signal.getsignal(signal.SIGINT) is handler
    stage = json.loads((tmp_path / "experiment/stages/scratch/stage.json").read_text())
    assert not stage["finished"] and list((tmp_path / "experiment").glob("stages/*/checkpoints/*"))
    with pytest.raises(ValueError, match="has not ended: it has no summary"):
        jaxtl.open(tmp_path / "experiment")

    told = []  # another signal: saved, then left to the process

    def terminate(number, frame):
        told.append(number)

    outside = signal.signal(signal.SIGTERM, terminate)
    monkeypatch.setattr(Pressed, "number", signal.SIGTERM)
    try:
        with pytest.raises(jaxtl.Stopped):
            jaxtl.run(long, 2, tmp_path, **QUIET)
    finally:
        signal.signal(signal.SIGTERM, outside)
    assert told == [signal.SIGTERM]
