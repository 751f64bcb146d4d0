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
    if "sweep" in summary:
        console.print(Text(f"\n{wording.picking(summary)}", "bold"))
        for name, arm in summary["tuned"].items():
            metric, verdict = summary["primary"]["metric"], arm["verdict"] or "baseline"
            value = wording.interval(arm["metrics"].get(metric))
            gain = wording.interval(arm.get("gain", {}).get(metric), signed=True)
            text = f"{name} at {wording.point(arm['config'])}: {metric} {value}, gain {gain}"
            console.print(Text(f"{text}, {verdict}", COLOURS.get(verdict, "dim")))
