"""From process start to the hundredth step of a tiny MLP, with and without a compilation cache."""

import importlib.util
import subprocess
import sys
import time

import pytest
from duel import FOLDER, REPEATS, environment, record


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs PyTorch")
@pytest.mark.parametrize("cached", [True, False])
def test_startup(cached, tmp_path):
    commands = {"jaxtl": ["jaxtl", *([str(tmp_path)] if cached else [])], "torch": ["torch"]}
    rates = {name: [] for name in commands}
    for repeat in range(REPEATS + 1):  # the first one fills the caches and is not counted
        for name, arguments in commands.items():
            began = time.perf_counter()
            command = [sys.executable, "tiny_mlp.py", *arguments]
            subprocess.run(command, cwd=FOLDER, env=environment(), check=True)
            if repeat:
                rates[name].append(1 / (time.perf_counter() - began))
    record("startup_cached" if cached else "startup_uncached", rates)
