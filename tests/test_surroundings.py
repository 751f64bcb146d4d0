"""A process of our own, wherever it runs: its output, its devices, its neighbours."""

import io
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from absl import logging as absl_logging

from jaxtl import surroundings
from jaxtl.study.run import numeric_settings
from jaxtl.train.options import RunOptions

ROOT = Path(__file__).parents[1]


def stream_to(descriptor, encoding="utf-8"):
    raw = surroundings.Unfailing(descriptor, "w", closefd=False)
    return raw, io.TextIOWrapper(io.BufferedWriter(raw), encoding)


def run(*args, **how):
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | how
    return subprocess.run([sys.executable, *args], cwd=ROOT, check=False, **how)


# Output.


@pytest.mark.parametrize("kind", ["unread pipe", "/dev/full"])
def test_output_that_nobody_takes_is_dropped(kind):
    reader, descriptor = os.pipe()
    os.close(reader)
    if kind == "/dev/full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)
    with pytest.raises(OSError):
        os.write(descriptor, b"x")
    raw, stream = stream_to(descriptor)
    for _ in range(3):
        print("text" * 5000, file=stream, flush=True)
    assert isinstance(raw.error, OSError)


def test_a_pipe_that_is_full_for_now_is_waited_for():
    reader, descriptor = os.pipe()
    os.set_blocking(descriptor, False)
    script = "import os, sys, time; time.sleep(.2); print(len(sys.stdin.buffer.read()))"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=reader, stdout=subprocess.PIPE)
    os.close(reader)
    raw, stream = stream_to(descriptor)
    stream.write("x" * 300_000)
    stream.flush()
    os.close(descriptor)
    assert raw.error is None and process.communicate()[0] == b"300000\n"


def test_a_listing_into_nothing():
    with open("/dev/full", "w") as full:
        done = run("launch.py", "--list", stdout=full)
    assert (done.returncode, done.stderr) == (
        1,
        "error: cannot write standard output: No space left on device\n",
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = run("launch.py", "--list", stdout=writer, close_fds=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_file_of_a_run_gets_the_number_of_a_closed_stream(tmp_path):
    script = (
        "import os\nfrom jaxtl import surroundings\nsurroundings.keep_output()\n"
        f"file = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "print('printed', flush=True)\nos._exit(file)\n"
    )
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, script]
    done = subprocess.run(command, cwd=ROOT, check=False)
    assert done.returncode >= 3 and (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("variables", "width"),
    [
        ({"COLUMNS": "80"}, 80),
        ({"COLUMNS": "80", "FORCE_COLOR": "1"}, 80),
        ({"COLUMNS": "80", "FORCE_COLOR": "1", "TTY_INTERACTIVE": "1"}, 80),
        ({"COLUMNS": "0"}, 20),
        ({"COLUMNS": "7"}, 20),
        ({"COLUMNS": "123"}, 123),
    ],
)
def test_a_pipe_is_no_terminal(monkeypatch, variables, width):
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    console = surroundings.terminal()
    assert (console.is_interactive, console.width) == (False, width)


@pytest.mark.parametrize("variables", [{}, {"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_terminal_is_one(monkeypatch, variables):
    monkeypatch.setattr(sys, "stdout", type("Tty", (io.StringIO,), {"isatty": lambda self: True})())
    for name, value in ({"TERM": "xterm", "COLUMNS": "80"} | variables).items():
        monkeypatch.setenv(name, value)
    assert surroundings.terminal().is_interactive == ("TERM" not in variables)
    assert surroundings.terminal().no_color == ("NO_COLOR" in variables)


# JAX and figures.


def test_platforms_and_backends_that_do_not_exist():
    script = (
        "from jaxtl import surroundings\nsurroundings.configure(False)\n"
        "from matplotlib.figure import Figure\nFigure().savefig('/dev/null', format='png')\n"
        "try:\n    surroundings.check_devices()\nexcept ValueError as error:\n    print(error)\n"
    )
    done = run("-c", script, env={**os.environ, "MPLBACKEND": "nope", "JAX_PLATFORMS": "nope"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("JAX_PLATFORMS=nope: no such device here: ")
    assert done.stdout.count("\n") == 1


def test_settings_that_change_numbers_are_named():
    surroundings.check_precision()
    assert numeric_settings() == {}
    with jax.enable_x64(True), pytest.raises(ValueError, match="JAX_ENABLE_X64 is on"):
        surroundings.check_precision()
    with jax.default_matmul_precision("highest"):
        assert numeric_settings() == {"jax_default_matmul_precision": "highest"}


def test_too_little_memory_is_explained():
    for error in (
        MemoryError("Unable to allocate 7 TiB"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Failed\nallocating 7 TiB"),
        jax.errors.JaxRuntimeError("INTERNAL: Error dispatching: Out of memory allocating 9 bytes"),
    ):
        line = surroundings.explanation(error)
        assert line.startswith("not enough memory (") and "\n" not in line
    assert "JAX_DEBUG_NANS" in surroundings.explanation(FloatingPointError("invalid value"))
    assert surroundings.explanation(RuntimeError("something else")) is None
    assert surroundings.explanation(ZeroDivisionError("division by zero")) is None


# The compilation cache.


def test_a_cache_that_cannot_be_is_none(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert surroundings.cache_folder("auto") == ""
    (tmp_path / "file").write_text("")
    assert surroundings.cache_folder(str(tmp_path / "file" / "cache")) == ""
    assert capsys.readouterr().err.count("warning: no compilation cache: ") == 2
    assert surroundings.cache_folder("") == ""
    assert surroundings.cache_folder(str(tmp_path / "a" / "b")) == str(tmp_path / "a" / "b")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert surroundings.cache_folder("auto") == str(tmp_path / "jaxtl" / "compiled")
    assert capsys.readouterr() == ("", "")


def test_home_folders_are_meant(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    options = RunOptions(
        data_dir="~/data", source_run="~/runs/a", compilation_cache="~", feature_folder="~/f"
    )
    assert (options.data_dir, options.source_run) == ("/home/me/data", "/home/me/runs/a")
    assert (options.compilation_cache, options.feature_folder) == ("/home/me", "/home/me/f")
    with pytest.raises(ValueError, match="there is no home folder '~nobody_here'"):
        RunOptions(data_dir="~nobody_here/data")


def test_a_package_that_an_option_needs_is_named_before_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.delitem(sys.modules, "tensorboardX")
    with pytest.raises(ValueError, match=r"pip install -e '\.\[tensorboard\]'"):
        RunOptions(tensorboard=True)


# What libraries say.


def test_only_echoes_of_failed_writes_are_dropped(capsys, caplog):
    def orbax_says(text):
        where = "/site-packages/orbax/checkpoint/_src/futures/future.py"
        record = logging.LogRecord("absl", logging.ERROR, where, 1, text, (), None)
        logging.getLogger("absl").handle(record)

    def unraisable(error, source):
        hook = type("Unraisable", (), {})()
        hook.exc_type, hook.exc_value, hook.exc_traceback = type(error), error, None
        hook.err_msg, hook.object = None, source
        sys.unraisablehook(hook)

    before = sys.unraisablehook
    seen = []
    sys.unraisablehook = lambda hook: seen.append(str(hook.exc_value))
    try:
        with surroundings.without_echoes(verbose=False):
            absl_logging.warning("of the user")
            orbax_says("echo")
            unraisable(RuntimeError("Event loop is closed"), None)
            unraisable(RuntimeError("Event loop is closed"), "the user's coroutine")
            unraisable(ValueError("of the user"), None)
        orbax_says("afterwards")
        with surroundings.without_echoes(verbose=True):
            orbax_says("verbose")
    finally:
        sys.unraisablehook = before
    assert [record.message for record in caplog.records] == ["of the user", "afterwards", "verbose"]
    assert seen == ["Event loop is closed", "of the user"]


# Other processes.


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match=f"localhost, port {port}: Address already in use"):
            surroundings.parse_process(f"localhost:{port},2,0")
        assert surroundings.parse_process(f"[::1]:{port},2,1") == (f"[::1]:{port}", 2, 1)


def test_processes_that_never_come_are_not_waited_for():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    script = (
        "from jaxtl import surroundings\nsurroundings.CONNECT_SECONDS = 0.5\n"
        f"surroundings.connect('127.0.0.1:{port},2,0')\n"
    )
    done = run("-c", script, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --distributed=127.0.0.1:{port},2,0: not all processes")
    assert done.stderr.count("\n") == 1
