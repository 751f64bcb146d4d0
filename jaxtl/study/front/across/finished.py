"""A finished run as it lies on disk: its summary, what it was run on, and what its stages read."""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxtl.files import Damaged, NotRead, read_json, user_path
from jaxtl.lock import process_in
from jaxtl.measure.verdict import estimate
from jaxtl.plan import Metric
from jaxtl.report.earlier import seed_names
from jaxtl.report.storage import load_stages
from jaxtl.report.summary import load_summary, primary_metric
from jaxtl.train.store.blocks import Block, blocks_of

FINISH = "finish it with the command that began it"
AGAIN = "run it again, which trains nothing anew"
MOST_NAMED = 6
"""Runs of a folder that are named where one of them was meant."""


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run that is whole.

    Attributes:
        directory: <workdir>/<experiment>.
        summary: its summary.json.
        environment: its environment.json.
        dtype: what its models compute in.
        chains: {arm: names of its stages}, in order.
        blocks: {stage: its blocks}; a stage that was loaded from another run has those there, or
            none where that run is gone.
    """

    directory: Path
    summary: Mapping[str, Any]
    environment: Mapping[str, Any]
    dtype: str
    chains: Mapping[str, tuple[str, ...]]
    blocks: Mapping[str, Sequence[Block]]

    @property
    def primary(self) -> Metric:
        return primary_metric(self.summary)

    @property
    def seeds(self) -> list[int]:
        return self.summary["seeds"]

    @property
    def file_digest(self) -> str:
        """Of the experiment's file as the last stage was trained with it; empty if not on file."""
        records = [block.record for blocks in self.blocks.values() for block in blocks]
        return str(records[-1].get("experiment_file", "")) if records else ""


def read_run(place: Any) -> FinishedRun:
    """Reads a run's directory, of which nothing is changed.

    Args:
        place: the directory, or what has it as `directory`, such as a `Result`.

    Raises:
        ValueError: there is no run, it is not finished, or damaged; all that is wrong.
        NotRead: the system does not hand a file out.
    """
    place = getattr(place, "directory", place)
    if not isinstance(place, str | os.PathLike) or not os.fspath(place):
        raise ValueError(f"expected the directory of a run, or a Result, got {place!r:.60}")
    directory = Path(user_path(place))
    _check_is_run(directory)
    summary, problems = None, []
    try:
        summary = load_summary(directory / "summary.json")
        problems += _summary_problems(directory, summary)
    except FileNotFoundError:
        problems.append(f"{directory} is not finished: it has no summary.json; {FINISH}")
    except NotRead:
        raise
    except ValueError as error:
        problems.append(str(error))
    if holder := process_in(directory):
        problems.append(f"{directory} is not finished: {holder} is at work there")
    records = {}
    for name in ("config.json", "environment.json"):
        try:
            if (record := read_json(directory / name, remedy=AGAIN)) is None:
                problems.append(f"{directory} is damaged: it has no {name}; {AGAIN}")
            records[name] = record or {}
        except Damaged as error:
            problems.append(str(error))
    if summary is None or problems:
        raise ValueError("\n".join(problems))
    config = records["config.json"]
    problems += _later_launch(directory, summary, config)
    chains, blocks, more = _read_stages(directory, summary)
    if problems := [*problems, *more]:
        raise ValueError("\n".join(problems))
    dtype = str(config.get("dtype", "float32"))
    return FinishedRun(directory, summary, records["environment.json"], dtype, chains, blocks)


def runs_in(folder: Path) -> list[Path]:
    """The directories of runs in a folder, in whatever depth, that have begun; those of exports and
    stages apart."""
    runs = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        if ("config.json" in files and "stages" in folders) or "summary.json" in files:
            runs.append(Path(place))
            folders.clear()
    return runs


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted name: value} of a config with configs in it."""
    values = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def _check_is_run(directory: Path) -> None:
    """Raises ValueError, with what may have been meant, where a path is no run's directory."""
    expected = "expected the directory of a run, <workdir>/<experiment>"
    if not directory.exists():
        raise ValueError(f"{directory}: there is no such folder; {expected}{_nearby(directory)}")
    if not directory.is_dir():
        raise ValueError(f"{directory} is a file; {expected}, perhaps {directory.parent}")
    if not any((directory / name).exists() for name in ("summary.json", "config.json")):
        inside = [str(path) for path in runs_in(directory)[: MOST_NAMED + 1]]
        more = ", ..." if len(inside) > MOST_NAMED else ""
        hint = f"; it holds the runs {', '.join(inside[:MOST_NAMED])}{more}" if inside else ""
        raise ValueError(f"{directory} holds no run; {expected}{hint}")


def _nearby(directory: Path) -> str:
    parent = directory.parent
    runs = [str(run) for run in runs_in(parent)[:MOST_NAMED]] if parent.is_dir() else []
    return f"; {parent} holds {', '.join(runs)}" if runs else ""


def _later_launch(
    directory: Path, summary: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[str]:
    """How the last launch differs from what the report says, which it did not come to write."""
    seeds = config.get("seeds")
    if isinstance(seeds, list) and seeds != summary["seeds"]:
        yield (
            f"{directory} is not finished: its last launch was of the seeds {seed_names(seeds)}, "
            f"its summary has {seed_names(summary['seeds'])}; {FINISH}"
        )
    if "config" in config and config["config"] != summary["config"]:
        yield (
            f"{directory} is not finished: its last launch had another config than its summary; "
            f"{FINISH}"
        )


def _summary_problems(directory: Path, summary: Mapping[str, Any]) -> Iterator[str]:
    """What a summary lacks that other runs are compared by."""
    path = directory / "summary.json"
    if missing := [key for key in ("directions", "evaluations") if key not in summary]:
        yield f"{path} is of an earlier version: it lacks {', '.join(missing)}; {AGAIN}"
        return
    primary, seeds = summary["primary"], summary["seeds"]
    names = isinstance(primary.get("metric"), str) and primary.get("direction") in ("max", "min")
    if not names or not all(type(seed) is int for seed in seeds):
        yield f"{path} is damaged: its primary metric or seeds are none; {AGAIN}"
        return
    if not summary["arms"]:
        yield f"{path} is damaged: it has no arms; {AGAIN}"
    for name, arm in summary["arms"].items():
        for metric, measured in arm["metrics"].items():
            values = measured.get("per_seed") if isinstance(measured, Mapping) else None
            if not isinstance(values, list) or len(values) != len(seeds) or not _numbers(values):
                yield f"{path} is damaged: {metric} of arm {name!r} is no value a seed; {AGAIN}"
            elif not _is_mean(measured.get("mean"), values):
                text = f"the mean {metric} of arm {name!r} is not that of its seeds"
                yield f"{path} is damaged: {text}; {AGAIN}"


def _numbers(values: Sequence[Any]) -> bool:
    numbers = [value for value in values if value is not None]
    return all(type(value) in (int, float) and math.isfinite(value) for value in numbers)


def _is_mean(mean: Any, values: Sequence[float | None]) -> bool:
    expected = estimate(np.array(values, np.float64)).mean  # None becomes NaN
    if mean is None or math.isnan(expected):
        return mean is None and math.isnan(expected)
    return type(mean) in (int, float) and math.isclose(mean, expected, rel_tol=1e-6, abs_tol=1e-12)


def _read_stages(
    directory: Path, summary: Mapping[str, Any]
) -> tuple[dict[str, tuple[str, ...]], dict[str, list[Block]], list[str]]:
    """({arm: its stages}, {stage: its blocks}, what is wrong with them)."""
    chains: dict[str, tuple[str, ...]] = {}
    blocks: dict[str, list[Block]] = {}
    problems = []
    for arm in summary["arms"]:
        try:
            chains[arm] = load_stages(directory / "report_data", arm)
        except FileNotFoundError:
            problems.append(f"{directory} is damaged: no report_data of arm {arm!r}; {AGAIN}")
        except NotRead:
            raise
        except ValueError as error:
            problems.append(str(error))
    for chain in chains.values():
        for name, after in zip(chain, [*chain[1:], None], strict=True):
            try:
                if name not in blocks:
                    blocks[name] = _blocks(directory, name, after)
                    if not blocks[name] and after is None:
                        what = f"{directory} is damaged: no stage.json of stage {name!r}"
                        problems.append(f"{what}; {AGAIN}")
                    problems += _unfinished(directory, name, blocks[name], summary["seeds"])
            except Damaged as error:
                problems.append(str(error))
    return chains, blocks, problems


def _blocks(directory: Path, stage: str, after: str | None) -> list[Block]:
    """The blocks of a stage, in the run that it was loaded from where that is another one.

    Args:
        after: the stage that goes on from it, which says where from.
    """
    blocks = blocks_of(directory / "stages" / stage)
    if blocks or after is None:
        return blocks
    children = blocks_of(directory / "stages" / after)
    sources = {block.record.get("source_run") for block in children} - {None}
    return [block for each in sources for block in blocks_of(Path(each) / "stages" / stage)]


def _unfinished(
    directory: Path, stage: str, blocks: Sequence[Block], seeds: Sequence[int]
) -> Iterator[str]:
    for block in blocks:
        if "rules" not in block.record["identity"]:
            yield f"{directory}: stage {stage!r} was trained by an earlier version of jaxtl"
        elif not block.record["finished"] and set(block.seeds) & set(seeds):
            yield f"{directory} is not finished: stage {stage!r} is not; {FINISH}"
