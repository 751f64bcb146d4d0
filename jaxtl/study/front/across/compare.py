"""Runs side by side: `jaxtl.compare([...])`, and `--compare` of the command line."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtl.files import user_path
from jaxtl.paths import unknown
from jaxtl.report.across.comparison import Facts, Side
from jaxtl.report.sweeps import among_points
from jaxtl.study.front.across import budget
from jaxtl.study.front.across.finished import FinishedRun, flat, read_run
from jaxtl.study.front.across.pairs import rows_of
from jaxtl.study.front.across.side_by_side import RunComparison


def compare(
    runs: Iterable[Any], *, against: str | None = None, despite: str | Sequence[str] = ()
) -> RunComparison:
    """Compares finished runs, arm by arm, with the first one of them.

    A difference is paired by seed where the runs have the same seeds or at least three in common;
    otherwise it is that of the means, with Welch's interval. Of a run with a sweep the experiment
    as it is is compared, not the points.

    Two runs can be compared that have one primary metric and direction, the same test data and the
    same rule of selection, and whose arms had the same budget (`across.budget` has the rule):
    steps, batch size, rows of each seed, published weights. The rest of their configs may differ.

    Args:
        runs: at least two directories <workdir>/<experiment>, or what has one as `directory`, such
            as a `Result`.
        against: an arm of the first run with which all arms are compared; by default each is with
            the one of its own name.
        despite: of "evaluation", "selection", "steps" and "data", what may differ nevertheless; the
            result says that it does.

    Raises:
        ValueError: something is no finished run, or cannot be compared; all of it is listed.
    """
    single = isinstance(runs, str | os.PathLike | Mapping)  # a Result is a mapping of its arms
    if single or not isinstance(runs, Iterable):
        raise ValueError(f"runs must be a list of run directories, got a {type(runs).__name__}")
    kinds = (despite,) if isinstance(despite, str) else tuple(despite)
    if wrong := [
        unknown("despite", kind, budget.DESPITE) for kind in kinds if kind not in budget.DESPITE
    ]:
        raise ValueError("\n".join(wrong))
    finished = _read_all(list(runs))
    labels = _labels([run.directory for run in finished])
    first = finished[0]
    if against is not None and against not in first.summary["arms"]:
        raise ValueError(unknown("arm of --against", against, first.summary["arms"]))
    lines = {
        label: budget.in_words(_differences(first, run, against))
        for label, run in zip(labels, finished, strict=True)
    }
    _refuse(labels, lines, kinds)
    named = {
        kind: [
            f"{label}: {line}" for label in labels for each, line in lines[label] if each == kind
        ]
        for kind in kinds
    }
    notes = {label: _notes(run, lines[label]) for label, run in zip(labels, finished, strict=True)}
    notes[labels[0]] += [
        f"--despite={kind} changes nothing: there is no such difference"
        for kind, differing in named.items()
        if not differing
    ]
    facts = Facts(
        metric=first.primary,
        sides=_sides(labels, finished),
        rows=rows_of(labels, finished, against),
        against=against,
        despite={kind: lines for kind, lines in named.items() if lines},
        notes={label: lines for label, lines in notes.items() if lines},
    )
    return RunComparison(facts)


def paths_of(text: str) -> list[str]:
    """`runs/a,runs/b*` -> the paths between commas, and those that a pattern names.

    A path may hold commas itself.

    Raises:
        ValueError: a pattern names nothing, or there is nothing between two commas.
    """
    parts, paths = text.split(","), []
    while parts:
        joined = [user_path(",".join(parts[:count]).strip()) for count in range(len(parts), 0, -1)]
        path = next((each for each in joined if each and os.path.exists(each)), joined[-1])
        parts = parts[path.count(",") + 1 :] if os.path.exists(path) else parts[1:]
        if not path:
            raise ValueError(f"--compare={text}: nothing stands between two commas")
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path))
        if not matches and glob.has_magic(path):
            raise ValueError(f"--compare: {path} matches nothing")
        paths += matches or [path]
    return paths


def _read_all(places: Sequence[Any]) -> list[FinishedRun]:
    """All runs; raises ValueError with everything that is wrong with any of them."""
    if len(places) < 2:
        raise ValueError(f"comparing needs at least two runs, got {len(places)}")
    runs, problems, paths = [], [], {}
    for place in places:
        try:
            run = read_run(place)
        except ValueError as error:
            problems.append(str(error))
            continue
        path = run.directory.resolve()
        if path in paths:
            same = f", which is {paths[path]}" if str(paths[path]) != str(run.directory) else ""
            problems.append(f"{run.directory}{same} is named twice")
        paths[path] = run.directory
        runs.append(run)
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    return runs


def _labels(directories: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that are all different."""
    parts = [path.resolve().parts for path in directories]
    for length in range(1, max(map(len, parts))):
        ends = ["/".join(each[-length:]) for each in parts]
        if len(set(ends)) == len(ends):
            return ends
    return [str(path.resolve()) for path in directories]


def _pairs(first: FinishedRun, other: FinishedRun, against: str | None) -> list[tuple[str, str]]:
    """(arm of the other, arm of the first) to compare."""
    arms = other.summary["arms"]
    if against is not None:
        return [(arm, against) for arm in arms]
    return [(arm, arm) for arm in arms if arm in first.summary["arms"]]


def _differences(
    first: FinishedRun, other: FinishedRun, against: str | None
) -> list[budget.Difference]:
    if other is first:
        return []
    pairs = _pairs(first, other, against)
    # Arms of one name have one budget, whatever they are compared with.
    names = first.summary["arms"]
    pairs = [(arm, arm if arm in names else counterpart) for arm, counterpart in pairs]
    lines = budget.differences(first, other, pairs)
    if not pairs:
        arms = ", ".join(first.summary["arms"])
        line = (
            f"it has none of the arms of the first run ({arms}); --against=ARM compares its arms "
            "with one of those"
        )
        lines.append(budget.Difference("arms", line))
    return lines


def _refuse(
    labels: Sequence[str], lines: Mapping[str, Sequence[tuple[str, str]]], despite: Sequence[str]
) -> None:
    """Raises ValueError with all that forbids to compare, and what would allow it.

    Args:
        lines: {label: (kind, line) of each difference from the first run}.
    """
    reasons = {
        f"  {label}: {line}": kind
        for label in labels
        for kind, line in lines[label]
        if kind != "note" and kind not in despite
    }
    if not reasons:
        return
    kinds = {*reasons.values(), *despite}
    if kinds <= set(budget.DESPITE):
        flag = f"--despite={','.join(kind for kind in budget.DESPITE if kind in kinds)}"
        remedy = f"{flag} compares them nevertheless, and the result says so"
    else:
        remedy = "no flag makes another metric or other arms a comparison"
    text = "\n".join([f"these differ from {labels[0]}, which is there:", *reasons, remedy])
    raise ValueError(f"cannot compare these runs; {text}")


def _notes(run: FinishedRun, lines: Sequence[tuple[str, str]]) -> list[str]:
    notes = [line for kind, line in lines if kind == "note"]
    if swept := among_points(run.summary):
        notes.append(
            f"compared{swept}; its points, and those picked among them, are in its own report"
        )
    return notes


def _sides(labels: Sequence[str], runs: Sequence[FinishedRun]) -> list[Side]:
    configs = [flat(run.summary["config"]) for run in runs]
    fields = dict.fromkeys(field for config in configs for field in config)
    varying = [
        field
        for field in fields
        if any(config.get(field) != configs[0].get(field) for config in configs)
    ]
    return [
        Side(
            label=label,
            directory=str(run.directory),
            experiment=run.summary["experiment"],
            seeds=run.seeds,
            selection=run.summary["selection"],
            command=str(run.environment.get("command", "")),
            config={field: config[field] for field in varying if field in config},
        )
        for label, run, config in zip(labels, runs, configs, strict=True)
    ]
