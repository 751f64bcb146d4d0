"""experiments/results.json: an entry an experiment, with the numbers of each seed, and back.

Numbers are rounded to four significant digits, or to as many more as it takes for every mean,
interval and verdict that is published to be that of the run.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtl.plan import key_parts
from jaxtl.report import wording
from jaxtl.report.summary import Summary, compare, statistics

FEWEST_DIGITS, MOST_DIGITS = 4, 17
OF_RUN = ("experiment", "config", "seeds", "baseline", "selection", "primary", "directions")
"""What an entry has of a summary as it is."""
OF_POINT = ("metrics", "gain", "verdict")
OF_ARM = ("trainable_parameters", "total_parameters", "train_seconds", "failed_seeds")

Entry = dict[str, Any]


def entry_of(summary: Summary, about: Mapping[str, Any]) -> Entry:
    """What is published of a run.

    Args:
        summary: of the run.
        about: what else an entry says: command, hardware, versions and so on.
    """
    summary = compare(summary)  # an earlier version may have concluded otherwise
    expected = claims(summary)
    keys = main_metrics(summary)
    for digits in range(FEWEST_DIGITS, MOST_DIGITS + 1):
        entry = _entry(summary, about, keys, digits)
        if claims(summary_of(entry)) == expected:
            return entry
    raise AssertionError("17 digits hold every float64")


def summary_of(entry: Mapping[str, Any]) -> Summary:
    """A summary of what an entry holds, with all that is concluded made anew from its seeds."""
    summary = {key: entry[key] for key in OF_RUN}
    summary["arms"] = _measured_arms(entry["arms"], entry["seeds"])
    if "sweep" in entry:
        summary["sweep"] = [
            {"config": point["config"], "arms": _measured_arms(point["arms"], entry["seeds"])}
            for point in entry["sweep"]
        ]
    summary |= {key: entry[key] for key in ("select", "held_out") if key in entry}
    return compare(summary)


def main_metrics(summary: Summary) -> list[str]:
    """The primary metric, and of every other evaluation the metric of its name, or else its first.

    With a sweep also that which picks among its points.
    """
    primary = summary["primary"]["metric"]
    name = key_parts(primary)[1]
    metrics = dict.fromkeys(key for arm in summary["arms"].values() for key in arm["metrics"])
    chosen = {primary: None}
    for evaluation in summary.get("evaluations", {}):
        of_evaluation = [key for key in metrics if key_parts(key)[0] == evaluation]
        if of_evaluation and evaluation != key_parts(primary)[0]:
            named = [key for key in of_evaluation if key_parts(key)[1] == name]
            chosen[(named or of_evaluation)[0]] = None
    if "select" in summary:
        chosen[summary["select"]["metric"]] = None
    return list(chosen)


def claims(summary: Summary) -> list[Any]:
    """All that is said of the primary metric, as it is printed."""
    key = summary["primary"]["metric"]
    places = [summary["arms"], *(point["arms"] for point in summary.get("sweep", ()))]
    places += [summary.get("tuned", {}), summary.get("over_points", {})]
    places += summary.get("held_out", {}).get("rules", {}).values()
    said = []
    for arms in places:
        for name, arm in arms.items():
            measured, gain = (arm.get(kind, {}).get(key) for kind in ("metrics", "gain"))
            text = wording.interval(measured, limits=wording.limits(key))
            picked = arm.get("config")
            said.append((name, text, wording.interval(gain, signed=True), arm["verdict"], picked))
    return said


def _entry(summary: Summary, about: Mapping[str, Any], keys: Sequence[str], digits: int) -> Entry:
    entry = {
        **{key: summary[key] for key in OF_RUN if key != "directions"},
        "directions": {k: way for k, way in summary["directions"].items() if k in keys},
        **about,
        "arms": _arms(summary["arms"], keys, digits),
    }
    if "sweep" in summary:
        picking = summary["select"]["metric"] if "select" in summary else ""
        decisive = [key for key in keys if key in (summary["primary"]["metric"], picking)]
        if "held_out" in summary:
            decisive = keys  # a rule may read every domain's
        entry["sweep"] = [
            {"config": point["config"], "arms": _at_point(point["arms"], decisive, digits)}
            for point in summary["sweep"]
        ]
    if "select" in summary:
        entry["select"] = summary["select"]
    if "held_out" in summary:
        entry["held_out"] = {k: v for k, v in summary["held_out"].items() if k != "rules"}
    return entry


def _arms(arms: Mapping[str, Any], keys: Sequence[str], digits: int) -> dict[str, Any]:
    return {name: _arm(arm, keys, digits) for name, arm in arms.items()}


def _at_point(arms: Mapping[str, Any], keys: Sequence[str], digits: int) -> dict[str, Any]:
    return {
        name: {what: value for what, value in arm.items() if what in OF_POINT}
        for name, arm in _arms(arms, keys, digits).items()
    }


def _arm(arm: Mapping[str, Any], keys: Sequence[str], digits: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"metrics": _rounded_statistics(arm["metrics"], keys, digits)}
    if "gain" in arm:
        gains = _rounded_statistics(arm["gain"], keys, digits)
        # Those of the seeds follow from the metrics.
        entry["gain"] = {
            key: {what: gain[what] for what in ("mean", "ci95")} for key, gain in gains.items()
        }
        entry["verdict"] = arm["verdict"]
    return entry | {key: _rounded(arm[key], digits) for key in OF_ARM if key in arm}


def _rounded_statistics(
    metrics: Mapping[str, Any], keys: Sequence[str], digits: int
) -> dict[str, Any]:
    return {
        key: {what: _rounded(metrics[key][what], digits) for what in ("mean", "ci95", "per_seed")}
        for key in keys
        if key in metrics
    }


def _rounded(value: Any, digits: int) -> Any:
    """Floats with so many significant digits, in lists and dicts too."""
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{digits - 1}e}")
    if isinstance(value, list):
        return [_rounded(each, digits) for each in value]
    if isinstance(value, Mapping):
        return {key: _rounded(each, digits) for key, each in value.items()}
    return value


def _measured_arms(arms: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    return {
        name: {
            **arm,
            "metrics": {
                key: statistics([math.nan if v is None else v for v in each["per_seed"]], std=True)
                for key, each in arm["metrics"].items()
            },
        }
        for name, arm in arms.items()
    }


def json_text(entries: Sequence[Entry]) -> str:
    """The content of results.json: the facts of an entry in a line, then a line an arm or point."""
    return "".join(f"{line}\n" for line in _lines(entries))


def first_lines(entries: Sequence[Entry]) -> list[int]:
    """The line of results.json, counted from 1, at which each entry begins."""
    return [number for number, line in enumerate(_lines(entries), 1) if line.startswith(" {")]


def _lines(entries: Sequence[Entry]) -> Iterator[str]:
    yield '{"format": 1, "experiments": ['
    for index, entry in enumerate(entries):
        facts = {key: value for key, value in entry.items() if key not in ("arms", "sweep")}
        yield f" {_json(facts)[:-1]},"
        parts = [("arms", "{", [f"{_json(k)}: {_json(v)}" for k, v in entry["arms"].items()], "}")]
        if "sweep" in entry:
            parts.append(("sweep", "[", [_json(point) for point in entry["sweep"]], "]"))
        for part, (name, opening, items, closing) in enumerate(parts):
            yield f'  "{name}": {opening}'
            for item, text in enumerate(items):
                yield f"   {text}{',' if item < len(items) - 1 else ''}"
            yield f"  {closing}{',' if part < len(parts) - 1 else ''}"
        yield f" }}{',' if index < len(entries) - 1 else ''}"
    yield "]}"


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
