"""summary.json: the numbers of a run under fixed keys, for other programs."""

import errno
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtl.files import Damaged, read_json, write_text
from jaxtl.measure.results import ArmResult, ExperimentResult
from jaxtl.measure.verdict import differences, estimate, seeds_to_decide, verdict
from jaxtl.plan import Metric, PyTree
from jaxtl.report.held_out import by_rules

Summary = dict[str, Any]
KEYS = {"experiment": str, "config": dict, "seeds": list, "baseline": str}
KEYS |= {"selection": str, "primary": dict, "arms": dict}


def summarize(result: ExperimentResult) -> Summary:
    """The content of summary.json; JSON types only, undefined numbers are None."""
    summary = {
        "experiment": result.experiment,
        "config": plain(result.config),
        "seeds": plain(result.seeds),
        "baseline": result.baseline,
        "selection": result.selection,
        "primary": _written(result.primary),
        "arms": _arms(result.arms, result),
        "directions": {key: metric.better for key, metric in _declared(result).items()},
        "evaluations": dict(result.evaluations),
        "made_from": result.made_from,
    }
    if result.oracle:
        summary["oracle"] = {
            name: statistics(arm.analyses["oracle"])
            for name, arm in result.arms.items()
            if "oracle" in arm.analyses
        }
    if result.sweep:
        summary["sweep"] = [
            {"config": plain(fields), "arms": _arms(arms, result)} for fields, arms in result.sweep
        ]
        if result.select:
            summary["select"] = _written(result.select)
        if result.held_out:
            summary["held_out"] = {"field": result.held_out, "oracle": result.oracle}
    return compare(summary)


def write_summary(path: str | os.PathLike, summary: Summary) -> None:
    """Writes JSON in one step: a reader sees the old file or the new one, never half of one."""
    write_text(Path(path), json.dumps(summary, indent=2, allow_nan=False) + "\n")


def load_summary(path: str | os.PathLike) -> Summary:
    """Reads what `write_summary` wrote.

    Raises:
        Damaged: the file holds something else.
        NotRead: the system does not hand it out.
        FileNotFoundError: there is none.
    """
    path, remedy = Path(path), "run again, which makes it anew, or choose another --workdir"
    summary = read_json(path, KEYS, remedy)
    if summary is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    for name, arm in summary["arms"].items():
        if not isinstance(arm, dict) or not isinstance(arm.get("metrics"), dict):
            raise Damaged(f"{path} is damaged: arm {name!r} has no metrics; {remedy}")
    return summary


def primary_metric(summary: Mapping[str, Any]) -> Metric:
    """The metric that decides."""
    return _read(summary["primary"])


def _read(written: Mapping[str, Any]) -> Metric:
    return Metric.read(written["metric"], written["direction"])


def _written(metric: Metric) -> dict[str, str]:
    return {"metric": metric.key, "direction": metric.better}


def _declared(result: ExperimentResult) -> dict[str, Metric]:
    """{key: metric} of those of the arms' metrics that say which way they are better."""
    measured = {key for arm in result.arms.values() for key in arm.metrics}
    declared = {metric.key: metric for metric in result.declared if metric.key in measured}
    return declared | {result.primary.key: result.primary}


def _arms(arms: Mapping[str, ArmResult], result: ExperimentResult) -> dict[str, Any]:
    return {name: _arm(arm, result) for name, arm in arms.items()}


def _arm(arm: ArmResult, result: ExperimentResult) -> dict[str, Any]:
    for metric, values in arm.metrics.items():
        assert np.shape(values) == (len(result.seeds),), (arm.name, metric, np.shape(values))
    entry = {
        "metrics": {metric: statistics(values, std=True) for metric, values in arm.metrics.items()},
        "trainable_parameters": int(arm.trainable_parameters),
        "total_parameters": int(arm.total_parameters),
        "train_seconds": plain(arm.train_seconds),
        "steps_per_second": plain(arm.steps_per_second),
    }
    if arm.step_memory_mb is not None:
        entry["step_memory_mb"] = arm.step_memory_mb
    if arm.not_finite:
        entry["not_finite"] = plain(arm.not_finite)
    for analysis in result.analyses:
        if analysis.in_summary and analysis.name in arm.analyses:
            entry[analysis.name] = _measured(arm.analyses[analysis.name])
    values = arm.metrics.get(result.primary.key, np.zeros(len(result.seeds)))
    failed = []
    for seed, value in zip(result.seeds, values, strict=True):
        if not np.isfinite(value):
            stage, step = arm.failures.get(seed, (None, None))
            failed.append({"seed": int(seed), "stage": stage, "step": step})
    return entry | ({"failed_seeds": failed} if failed else {})


def _measured(tree: PyTree) -> Any:
    """Nested dicts of arrays: statistics of numbers [seeds], texts as they are."""
    if isinstance(tree, Mapping):
        return {key: _measured(part) for key, part in tree.items()}
    return statistics(tree) if tree.dtype.kind in "biuf" else plain(tree)


def statistics(values: Any, std: bool = False) -> dict[str, Any]:
    """Mean, 95% interval and values [seeds], on request the standard deviation."""
    mean, deviation, low, high = estimate(values)
    return plain(
        {"mean": mean}
        | ({"std": deviation} if std else {})
        | {"ci95": None if math.isnan(low) else [low, high], "per_seed": np.asarray(values)}
    )


def compare(summary: Summary) -> Summary:
    """The summary with every gain and verdict made anew from the per-seed values."""
    compared = {**summary, "arms": _with_gains(summary, summary["arms"])}
    compared.pop("over_points", None)
    if "sweep" in summary:
        compared["sweep"] = [
            {**point, "arms": _with_gains(summary, point["arms"])} for point in summary["sweep"]
        ]
        if "held_out" in summary:
            compared["held_out"] = summary["held_out"] | {"rules": _held_out(summary)}
            return compared | {"tuned": {}}
        compared["tuned"] = _with_gains(summary, _tuned(summary))
        if over := _over_points(compared["sweep"], summary):
            compared["over_points"] = over
    return compared


def _tuned(summary: Summary) -> dict[str, Any]:
    """{arm: its entry at the point of the sweep that is best on validation data, and the point}.

    Empty if the experiment selects by no validation: test data pick nothing.
    """
    if "select" not in summary:
        return {}
    select = _read(summary["select"])
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for point in summary["sweep"]:
        for name, arm in point["arms"].items():
            mean = arm["metrics"].get(select.key, {"mean": None})["mean"]
            if mean is not None and (name not in best or select.sign * mean > best[name][0]):
                best[name] = select.sign * mean, {**arm, "config": point["config"]}
    return {name: entry for name, (_, entry) in best.items()}


def _held_out(summary: Summary) -> dict[str, Any]:
    """{rule: {arm: its entry, of the mean over the domains that were held out}}.

    An entry has the primary metric and its worst domain [seeds], `domains` {domain: mean over
    seeds} and `picked` {domain: {field: value}}.
    """
    primary, written = primary_metric(summary), summary["held_out"]
    select = _read(summary["select"]) if "select" in summary else None
    chosen = by_rules(summary["sweep"], written["field"], primary, select, written["oracle"])
    rules = {}
    for rule, arms in chosen.items():
        entries = {}
        for name, choice in arms.items():
            values = np.stack(list(choice.domains.values()))
            worst = primary.sign * (primary.sign * values).min(0)
            entries[name] = {
                "metrics": {primary.key: statistics(values.mean(0), std=True)},
                "worst": statistics(worst),
                "domains": {name: plain(v.mean()) for name, v in choice.domains.items()},
                "picked": plain(choice.picked),
            }
        rules[rule] = _with_gains(summary, entries)
    return rules


def _over_points(points: Sequence[Mapping[str, Any]], summary: Summary) -> dict[str, Any]:
    """{arm: the primary metric over the points of a sweep over names, such as those of datasets}.

    Statistics are over the points, `per_point` in their order, of the means over seeds. Empty for
    a sweep over numbers, whose points are no sample of anything, for one over two names, whose
    interval says nothing, and where an arm lacks a point.
    """
    values = [value for point in points for value in point["config"].values()]
    if len(points) < 3 or not all(isinstance(value, str) for value in values):
        return {}
    metric = summary["primary"]["metric"]
    arms = {}
    for name in summary["arms"]:
        entries = [point["arms"].get(name, {}) for point in points]
        columns = {
            kind: [entry.get(kind, {}).get(metric, {}).get("mean") for entry in entries]
            for kind in ("metrics", "gain")
        }
        if None in columns["metrics"]:
            continue
        arms[name] = {"metrics": {metric: _by_point(columns["metrics"])}, "verdict": None}
        if None not in columns["gain"]:
            outcome = verdict(columns["gain"], columns["metrics"])
            arms[name] |= {"gain": {metric: _by_point(columns["gain"])}, "verdict": outcome}
    return arms


def _by_point(values: Sequence[float]) -> dict[str, Any]:
    summed = statistics(values, std=True)
    return {**summed, "per_point": summed.pop("per_seed")}


def _with_gains(summary: Summary, arms: Mapping[str, Any]) -> dict[str, Any]:
    """The arms with their gains over the baseline, a verdict, and how many seeds would decide.

    A metric of which nobody says which way is better has no gain but a `difference`, the arm's
    value less the baseline's.
    """
    primary = primary_metric(summary).key
    declared = {key: Metric.read(key, way) for key, way in summary["directions"].items()}
    baseline = arms.get(summary["baseline"], {"metrics": {}})["metrics"]
    compared = {}
    for name, arm in arms.items():
        entry, outcome, more = {"metrics": arm["metrics"]}, None, None
        if name != summary["baseline"]:
            gains, others = {}, {}
            for key in (key for key in arm["metrics"] if key in baseline):
                difference = differences(_floats(arm["metrics"][key]), _floats(baseline[key]))
                if key in declared:
                    gains[key] = declared[key].sign * difference
                else:
                    others[key] = difference
            entry |= {"gain": _measured(gains)}
            entry |= {"difference": _measured(others)} if others else {}
            sides = [side for side in (arm["metrics"], baseline) if primary in side]
            values = gains.get(primary, ()), *(_floats(side[primary]) for side in sides)
            outcome, more = verdict(*values), seeds_to_decide(*values)
        made = ("metrics", "gain", "difference", "verdict", "seeds_to_decide")
        rest = {key: value for key, value in arm.items() if key not in made}
        compared[name] = entry | {"verdict": outcome, "seeds_to_decide": more} | rest
    return compared


def _floats(statistics: Mapping[str, Any]) -> np.ndarray:
    return np.array(statistics["per_seed"], np.float64)  # None becomes NaN


def plain(value: Any) -> Any:
    """A value in JSON types only; numbers that are not finite are None."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
