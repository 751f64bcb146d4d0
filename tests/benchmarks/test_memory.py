"""Memory of full transfer, of partial transfer, also with cached features, and of adapters."""

import importlib.util
import json
import subprocess
import sys

from duel import FOLDER, environment, write
from table import memory


def test_memory():
    variants = ["full", "partial", "cached", "lora_1", "lora_5"]
    if importlib.util.find_spec("torch"):
        variants += ["torch_full", "torch_partial"]
    result = {"workload": "memory", "memory": {}}
    for variant in variants:
        command = [sys.executable, "memory.py", variant]
        done = subprocess.run(
            command, cwd=FOLDER, env=environment(), check=True, stdout=subprocess.PIPE, text=True
        )
        result["memory"][variant] = json.loads(done.stdout)
    write("memory", result)
    print(memory(result))
