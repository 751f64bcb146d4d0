"""The terminal's view of a summary: a table of arms and a sentence a verdict.

Names are shown as they are: no markup, no emoji codes, no control characters.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxtl.report import wording

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

FOLDED = 24
"""Characters of a name in a line of a narrow table."""
COLOURS = {"positive": "green", "negative": "red", "undecided": "yellow"}


def plain(text: str, style: str = "") -> Text:
    """A text in which nothing is markup and every character can be seen."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text), style)


def arms_table(
    summary: Mapping[str, Any], metrics: int = 2, narrow: bool = False, costs: bool = True
) -> Table:
    """A row an arm: primary metric, gain, verdict, `metrics` further metrics, size, seconds.

    Args:
        narrow: intervals stand below their means, long names in several lines.
        costs: with size and seconds.
    """
    from rich import box
    from rich.table import Table

    def cell(text: str, style: str = "") -> Text:
        if narrow:
            text = text.replace(" [", "\n[").replace(" of ", "\nof ").replace("/", "/\n")
        return _below([plain(line, style) for line in text.split("\n")])

    def label(text: str, style: str = "") -> Text:
        lines = textwrap.wrap(text, FOLDED) if narrow else [text]
        return _below([plain(line, style) for line in lines])

    primary, baseline = summary["primary"]["metric"], summary["baseline"]
    others = wording.secondary(summary, metrics)
    table = Table(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        title=plain(
            f"{summary['experiment']}: mean [95% interval] over "
            f"{wording.seeds(len(summary['seeds']))}, selection: {summary['selection']}"
        ),
        title_justify="left",
        title_style="bold",
    )
    table.add_column(plain("arm"), no_wrap=True)
    table.add_column(cell(primary), no_wrap=True)
    table.add_column(label(f"gain over {baseline}"), no_wrap=True)
    table.add_column(plain("verdict"), no_wrap=True)
    for heading in (*others, *(("trained", "seconds") if costs else ())):
        table.add_column(plain(heading), justify="right", no_wrap=True)
    for name, arm in summary["arms"].items():
        verdict = arm["verdict"] or "baseline"
        seconds = arm["train_seconds"]
        spent = wording.NOTHING if seconds is None else f"{seconds:.1f}"
        table.add_row(
            label(name, "bold"),
            cell(wording.interval(arm["metrics"].get(primary))),
            cell(wording.interval(arm.get("gain", {}).get(primary), signed=True)),
            cell(verdict, COLOURS.get(verdict, "dim")),
            *(wording.number(arm["metrics"].get(other, {}).get("mean")) for other in others),
            *([cell(wording.parameters(arm)), spent] if costs else ()),
        )
    return table


def picks_table(summary: Mapping[str, Any], narrow: bool = True) -> Table:
    """A row an arm: the primary metric at the step that each label-free rule picks."""
    from rich.table import Table

    rules, rows = wording.picks(summary)
    table = Table(
        box=None,
        padding=(0, 1, 0, 0),
        title=plain(wording.PICKS.format(summary["primary"]["metric"])),
        title_justify="left",
        title_style="bold",
    )
    table.add_column(plain("arm"), no_wrap=True)
    for rule in rules:
        style = "dim italic" if rule == wording.ORACLE else ""
        words = rule.split() if narrow else [rule]
        width = max(5, *map(len, words))
        heading = _below([plain(word) for word in words])
        table.add_column(heading, justify="right", style=style, no_wrap=True, min_width=width)
    for name, numbers in rows.items():
        table.add_row(plain(name), *(wording.number(value and value["mean"]) for value in numbers))
    return table


def points_table(summary: Mapping[str, Any]) -> Table:
    """A row an arm: the primary metric and its gain over all points of a sweep over names."""
    from rich import box
    from rich.table import Table

    primary = summary["primary"]["metric"]
    title = plain(wording.over_points(summary))
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for heading in ("arm", primary, f"gain over {summary['baseline']}", "verdict"):
        table.add_column(plain(heading), no_wrap=True)
    for name, arm in summary["over_points"].items():
        verdict = arm["verdict"] or wording.NOTHING
        table.add_row(
            plain(name, "bold"),
            plain(wording.interval(arm["metrics"][primary])),
            plain(wording.interval(arm.get("gain", {}).get(primary), signed=True)),
            plain(verdict, COLOURS.get(verdict, "dim")),
        )
    return table


def print_table(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the widest table that fits, the answer and a sentence an arm."""
    from rich.console import Console

    console = console or Console()
    forms = [(2, False), (1, False), (0, False), (0, True), (0, True, False)]
    _print_widest(console, [arms_table(summary, *form) for form in forms])
    console.print(plain(f"Did the transfer help? {wording.answer(summary)}", "bold"))
    for arm, sentence in zip(
        wording.compared(summary).values(), wording.sentences(summary), strict=True
    ):
        console.print(plain(sentence, COLOURS[arm["verdict"]]))
    if any("picks" in arm for arm in summary["arms"].values()):
        console.print()
        _print_widest(console, [picks_table(summary)], picks_table(summary, narrow=False))
    if "over_points" in summary:
        console.print()
        _print_widest(console, [points_table(summary)])
    if "sweep" in summary:
        console.print()
        console.print(plain(wording.picking(summary), "bold"))
        for name, arm in summary["tuned"].items():
            metric, verdict = summary["primary"]["metric"], arm["verdict"] or "baseline"
            value = wording.interval(arm["metrics"].get(metric))
            gain = wording.interval(arm.get("gain", {}).get(metric), signed=True)
            text = f"{name} at {wording.point(arm['config'])}: {metric} {value}, gain {gain}"
            console.print(plain(f"{text}, {verdict}", COLOURS.get(verdict, "dim")))


def _print_widest(console: Console, tables: list[Table], listed: Table | None = None) -> None:
    """Prints the first table that fits; if none does, a line for each of its cells.

    Args:
        tables: the same rows, wider ones first.
        listed: what the lines are of; None for the widest.
    """
    unbounded = console.options.update(width=10_000)
    for table in tables:
        if console.measure(table, options=unbounded).maximum <= console.width:
            console.print(table)
            return
    listed = listed or tables[0]
    first, *columns = listed.columns
    console.print(listed.title, style="bold")
    for name, *cells in zip(first.cells, *(column.cells for column in columns), strict=True):
        console.print(name)
        for column, cell in zip(columns, cells, strict=True):
            line = plain("  ").append_text(column.header).append(": ").append(cell)
            if line.cell_len > console.width:  # a number is not broken
                console.print(plain("  ").append_text(column.header).append(":"))
                line = plain("    ").append(cell)
            console.print(line)


def _below(lines: list[Text]) -> Text:
    from rich.text import Text

    return Text("\n").join(lines)
