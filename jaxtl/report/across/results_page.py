"""experiments/README.md: what every experiment of the folder asks, and what was measured."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtl.report import sweeps, wording
from jaxtl.report.across.results import Entry, first_lines, summary_of

MADE = "<!-- made by `python launch.py --collect=WORKDIR`, which writes it anew -->"
MOST_ARMS = 8
"""Columns of a table of the points of a sweep; more arms are in results.json only."""
MOST_POINTS = 14
DATA = "results.json"


@dataclasses.dataclass(frozen=True)
class Listed:
    """An experiment of the folder.

    Attributes:
        name: of its file.
        question: the first line of its docstring.
        result: what its docstring says was measured.
        entries: indices of those in results.json, with what should be said of each, in words.
    """

    name: str
    question: str
    result: str
    entries: Mapping[int, str]


def results_page(listed: Sequence[Listed], entries: Sequence[Entry], gone: Sequence[str]) -> str:
    """The text of README.md.

    Args:
        listed: in the order of the page.
        entries: of results.json, in its order.
        gone: names of experiments that have entries but no file any more.
    """
    lines = first_lines(entries)
    parts = [MADE, "", "# Measured results", "", _introduction(), "", *_overview(listed, entries)]
    for experiment in listed:
        parts += ["", f"## {experiment.name}", "", _escaped(experiment.question)]
        for index, remark in experiment.entries.items():
            parts += _entry(entries[index], lines[index], remark)
        if not experiment.entries:
            parts += ["", _not_on_file(experiment.result)]
    if gone:
        names = wording.enumeration([f"`{name}`" for name in gone])
        parts += ["", "## No longer in this folder", "", f"{DATA} still holds {names}."]
    return "\n".join(parts) + "\n"


def _introduction() -> str:
    return (
        "What each experiment of this folder measured. A number is the mean of the test metric "
        "over the seeds, with its 95% Student-t interval in brackets. A gain is what an arm is "
        "better by than the baseline, paired by seed, above 0 where it is better; the verdict is "
        "the side of 0 on which its whole interval lies. Intervals are not corrected for the "
        f"number of arms. The numbers of each seed are in [{DATA}]({DATA}), from which this page "
        "is made. Commands are given at the repository's root; the seconds are those of training, "
        "without loading and measuring."
    )


def _overview(listed: Sequence[Listed], entries: Sequence[Entry]) -> list[str]:
    rows = []
    for experiment in listed:
        link = f"[{experiment.name}](#{experiment.name})"
        answers = [_answers(summary_of(entries[index])) for index in experiment.entries]
        text = "<br>".join(answers) or "Numbers of the seeds are not on file."
        rows.append([link, _escaped(experiment.question), text])
    return _table(["experiment", "question", "did the transfer help?"], rows)


def _answers(summary: Mapping[str, Any]) -> str:
    """Of the experiment as it is, of what was picked in a sweep, and of its names, all or each."""
    config = sweeps.as_it_is(summary)
    place = f"At {wording.point(config)}: " if config else ""
    lines = [place + wording.answer(summary)]
    if summary.get("tuned"):
        picked = {**summary, "arms": summary["tuned"]}
        lines.append(f"Picked by validation: {wording.answer(picked)}")
    if over := summary.get("over_points"):
        count = len(summary["sweep"])
        lines.append(f"Over all {count} points: {wording.answer({**summary, 'arms': over})}")
    return "<br>".join(_escaped(line) for line in [*lines, *sweeps.answers(summary)])


def _entry(entry: Entry, line: int, remark: str) -> list[str]:
    summary = summary_of(entry)
    metric, direction = summary["primary"]["metric"], summary["primary"]["direction"]
    better = "higher" if direction == "max" else "lower"
    config = sweeps.as_it_is(summary)
    place = f" At {wording.point(config)}:" if config else ""
    facts = [
        f"`{entry['command']}`",
        f"Measured on {_enumerated(entry['data'])}: {_escaped(metric)} ({better} is better), "
        f"{wording.seeds(len(entry['seeds']))}, {_escaped(summary['selection'])}.{_escaped(place)}",
    ]
    parts = ["", facts[0], "", facts[1], "", *_arms(summary)]
    parts += _sweep(summary)
    hardware = entry["hardware"]
    device = ", ".join(dict.fromkeys(hardware["devices"]))
    cores = f", {hardware['cores']} cores" if hardware.get("cores") else ", cores not on file"
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    commit = str(entry.get("commit") or "")
    at = f" at commit {commit[:10]}{commit[40:]}" if commit else ""
    parts += [
        "",
        f"Training took {_seconds(entry['train_seconds'])} on {device}{cores}; {versions}{at}; "
        f"[the numbers of each seed]({DATA}#L{line}).",
    ]
    return [*parts, "", f"**{remark}**"] if remark else parts


def _arms(summary: Mapping[str, Any]) -> list[str]:
    metric, baseline = summary["primary"]["metric"], summary["baseline"]
    others = [key for key in _others(summary) if key != metric]
    head = ["arm", metric, f"gain over {baseline}", "verdict", *others, "trained parameters"]
    rows = [
        [
            f"`{name}`",
            _measured(arm, metric),
            wording.interval(arm.get("gain", {}).get(metric), signed=True),
            _verdict(arm, baseline == name),
            *(_measured(arm, key) for key in others),
            f"{arm['trainable_parameters']:,}",
        ]
        for name, arm in summary["arms"].items()
    ]
    return _table(head, rows)


def _others(summary: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(key for arm in summary["arms"].values() for key in arm["metrics"]))


def _sweep(summary: Mapping[str, Any]) -> list[str]:
    """Tables of what was picked among the points of a sweep, over all of them, and of each."""
    parts: list[str] = []
    metric, baseline = summary["primary"]["metric"], summary["baseline"]
    head = [metric, f"gain over {baseline}", "verdict"]
    if tuned := summary.get("tuned"):
        rows = [
            [_escaped(wording.point(arm["config"])), *_compared(name, arm, summary)]
            for name, arm in tuned.items()
        ]
        parts += [
            "",
            _escaped(wording.picking(summary)),
            "",
            *_table(["point", "arm", *head], rows),
        ]
    if over := summary.get("over_points"):
        rows = [_compared(name, arm, summary) for name, arm in over.items()]
        parts += [
            "",
            f"{_escaped(wording.over_points(summary))}:",
            "",
            *_table(["arm", *head], rows),
        ]
    for number, (rule, arms) in enumerate(summary.get("held_out", {}).get("rules", {}).items()):
        rows = [_compared(name, arm, summary) for name, arm in arms.items()]
        parts += [
            "",
            f"{_escaped(wording.held_out(summary, rule, number > 0))}:",
            "",
            *_table(["arm", *head], rows),
        ]
    for points in sweeps.points_of(summary):
        if len(points.arms) > MOST_ARMS or len(points.points) > MOST_POINTS:
            count = len(points.points)
            parts += ["", f"The {count} points of {_escaped(points.title)} are in {DATA}."]
            continue
        labels = points.labels
        rows = [
            [
                *(f"{texts[row]}" for texts in labels.values()),
                *(_at_point(point["arms"].get(arm), metric) for arm in points.arms),
            ]
            for row, point in enumerate(points.points)
        ]
        marks = f"+ behind what is better than {baseline}, - behind what is worse"
        note = f"Sweep over {points.title}, {marks}:"
        parts += ["", _escaped(note), "", *_table([*labels, *points.arms], rows)]
    return parts


def _compared(name: str, arm: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    metric = summary["primary"]["metric"]
    gain = wording.interval(arm.get("gain", {}).get(metric), signed=True)
    return [f"`{name}`", _measured(arm, metric), gain, _verdict(arm, name == summary["baseline"])]


def _at_point(arm: Mapping[str, Any] | None, metric: str) -> str:
    if arm is None:
        return ""
    marks = {"positive": " **+**", "negative": " **-**"}
    return _measured(arm, metric) + marks.get(arm.get("verdict") or "", "")


def _measured(arm: Mapping[str, Any], metric: str) -> str:
    return wording.interval(arm["metrics"].get(metric), limits=wording.limits(metric))


def _verdict(arm: Mapping[str, Any], is_baseline: bool) -> str:
    if is_baseline or not arm.get("verdict"):
        return "baseline" if is_baseline else wording.NOTHING
    count = arm.get("seeds_to_decide")
    return f"{arm['verdict']} (about {count} seeds would decide)" if count else arm["verdict"]


def _not_on_file(result: str) -> str:
    if result == "not measured":
        return "Not measured."
    return f"Numbers of the seeds are not on file. Its docstring says: {_escaped(result)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _enumerated(names: Sequence[str]) -> str:
    return wording.enumeration([f"`{name}`" for name in names])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [[_bars(cell) for cell in row] for row in ([*head], ["---"] * len(head), *rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _bars(text: str) -> str:
    """A cell: a bar in it would begin the next one."""
    return text.replace("|", "\\|").replace("\n", " ")


def _escaped(text: str) -> str:
    """Plain text, of whose letters Markdown makes nothing."""
    for letter in "\\<*_`":
        text = text.replace(letter, f"\\{letter}")
    return text
