"""One process at a time in a directory; the other one is told who is at work."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from jaxtl.lock import FILE, lock

HOLD = """
import sys, time
from pathlib import Path
from jaxtl.lock import lock
with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def holding(directory, script=HOLD):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", script, str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


@pytest.fixture
def other(tmp_path):
    process = holding(tmp_path)
    yield process
    process.kill()
    process.communicate()


def refusal(directory):
    with pytest.raises(ValueError) as error, lock(directory):
        pass
    return str(error.value)


def test_the_other_process_is_named_and_a_killed_one_holds_nothing(tmp_path, other):
    message = refusal(tmp_path)
    assert message.startswith(
        f"another process is at work in {tmp_path}: process {other.pid} on host "
        f"{socket.gethostname()} since "
    )
    assert f"{sys.executable} -c '" in message and len(message.splitlines()) == 1
    assert message.endswith("`; wait for it, or name another --workdir")
    assert json.loads((tmp_path / FILE).read_text())["pid"] == other.pid
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / FILE).exists()
    with lock(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
        assert f"process {os.getpid()} on host" in refusal(tmp_path)  # a thread of ours
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["removed", "empty", "cut", "of another form", "stale"])
def test_the_lock_does_not_depend_on_what_its_file_says(tmp_path, other, damage):
    path = tmp_path / FILE
    text = json.loads(path.read_text())
    contents = {
        "empty": "",
        "cut": json.dumps(text)[:-9],
        "of another form": json.dumps([text]),
        "stale": json.dumps(text | {"started": "1"}),  # its number belongs to another one by now
    }
    path.unlink()
    if damage != "removed":
        path.write_text(contents[damage])
    rest = "wait for it, or name another --workdir"
    assert refusal(tmp_path) == f"another process is at work in {tmp_path}; {rest}"


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "noise", "numbers", "others"])
def test_what_stands_in_the_place_of_its_file_blocks_nobody_and_stays(tmp_path, kind):
    path, target = tmp_path / "run" / FILE, tmp_path / "target"
    path.parent.mkdir()
    target.write_text("mine")
    wrong = {"pid": True, "host": 1, "since": "now", "command": None, "started": 2}
    stale = {"pid": 1, "host": "h", "since": "2020-01-01T00:00", "command": "c", "started": None}
    place = {
        "folder": lambda: (path / "below").mkdir(parents=True),
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(target),
        "noise": lambda: path.write_bytes(bytes(range(256))),
        "numbers": lambda: path.write_text(json.dumps(wrong)),
        "others": lambda: path.write_text(json.dumps(stale)),
    }
    place[kind]()
    with lock(path.parent):
        assert "another process is at work" in refusal(path.parent)
    assert target.read_text() == "mine"
    assert os.path.lexists(path) == (kind in ("folder", "pipe", "link"))


def test_a_directory_that_cannot_be_written_needs_no_lock(tmp_path):
    (tmp_path / "file").write_text("")
    with lock(tmp_path / "file" / "run"):
        pass
    (tmp_path / f".writable-{os.getpid()}").mkdir()  # as on a read-only file system
    with lock(tmp_path):
        assert not (tmp_path / FILE).exists()


def test_a_command_of_any_letters_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "a\nb", "\x1b[2J", "x" * 999, "\udcff"])
    with lock(tmp_path):
        message = refusal(tmp_path)
    assert message.isprintable() and "`python 'a?b' '?[2J' xxx" in message and len(message) < 600


def without_locks(descriptor, how):
    raise OSError(errno.ENOLCK, "no locks")


def test_a_file_system_without_locks_refuses_only_who_is_surely_there(
    tmp_path, other, monkeypatch, caplog
):
    monkeypatch.setattr(fcntl, "flock", without_locks)
    assert f": process {other.pid} on host {socket.gethostname()} since " in refusal(tmp_path)
    text = json.loads((tmp_path / FILE).read_text())
    other.kill()
    other.wait()
    with lock(tmp_path):  # on this host it is surely gone
        pass
    assert not caplog.records
    (tmp_path / FILE).write_text(json.dumps(text | {"host": "elsewhere"}))
    with lock(tmp_path):
        pass
    (record,) = caplog.records
    assert "has no locks, and process" in record.message and "on host elsewhere" in record.message


FORKING = """
import subprocess, sys, time, multiprocessing
from pathlib import Path
from jaxtl.lock import lock
with lock(Path(sys.argv[1])):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    started = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
    Path(sys.argv[1], "children").write_text(f"{child.pid} {started.pid}")
    print("locked", flush=True)
    time.sleep(60)
"""


def is_locked(directory):
    try:
        with lock(directory):
            return False
    except ValueError:
        return True


def test_workers_that_outlive_a_killed_process_do_not_hold_its_lock(tmp_path):
    process = holding(tmp_path, FORKING)
    children = list(map(int, (tmp_path / "children").read_text().split()))
    try:
        assert f"process {process.pid} on" in refusal(tmp_path)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while is_locked(tmp_path):  # the child has closed it as soon as it runs
            assert time.monotonic() < deadline
        assert all(os.path.exists(f"/proc/{pid}") for pid in children)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        process.stdout.close()
