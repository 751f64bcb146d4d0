"""Launches without the seconds of imports, forked from a process that has done them."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from launched import ROOT, environment

SERVER = """
import json, os, signal, sys
import matplotlib.figure, matplotlib.backends.backend_agg, orbax.checkpoint, scipy.stats
import jaxtl.study.experiment, jaxtl.methods.adapt, jaxtl.transferability
import jaxtl.report.figures.draw, jaxtl.report.page, jaxtl.report.panels
from jaxtl import cli

for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)  # which the shell of the tests may ignore
for line in sys.stdin:
    output, *args = json.loads(line)
    if (child := os.fork()) == 0:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1), os.dup2(descriptor, 2)
        cli.program(args)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forked:
    """A launch, as `subprocess.Popen` is one.

    Attributes:
        output: the file of all that it says.
    """

    def __init__(self, server: subprocess.Popen, args: Sequence[str], output: Path):
        self._server, self.output, self.returncode = server, output, None
        server.stdin.write(json.dumps([str(output), *args]).encode() + b"\n")
        self.pid = int(server.stdout.readline())

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._server.stdout], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = int(self._server.stdout.readline())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait()
        return self.output.read_text(), ""

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def server() -> Iterator[subprocess.Popen]:
    """The process that launches are forked from; one at a time."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
