"""Each arm of each run with its difference from its counterpart: paired by seed, or Welch's."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtl.measure.verdict import (
    FEWEST_VALUES,
    Estimate,
    differences,
    distinct,
    seeds_to_decide,
    unpaired,
    unpaired_verdict,
    verdict,
)
from jaxtl.report import wording
from jaxtl.report.across.comparison import Row
from jaxtl.report.summary import plain, statistics
from jaxtl.study.front.across.finished import FinishedRun


def rows_of(labels: Sequence[str], runs: Sequence[FinishedRun], against: str | None) -> list[Row]:
    """Arm by arm in the order in which the runs name them, in each of them run by run."""
    arms = dict.fromkeys(arm for run in runs for arm in run.summary["arms"])
    rows = []
    for arm in arms:
        for label, run in zip(labels, runs, strict=True):
            if arm not in run.summary["arms"]:
                continue
            counterpart = arm if against is None else against
            is_reference = run is runs[0] and counterpart == arm
            present = counterpart in runs[0].summary["arms"]
            row = _measured_row(label, run, arm)
            if present and not is_reference:
                row = _compared(row, run, runs[0], (labels[0], counterpart))
            rows.append(row)
    return rows


def _measured_row(label: str, run: FinishedRun, arm: str) -> Row:
    key, entry = run.primary.key, run.summary["arms"][arm]
    nothing = {"mean": None, "ci95": None, "per_seed": [None] * len(run.seeds)}
    gain = entry.get("gain", {}).get(key) if arm != run.summary["baseline"] else None
    return Row(label, arm, entry["metrics"].get(key, nothing), gain, entry.get("verdict"))


def _compared(row: Row, run: FinishedRun, first: FinishedRun, against: tuple[str, str]) -> Row:
    """The row with its difference from an arm of the first run."""
    values, baseline = _by_seed(run, row.arm), _by_seed(first, against[1])
    sign = run.primary.sign
    common = [seed for seed in values if seed in baseline]
    if len(common) >= FEWEST_VALUES or values.keys() == baseline.keys():
        of_run, of_first = ([side[seed] for seed in common] for side in (values, baseline))
        gains = sign * differences(of_run, of_first)
        count = int(np.isfinite(gains).sum())
        missing = [s for s, gain in zip(common, gains, strict=True) if not np.isfinite(gain)]
        outcome = verdict(gains, of_run, of_first)
        measured = statistics(gains)
        how = ("paired, " if measured["ci95"] else "") + wording.seeds(count)
        doubt = ""
        if outcome == "undecided":
            doubt = _doubt(gains, distinct(gains, of_run, of_first))
            if more := seeds_to_decide(gains, of_run, of_first):
                doubt += f"; about {more} seeds in both would decide"
    else:
        sides = [np.array(list(side.values()), np.float64) for side in (values, baseline)]
        outcome = unpaired_verdict(*sides, sign)
        measured = _unpaired(unpaired(*sides), sign)
        missing = sorted(
            {seed for side in (values, baseline) for seed in side if not np.isfinite(side[seed])}
        )
        counts = [int(np.isfinite(side).sum()) for side in sides]
        how, doubt = f"Welch, {counts[0]} and {counts[1]} seeds", ""
        if outcome == "undecided":
            doubt = (
                f"{_unpaired_doubt(sides, measured)}; the same seeds in both runs would be "
                "compared in pairs"
            )
    return dataclasses.replace(
        row,
        against=against,
        difference=measured,
        how=how,
        verdict=outcome,
        doubt=doubt,
        not_finite=missing,
    )


def _by_seed(run: FinishedRun, arm: str) -> dict[int, float]:
    metrics = run.summary["arms"][arm]["metrics"]
    values = metrics.get(run.primary.key, {"per_seed": [None] * len(run.seeds)})["per_seed"]
    numbers = (np.nan if value is None else value for value in values)
    return dict(zip(run.seeds, numbers, strict=True))


def _unpaired(estimate: Estimate, sign: int) -> dict[str, Any]:
    ends = sorted(sign * end for end in (estimate.low, estimate.high))
    ci95 = None if np.isnan(estimate.low) else ends
    return plain({"mean": sign * estimate.mean, "ci95": ci95, "per_seed": []})


def _doubt(gains: np.ndarray, different: int) -> str:
    """Why paired differences do not decide."""
    finite = gains[np.isfinite(gains)]
    if not finite.size:
        return "no seed has a finite value in both"
    if finite.size == 1:
        return "one seed gives no interval"
    if not finite.any():
        return "the same numbers in every seed"
    if different == 1:
        return "the same difference in every seed, too few distinct values to judge"
    if different < FEWEST_VALUES:
        return f"{different} distinct differences, {FEWEST_VALUES} are needed to judge"
    return "the interval contains 0"


def _unpaired_doubt(sides: Sequence[np.ndarray], measured: Mapping[str, Any]) -> str:
    sizes = [int(np.isfinite(side).sum()) for side in sides]
    if min(sizes) == 0:
        return "one of the runs has no finite value"
    if min(sizes) < FEWEST_VALUES:
        return f"{wording.seeds(min(sizes))} of one run, {FEWEST_VALUES} are needed to judge"
    if max(map(distinct, sides)) < FEWEST_VALUES:
        return f"fewer than {FEWEST_VALUES} distinct values in either run"
    low, high = measured["ci95"]
    assert low <= 0 <= high
    return "the interval contains 0"
