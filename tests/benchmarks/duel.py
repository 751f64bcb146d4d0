"""Time variants of one workload against each other: one process each, taking turns.

A variant is a Python file that builds its workload and calls `serve(run)`, where run(n) does n
units of work to the end; n is a multiple of 16 (1 while warming up). Absolute times depend on the
machine and its mood; the ratios of runs that follow each other do not, so the paired ratios are
what is reported. BENCHMARK_REPEATS and BENCHMARK_SECONDS in the environment make a shorter run, and
BENCHMARK_CLOCK=cpu counts the CPU seconds of a process, for a machine that others use too.
"""

import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = Path("runs/benchmarks")
REPEATS = int(os.environ.get("BENCHMARK_REPEATS", 7))
SECONDS = float(os.environ.get("BENCHMARK_SECONDS", 1.0))
CLOCK = time.process_time if os.environ.get("BENCHMARK_CLOCK") == "cpu" else time.perf_counter
CHUNK = 16
SAME_LOSS = 1e-3
"""Largest relative difference between the first losses of two variants."""


def environment() -> dict[str, str]:
    """That of a variant: this checkout's jaxtl, and not the simulated devices of the tests."""
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return {**kept, "PYTHONPATH": str(FOLDER.parents[1])}


def serve(
    run: Callable[[int], float | None], seconds: Callable[[int], float] | None = None
) -> None:
    """In a variant: say the first loss, then answer each line `n` with the seconds n units took.

    Args:
        run: units -> a loss, or None; that of run(1) must be the same in all variants.
        seconds: units -> seconds; by default those of run(units) by `CLOCK`.
    """

    def elapsed(units: int) -> float:
        began = CLOCK()
        run(units)
        return CLOCK() - began

    loss = run(1)
    print("ready", math.nan if loss is None else loss, flush=True)
    for line in sys.stdin:
        print((seconds or elapsed)(int(line)), flush=True)


class Variant:
    """A running variant process.

    Attributes:
        loss: its first loss; NaN if it has none.
    """

    def __init__(self, *command: str):
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=FOLDER,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready, _, loss = self._read().partition(" ")
        if ready != "ready":
            raise RuntimeError(f"{' '.join(command)} did not start")
        self.loss = float(loss)

    def _read(self) -> str:
        return self._process.stdout.readline().strip()

    def seconds(self, units: int) -> float:
        self._process.stdin.write(f"{units}\n")
        self._process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(workload: str, variants: Mapping[str, Sequence[str]], units: int = 0) -> dict:
    """Rates of all variants and their ratios to the first.

    Args:
        workload: what is compared; also the name of the JSON file.
        variants: {name: arguments of the Python process}; the first is what the others are
            compared with. Those called torch... are left out where PyTorch is not installed.
        units: of one repeat; 0 for as many as take about `SECONDS`.

    Returns:
        {"rates": {name: [units per second]}, "ratios": {name: [first's rate / its rate]}}; the
        lists have one entry per repeat. Also printed and written to runs/benchmarks/.

    Raises:
        ValueError: the variants do not start with the same loss.
    """
    torch = importlib.util.find_spec("torch")
    chosen = {k: v for k, v in variants.items() if torch or not k.startswith("torch")}
    running = {}
    try:
        for name, command in chosen.items():
            running[name] = Variant(*command)
        check_losses(workload, {name: variant.loss for name, variant in running.items()})
        counts = {name: units or enough(variant) for name, variant in running.items()}
        rates = {name: [] for name in running}
        for _ in range(REPEATS):
            for name, variant in running.items():
                rates[name].append(counts[name] / variant.seconds(counts[name]))
    finally:
        for variant in running.values():
            variant.close()
    return record(workload, rates)


def check_losses(workload: str, losses: Mapping[str, float]) -> None:
    """Print the first losses, those of variants that have one; raises ValueError if they differ."""
    losses = {name: loss for name, loss in losses.items() if not math.isnan(loss)}
    text = ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items())
    if losses:
        print(f"{workload}: first loss {text}", file=sys.stderr)
        if max(losses.values()) - min(losses.values()) > SAME_LOSS * max(losses.values()):
            raise ValueError(f"{workload}: the variants start with different losses: {text}")


def enough(variant: Variant) -> int:
    """How many units a variant does in about `SECONDS`."""
    units = CHUNK
    variant.seconds(units)
    while (seconds := variant.seconds(units)) < SECONDS / 4:
        units *= 4
    return CHUNK * max(1, round(units / CHUNK * SECONDS / seconds))


def record(workload: str, rates: dict[str, list[float]]) -> dict:
    """Print the rates and their ratios to the first, and write them to runs/benchmarks/."""
    first = next(iter(rates.values()))
    ratios = {
        name: [a / b for a, b in zip(first, values, strict=True)] for name, values in rates.items()
    }
    result = {"workload": workload, "rates": rates, "ratios": ratios}
    show(result)
    write(workload, result)
    return result


def write(workload: str, result: dict) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{workload}.json").write_text(json.dumps(result, indent=1) + "\n")


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
