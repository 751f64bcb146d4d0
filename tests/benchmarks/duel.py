"""Time variants of one workload against each other: one process each, taking turns.

A variant is a Python file that builds its workload and calls `serve(run)`, where run(n) does n
units of work to the end; n is a multiple of 16 (2 while warming up). Absolute times depend on the
machine and its mood; the ratios of runs that follow each other do not, so the paired ratios are
what is reported.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent
REPEATS = 7
SECONDS = 1.0
CHUNK = 16


def serve(run: Callable[[int], None]) -> None:
    """In a variant: answer each line `n` of stdin with the seconds that run(n) took."""
    run(2)
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        run(int(line))
        print(time.perf_counter() - began, flush=True)


class Variant:
    """A running variant process."""

    def __init__(self, *command: str):
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._read() != "ready":
            raise RuntimeError(f"{' '.join(command)} did not start")

    def _read(self) -> str:
        return self._process.stdout.readline().strip()

    def seconds(self, units: int) -> float:
        self._process.stdin.write(f"{units}\n")
        self._process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(workload: str, variants: dict[str, list[str]]) -> dict:
    """Rates of all variants and their ratios to the first.

    Args:
        workload: what is compared; also the name of the JSON file.
        variants: {name: arguments of the Python process}; the first is what the others are
            compared with.

    Returns:
        {"rates": {name: [units per second]}, "ratios": {name: [first's rate / its rate]}}; the
        lists have one entry per repeat. Also printed and written to runs/benchmarks/.
    """
    running = {name: Variant(*command) for name, command in variants.items()}
    units = {}
    for name, variant in running.items():
        variant.seconds(CHUNK)
        chunks = SECONDS / variant.seconds(CHUNK)
        units[name] = CHUNK * max(1, round(chunks))
    rates = {name: [] for name in running}
    for _ in range(REPEATS):
        for name, variant in running.items():
            rates[name].append(units[name] / variant.seconds(units[name]))
    for variant in running.values():
        variant.close()
    return record(workload, rates)


def record(workload: str, rates: dict[str, list[float]]) -> dict:
    """Print the rates and their ratios to the first, and write them to runs/benchmarks/."""
    first = next(iter(rates.values()))
    ratios = {
        name: [a / b for a, b in zip(first, values, strict=True)] for name, values in rates.items()
    }
    result = {"workload": workload, "rates": rates, "ratios": ratios}
    show(result)
    folder = Path("runs/benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{workload}.json").write_text(json.dumps(result, indent=1))
    return result


def show(result: dict) -> None:
    """Print one line per variant."""
    names = list(result["rates"])
    print(f"\n{result['workload']} (units/s: median [min, max]; ratio: {names[0]} / variant)")
    for name in names:
        rates, ratios = result["rates"][name], result["ratios"][name]
        print(
            f"  {name:12} {statistics.median(rates):10.1f} [{min(rates):.1f}, {max(rates):.1f}]"
            f"   x {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        )
