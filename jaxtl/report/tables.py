"""The tables of a report as values; `page` and `terminal` render them."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxtl.plan import panel
from jaxtl.report import sweeps, wording
from jaxtl.report.summary import statistics

MOST_ROWS = 30
"""Points of a sweep in a table in sight."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what it says.
        details: behind the text, or in small type below it.
        look: "name", "code", a verdict, or "" for plain text.
    """

    text: str
    details: Sequence[str] = ()
    look: str = ""


@dataclasses.dataclass(frozen=True)
class TextTable:
    """Rows of cells below a head.

    Attributes:
        head: what the columns are.
        rows: a cell a column.
        caption: what stands above it.
        ranks: of the columns; where room is short, the highest are left out first, 0 never.
        folded: behind a line to click on, which says this; empty where it is in sight.
        stub: how many columns name the row.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    ranks: Sequence[int] = ()
    folded: str = ""
    stub: int = 1


def of_arms(summary: Mapping[str, Any]) -> TextTable:
    """A row an arm: primary metric, gain, verdict, two further metrics, size and cost."""
    primary, others = summary["primary"]["metric"], wording.secondary(summary, 2)
    caption = (
        f"{summary['experiment']}{sweeps.among_points(summary)}: mean [95% interval] over "
        f"{wording.seeds(len(summary['seeds']))}, selection: {summary['selection']}"
    )
    rows = [
        [
            *_compared(summary, name, arm),
            *(_interval(arm["metrics"].get(metric), metric) for metric in others),
            Cell(f"{arm['trainable_parameters']:,}", [f"of {arm['total_parameters']:,}"]),
            _cost(arm),
        ]
        for name, arm in summary["arms"].items()
    ]
    head = [*_compared_head(summary, primary), *others, "trained parameters", "training"]
    ranks = [0] * 4 + [2, 3][: len(others)] + [1, 1]
    return TextTable(head, rows, caption, ranks)


def of_metrics(summary: Mapping[str, Any]) -> TextTable:
    """A row a metric, a column an arm."""
    arms, arrows = summary["arms"], {"max": " ↑", "min": " ↓"}
    metrics = dict.fromkeys(metric for arm in arms.values() for metric in arm["metrics"])
    rows = [
        [
            Cell(metric + arrows.get(summary["directions"].get(metric), "")),
            *(_interval(arm["metrics"].get(metric), metric) for arm in arms.values()),
        ]
        for metric in metrics
    ]
    head = ["metric, better ↑ high or ↓ low", *arms]
    return TextTable(head, rows, folded="All metrics of all arms")


def of_points(summary: Mapping[str, Any], points: sweeps.Points, brief: bool = False) -> TextTable:
    """A row a point of a sweep, a column an arm: primary metric, gain and verdict.

    Args:
        brief: with a mean and a mark in a cell.
    """
    labels = points.labels
    rows = []
    for row, point in enumerate(points.points):
        names = [texts[row] for texts in labels.values()]
        if sweeps.is_as_it_is(summary, point["config"]):
            names[-1] += " (as it is)"
        cells = (_at_point(summary, point, arm, brief) for arm in points.arms)
        rows.append([*(Cell(name, look="name") for name in names), *cells])
    title = f"Sweep over {points.title}"
    return TextTable(
        [*labels, *points.arms],
        rows,
        f"{title}: {sweeps.at_points(summary, brief)}",
        folded=f"{title}: {len(rows)} points" if len(rows) > MOST_ROWS else "",
        stub=len(labels),
    )


def of_grids(summary: Mapping[str, Any], points: sweeps.Points) -> list[TextTable]:
    """A table an arm of points over two fields, a row and a column a value, in brief; else none."""
    if len(points.axes) != 2:
        return []
    (row_field, rows), (column_field, columns) = points.axes.items()
    tables = []
    for arm in points.arms:
        cells = [[Cell("")] * len(columns) for _ in rows]
        for point in points.points:
            row, column = (point["config"][field] for field in points.axes)
            cells[rows.index(row)][columns.index(column)] = _at_point(summary, point, arm, True)
        body = [
            [Cell(str(value), look="name"), *line] for value, line in zip(rows, cells, strict=True)
        ]
        tables.append(TextTable([f"{row_field} \\ {column_field}", *map(str, columns)], body, arm))
    return tables


def of_points_and_arms(summary: Mapping[str, Any]) -> TextTable:
    """A row a point of a sweep and arm."""
    rows = [
        [Cell(wording.point(point["config"])), *_compared(summary, name, arm)]
        for point in summary["sweep"]
        for name, arm in point["arms"].items()
    ]
    head = ["point", *_compared_head(summary, summary["primary"]["metric"])]
    return TextTable(head, rows, folded="All points with the intervals of their gains")


def of_picked_points(summary: Mapping[str, Any]) -> TextTable:
    """A row an arm, at the point of a sweep that was picked for it; no rows where none was."""
    rows = []
    for name, arm in summary["tuned"].items():
        *cells, verdict = _compared(summary, name, arm)
        if count := arm.get("seeds_to_decide"):
            verdict = dataclasses.replace(verdict, details=[f"~{count} seeds"])
        rows.append([Cell(wording.point(arm["config"])), *cells, verdict])
    head = ["point", *_compared_head(summary, summary["primary"]["metric"])]
    caption = wording.picking(summary)
    if any(row[-1].details for row in rows):
        caption += " Beside what is undecided, about how many seeds would decide."
    return TextTable(head, rows, caption)


def over_points(summary: Mapping[str, Any]) -> TextTable:
    """A row an arm: the primary metric and its gain over a sweep over names, and at each point."""
    names = ["/".join(point["config"].values()) for point in summary["sweep"]]
    metric = summary["primary"]["metric"]
    rows = [
        [
            *_compared(summary, name, arm),
            *(Cell(wording.number(value)) for value in arm["metrics"][metric]["per_point"]),
        ]
        for name, arm in summary["over_points"].items()
    ]
    head = [*_compared_head(summary, f"mean {metric}"), *names]
    return TextTable(head, rows, wording.over_points(summary), [0] * 4 + [1] * len(names))


def of_held_out(summary: Mapping[str, Any]) -> list[TextTable]:
    """For each rule a row an arm: its mean over the domains that were held out, and on each."""
    metric, result = summary["primary"]["metric"], []
    for number, (rule, arms) in enumerate(summary["held_out"]["rules"].items()):
        domains = list(next(iter(arms.values()))["domains"])
        rows = [
            [
                *_compared(summary, name, arm),
                _interval(arm["worst"], metric),
                *(Cell(wording.number(arm["domains"][domain])) for domain in domains),
            ]
            for name, arm in arms.items()
        ]
        head = [*_compared_head(summary, f"mean {metric}"), "worst domain", *domains]
        caption = wording.held_out(summary, rule, number > 0)
        result.append(TextTable(head, rows, caption, [0] * 4 + [1] * (1 + len(domains))))
    return result


def of_panel(table: panel.Table) -> TextTable:
    """The rows of a table panel; its title and note are for who shows it."""
    rows = [
        [
            Cell(name, look="name"),
            *(
                _measured(row.get(column), table.metric or column, table.signed)
                for column in table.columns
            ),
        ]
        for name, row in table.rows.items()
    ]
    return TextTable([table.corner, *table.columns], rows)


def of_facts(facts: Mapping[str, Any], head: Sequence[str]) -> TextTable:
    """Names and values; those of nested dicts are joined by points."""
    return TextTable(head, list(_facts(facts, "")))


def _facts(facts: Mapping[str, Any], prefix: str) -> Iterable[list[Cell]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _facts(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield [Cell(f"{prefix}{name}"), Cell(text, look="code")]


def _at_point(summary: Mapping[str, Any], point: Mapping[str, Any], arm: str, brief: bool) -> Cell:
    """What an arm is worth at a point of a sweep; a star where the point was picked for it."""
    metric, entry = summary["primary"]["metric"], point["arms"].get(arm, {})
    measured = entry.get("metrics", {}).get(metric)
    if measured is None:
        return Cell("")
    gain = entry.get("gain", {}).get(metric, {"mean": None})["mean"]
    verdict = "" if gain is None else entry["verdict"]
    star = "*" if summary["tuned"].get(arm, {}).get("config") == point["config"] else ""
    if brief:
        mark = {"positive": "+", "negative": "-", "undecided": "?"}.get(verdict, "")
        return Cell(f"{wording.number(measured['mean'])}{mark}{star}", look=verdict)
    cell = _interval(measured, metric)
    details = list(cell.details)
    if gain is not None:
        details.append(wording.number(gain, signed=True) + "?" * (verdict == "undecided"))
    count = sum(value is not None for value in measured["per_seed"])
    if count < len(measured["per_seed"]):
        details.append(f"{count} of {wording.seeds(len(measured['per_seed']))}")
    return Cell(cell.text + star, details, verdict)


def _compared_head(summary: Mapping[str, Any], metric: str) -> list[str]:
    return ["arm", metric, f"gain over {summary['baseline']}", "verdict"]


def _compared(summary: Mapping[str, Any], name: str, arm: Mapping[str, Any]) -> list[Cell]:
    """An arm's name, primary metric, gain and verdict."""
    metric = summary["primary"]["metric"]
    verdict = arm["verdict"] or "baseline"
    return [
        Cell(name, look="name"),
        _interval(arm["metrics"].get(metric), metric),
        _interval(arm.get("gain", {}).get(metric), signed=True),
        Cell(verdict, look=verdict),
    ]


def _cost(arm: Mapping[str, Any]) -> Cell:
    seconds, speed, memory = (
        arm.get(key) for key in ("train_seconds", "steps_per_second", "step_memory_mb")
    )
    details = []
    if speed is not None:
        details.append(f"{speed:,.{0 if speed >= 10 else 2}f} steps/s")
    if memory:
        details.append(f"{memory:,.0f} MB")
    return Cell(wording.NOTHING if seconds is None else f"{seconds:.1f} s", details)


def _measured(value: panel.Cell | Mapping[str, Any], metric: str, signed: bool) -> Cell:
    """A cell of a table panel, which holds statistics where it was read from summary.json."""
    if isinstance(value, np.ndarray):
        value = statistics(value)
    if value is None or isinstance(value, Mapping):
        return _interval(value, metric, signed)
    if isinstance(value, str):
        return Cell(value)
    if isinstance(value, int | np.integer):
        return Cell(f"{value:{'+' if signed else ''},}")
    return Cell(wording.number(float(value), signed))


def _interval(statistics: Mapping[str, Any] | None, metric: str = "", signed: bool = False) -> Cell:
    """Mean and interval; of a difference there is no end that it cannot lie beyond."""
    limits = None if signed else wording.limits(metric)
    text, _, ends = wording.interval(statistics, signed, limits).partition(" ")
    return Cell(text, [ends] if ends else [])
