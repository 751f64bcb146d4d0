"""One line for each workload of runs/benchmarks/: our rate over those of the others.

python tests/benchmarks/table.py
"""

import json
import statistics
import sys
from collections.abc import Iterable, Sequence

from duel import RESULTS

TARGETS = {
    "small_cnn_all": {"hand": 0.95, "torch": 0.85},
    "small_cnn_sharded": {"hand": 0.95, "torch": 0.75},
    "small_cnn_frozen": {"hand": 0.95, "torch": 0.9},
    "small_cnn_gain": {"all": 4},
    "small_cnn_cached": {"hand": 0.9, "torch": 1.6},
    "lenet_dann": {"hand": 0.95, "torch": 0.7},
    "lenet_cdan": {"hand": 0.95, "torch": 0.6},
    "lenet_mkmmd": {"hand": 0.95, "torch": 1.5},
    "lite0_features_224": {"hand": 0.95, "torch": 1.25},
    "lite0_features_96": {"hand": 0.95, "torch": 1.1},
    "lite0_full": {"hand": 0.95, "torch": 0.48},
    "lite0_probe": {"hand": 0.95, "torch": 1.2, "recomputed": 8},
    "minilm_forward": {"hand": 0.95, "torch": 1.0},
    "minilm_lora": {"hand": 0.95, "torch": 0.68},
    "minilm_full": {"hand": 0.95, "torch": 0.83},
    "combine_pcgrad_3": {"torch": 2},
    "combine_pcgrad_10": {"torch": 2},
    "combine_mgda_3": {"torch": 2},
    "combine_mgda_10": {"torch": 2},
    "ensemble_linear": {"hand": 0.9, "torch": 5},
    "ensemble_mlp": {"hand": 0.9, "torch": 2},
    "startup_cached": {"torch": 1 / 1.1},
    "startup_uncached": {"torch": 1 / 1.5},
    "pipeline_share": {"constant": 0.98},
    "pipeline_gather": {},
    "checkpoint_blocked": {"jaxtl": 1 / 0.03},
    "checkpoint_written": {},
    "checkpoint_restored": {"jaxtl": 1 / 0.15},
    "overhead_cnn": {"hand": 0.95},
    "overhead_dense": {"hand": 0.6},
    "overhead_probe": {"hand": 0.6},
}
"""{workload: {variant: least ratio}}; that of `jaxtl` itself is in units/s."""

COLUMNS = ("hand", "torch", "naive")


def cell(values: Sequence[float], target: float | None) -> str:
    """`median [min, max]`, and the target, if any, with a `!` where the median misses it."""
    middle = statistics.median(values)
    text = f"{middle:.3g} [{min(values):.3g}, {max(values):.3g}]"
    if target is None:
        return text
    return f"{text} >= {target:.3g}{' !' if middle < target else ''}"


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Lines of left-aligned columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def row(result: dict) -> list[str]:
    """Cells of one workload."""
    name, ratios = result["workload"], result["ratios"]
    targets = TARGETS.get(name, {})
    cells = {other: cell(values, targets.get(other)) for other, values in ratios.items()}
    first = next(iter(cells))
    others = [f"{k}: {v}" for k, v in cells.items() if k not in (first, *COLUMNS)]
    rate = cell(result["rates"][first], targets.get(first))
    return [name, rate, *(cells.get(k, "") for k in COLUMNS), "; ".join(others)]


def memory(result: dict) -> str:
    """The table of memory.json, without ratios."""
    variants = result["memory"]
    columns = list(dict.fromkeys(name for numbers in variants.values() for name in numbers))
    rows = [
        [name, *(f"{numbers[c]:,.0f}" if c in numbers else "" for c in columns)]
        for name, numbers in variants.items()
    ]
    return aligned([["memory", *columns], *rows])


def main() -> None:
    results = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    if not results:
        sys.exit(f"nothing in {RESULTS}; run pytest tests/benchmarks first")
    timed = [
        results[name]
        for name in [*TARGETS, *sorted(results.keys() - TARGETS.keys())]
        if "ratios" in results.get(name, {})
    ]
    head = ["workload", "units/s", *(f"ours/{name}" for name in COLUMNS), "ours/others"]
    print("median [min, max] of paired ratios, target; ! = missed")
    print(aligned([head, *map(row, timed)]))
    if "memory" in results:
        print("\n" + memory(results["memory"]))


if __name__ == "__main__":
    main()
