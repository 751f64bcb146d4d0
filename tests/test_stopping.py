"""A process that is told to stop ends with one line, whatever it is doing."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxtl.stopping import GOES_ON, STARTS_AGAIN, handed_to

START = """
import contextlib, hashlib, os, signal, sys, time
from jaxtl import stopping
stopping.listen()

def ready():
    os.write(2, b"ready\\n")

def in_c_for_long():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # no bytecode runs meanwhile

"""
WAITS = "ready()\ntime.sleep(30)\n"
ASYNC = """
import asyncio
async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
    ready()
    await asyncio.sleep(30)
asyncio.run(main())
"""
SITUATIONS = {
    "waiting": WAITS,
    "computing": "ready()\nin_c_for_long()\n",
    "importing": "ready()\nwhile True:\n    sys.modules.pop('colorsys', 0)\n    import colorsys\n",
    "catching all": "while True:\n    try:\n        ready(); time.sleep(30)\n    except: pass\n",
    "listening itself": ASYNC,
    "unread": "ready()\nwhile True:\n    print('x' * 2**16, flush=True)\n",
}


def begin(script, ignored=(), **more):
    """A process that has come to its `ready()`, which inherits ignored signals."""
    names = ", ".join(map(str, map(int, ignored)))
    pre = (
        f"import signal\nfor n in ({names}{',' * bool(names)}): signal.signal(n, signal.SIG_IGN)\n"
    )
    pre += "for n in {1, 2, 3, 15} - {%s}: " % (names or "0")  # as a shell's background job has
    pre += "n != 2 and signal.signal(n, signal.SIG_DFL)\n"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    process = subprocess.Popen([sys.executable, "-c", pre + START + script], text=True, **pipes)
    assert process.stderr is None or process.stderr.readline() == "ready\n"
    return process


def ended(process, within=5):
    try:
        output, errors = process.communicate(timeout=within)
    finally:
        process.kill()
    return process.returncode, output, errors


def test_each_signal_has_its_line_and_status():
    lines = {
        signal.SIGINT: f"interrupted; {STARTS_AGAIN}\n",
        signal.SIGTERM: f"stopped by SIGTERM; {STARTS_AGAIN}\n",
        signal.SIGHUP: f"stopped by SIGHUP; {STARTS_AGAIN}\n",
        signal.SIGQUIT: f"stopped by SIGQUIT; {STARTS_AGAIN}\n",
    }
    processes = {number: begin("print('before')\n" + WAITS) for number in lines}
    for number, process in processes.items():
        process.send_signal(number)
    for number, process in processes.items():
        assert ended(process) == (128 + number, "before\n", lines[number])


@pytest.mark.parametrize("situation", SITUATIONS)
def test_it_ends_at_once_whatever_the_main_thread_does(situation):
    process, began = begin(SITUATIONS[situation]), time.monotonic()
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    status = process.wait(5)
    assert time.monotonic() - began < 2
    assert (status, process.communicate()[1]) == (130, f"interrupted; {STARTS_AGAIN}\n")


def test_a_handler_is_told_instead_but_of_quit():
    script = (
        "with stopping.handed_to(lambda n: os.write(2, b'told %d\\n' % n)):\n"
        "    ready()\n    in_c_for_long()\n"
    )
    process = begin(script)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
        assert process.stderr.readline() == f"told {int(number)}\n"
    process.send_signal(signal.SIGQUIT)
    assert ended(process) == (131, "", f"stopped by SIGQUIT; {STARTS_AGAIN}\n")


def test_what_is_promised_changes_and_the_handler_is_one_for_a_while():
    script = (
        "with stopping.handed_to(print): pass\nstopping.promise(stopping.GOES_ON)\n" + WAITS,
        "stopping.promise('')\n" + WAITS,
    )
    processes = [begin(text) for text in script]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    lines = [f"stopped by SIGTERM; {GOES_ON}\n", ""]
    assert [ended(process) for process in processes] == [(143, "", line) for line in lines]


def test_what_others_made_of_signals_stays():
    ignoring = begin(WAITS, ignored=(signal.SIGHUP, signal.SIGQUIT))  # as nohup does
    mine = begin("signal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))\n" + WAITS)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        ignoring.send_signal(number)
    mine.send_signal(signal.SIGTERM)
    assert mine.stdout.readline() == "mine\n"
    time.sleep(0.05)
    assert ignoring.poll() is None and mine.poll() is None
    for process in (ignoring, mine):
        process.send_signal(signal.SIGINT)
        assert ended(process)[0] == 130


def test_forked_workers_end_by_themselves():
    script = (
        "import multiprocessing\n"
        "pool = multiprocessing.get_context('fork').Pool(2)\n"
        "assert pool.map(abs, [-1, 2]) == [1, 2]\n"
        "pool.terminate(); pool.join()\n"  # sends SIGTERM to each
        "print('joined', flush=True)\n" + WAITS
    )
    process = begin(script)
    assert process.stdout.readline() == "joined\n"
    time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143


def test_closed_outputs_hinder_nothing():
    script = (
        "import os\nos.close(0); os.close(1)\n" + START + "taken = os.path.exists\n"
        "os.write(2, b'%r' % [taken(f'/proc/self/fd/{n}') for n in (0, 1)])\n"
        "os.close(2)\ntime.sleep(30)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert process.stderr.read() == "[False, False]"
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 143


def test_in_a_process_of_somebody_else_handlers_are_set_back():
    told, before = [], {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with handed_to(told.append):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):  # a second one is for the process's own handler
            os.kill(os.getpid(), signal.SIGINT)
        assert told == [signal.SIGTERM]
    assert {n: signal.getsignal(n) for n in before} == before

    def elsewhere():
        with handed_to(told.append):
            told.append({n: signal.getsignal(n) for n in before} == before)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert told[1:] == [True]
