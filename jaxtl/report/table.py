"""The terminal's view of a summary: a table of arms and a sentence a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxtl.report import wording

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLOURS = {"positive": "green", "negative": "red", "undecided": "yellow"}


def arms_table(summary: Mapping[str, Any], metrics: int = 2, narrow: bool = False) -> Table:
    """A row an arm: primary metric, gain, verdict, `metrics` further metrics, size, seconds.

    Where it is `narrow`, intervals stand below their means.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def cell(text: str, style: str = "") -> Text:  # Text: brackets are rich's markup
        if narrow:
            text = text.replace(" [", "\n[").replace(" of ", "\nof ").replace("/", "/\n")
        return Text(text, style)

    primary, baseline = summary["primary"]["metric"], summary["baseline"]
    others = wording.secondary(summary, metrics)
    table = Table(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        title=f"{summary['experiment']}: mean [95% interval] over "
        f"{wording.seeds(len(summary['seeds']))}, selection: {summary['selection']}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("arm", no_wrap=True)
    table.add_column(cell(primary), no_wrap=True)
    table.add_column(f"gain over {baseline}", no_wrap=not narrow)
    table.add_column("verdict", no_wrap=True)
    for heading in (*others, "trained", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, arm in summary["arms"].items():
        verdict = arm["verdict"] or "baseline"
        seconds = arm["train_seconds"]
        table.add_row(
            Text(name, "bold"),
            cell(wording.interval(arm["metrics"].get(primary))),
            cell(wording.interval(arm.get("gain", {}).get(primary), signed=True)),
            cell(verdict, COLOURS.get(verdict, "dim")),
            *(wording.number(arm["metrics"].get(other, {}).get("mean")) for other in others),
            cell(wording.parameters(arm)),
            wording.NOTHING if seconds is None else f"{seconds:.1f}",
        )
    return table


def picks_table(summary: Mapping[str, Any]) -> Table:
    """A row an arm: the primary metric at the step that each label-free rule picks."""
    from rich.table import Table

    rules, rows = wording.picks(summary)
    title = "\n" + wording.PICKS.format(summary["primary"]["metric"])
    table = Table(
        box=None,
        padding=(0, 1, 0, 0),
        title=title,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("arm", no_wrap=True)
    for rule in rules:
        style = "dim italic" if rule == wording.ORACLE else ""
        width = max(5, *map(len, rule.split()))
        heading = rule.replace(" ", "\n")
        table.add_column(heading, justify="right", style=style, no_wrap=True, min_width=width)
    for name, found in rows.items():
        table.add_row(name, *(wording.number(one and one["mean"]) for one in found))
    return table


def points_table(summary: Mapping[str, Any]) -> Table:
    """A row an arm: the primary metric and its gain over all points of a sweep over names."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    primary = summary["primary"]["metric"]
    title = "\n" + wording.over_points(summary)
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for heading in ("arm", primary, f"gain over {summary['baseline']}", "verdict"):
        table.add_column(heading, no_wrap=True)
    for name, arm in summary["over_points"].items():
        verdict = arm["verdict"] or wording.NOTHING
        table.add_row(
            Text(name, "bold"),
            Text(wording.interval(arm["metrics"][primary])),
            Text(wording.interval(arm.get("gain", {}).get(primary), signed=True)),
            Text(verdict, COLOURS.get(verdict, "dim")),
        )
    return table


def print_table(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the widest table that fits, the answer and a sentence an arm."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    unbounded = console.options.update(width=10_000)
    for metrics, narrow in [(2, False), (1, False), (0, False), (0, True)]:
        table = arms_table(summary, metrics, narrow)
        if console.measure(table, options=unbounded).maximum <= console.width:
            break
    console.print(table)
    console.print(Text(f"Did the transfer help? {wording.answer(summary)}", "bold"))
    for arm, sentence in zip(
        wording.compared(summary).values(), wording.sentences(summary), strict=True
    ):
        console.print(Text(sentence, COLOURS[arm["verdict"]]))
    if any("picks" in arm for arm in summary["arms"].values()):
        console.print(picks_table(summary))
    if "over_points" in summary:
        console.print(points_table(summary))
    if "sweep" in summary:
        console.print(Text(f"\n{wording.picking(summary)}", "bold"))
        for name, arm in summary["tuned"].items():
            metric, verdict = summary["primary"]["metric"], arm["verdict"] or "baseline"
            value = wording.interval(arm["metrics"].get(metric))
            gain = wording.interval(arm.get("gain", {}).get(metric), signed=True)
            text = f"{name} at {wording.point(arm['config'])}: {metric} {value}, gain {gain}"
            console.print(Text(f"{text}, {verdict}", COLOURS.get(verdict, "dim")))
