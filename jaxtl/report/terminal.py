"""The terminal's view of a run: tables, the answer, and a sentence an arm.

Names are shown as they are: no markup, no emoji codes, no control characters.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxtl.report import panels, sweeps, tables, wording

if TYPE_CHECKING:
    import rich.table
    from rich.console import Console
    from rich.text import Text

NARROWEST = 4
"""Letters of a column that is worth trying."""
MOST_LINES = 60
"""Of a table of points with their intervals; without them a point is a line."""
MOST_GRIDS = 8
"""Tables of a sweep over two fields, an arm each; more are one table of points."""
FOLDED = 24
"""Letters of a name in a line of a narrow table."""
LOOKS = {
    "name": "bold",
    "positive": "green",
    "negative": "red",
    "undecided": "yellow",
    "baseline": "dim",
}


def print_table(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the arms, the answer and a sentence an arm, then the tables that are to be printed."""
    from rich.console import Console

    console = console or Console()
    print_widest(console, tables.of_arms(summary))
    config = sweeps.as_it_is(summary)
    place = f" at {wording.point(config)}" if config else ""
    console.print(plain(f"Did the transfer help{place}? {wording.answer(summary)}", "bold"))
    for arm, sentence in zip(
        wording.compared(summary).values(), wording.sentences(summary), strict=True
    ):
        console.print(plain(sentence, LOOKS[arm["verdict"]]))
    for line in sweeps.answers(summary):
        console.print(plain(line, "bold"))
    others = [
        dataclasses.replace(_without_details(tables.of_panel(panel)), caption=panel.title)
        for panel in panels.tables(summary).values()
        if panel.printed
    ]
    if "over_points" in summary:
        others.append(tables.over_points(summary))
    if "held_out" in summary:
        others += tables.of_held_out(summary)
    for table in others:
        console.print()
        print_widest(console, table)
    for points in sweeps.points_of(summary):
        console.print()
        _print_points(console, summary, points)
    if config and "held_out" not in summary:
        console.print()
        print_widest(console, tables.of_picked_points(summary))


def plain(text: str, style: str = "") -> Text:
    """A text in which nothing is markup and every character can be seen."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text), style)


def _print_points(console: Console, summary: Mapping[str, Any], points: sweeps.Points) -> None:
    """Prints the points of a sweep: as grids of two fields, or a row a point."""
    grids = tables.of_grids(summary, points) if len(points.arms) <= MOST_GRIDS else []
    whole, brief = (tables.of_points(summary, points, brief) for brief in (False, True))
    forms = [form for grid in grids for form in _parts(console, grid)]
    caption = brief.caption
    if not forms:
        form = _widest(console, dataclasses.replace(whole, caption=""))
        if form and _count_lines(console, form) <= MOST_LINES:
            forms, caption = [form], whole.caption
        else:
            forms = _parts(console, dataclasses.replace(brief, caption=""))
    console.print(plain(caption, "bold"))
    for form in forms:
        console.print(form)
    if not forms:
        _print_lines(console, whole)


def print_widest(console: Console, table: tables.TextTable) -> None:
    """Prints the widest form of a table that fits; if none does, a line for each of its cells."""
    form = _widest(console, table) if table.rows else None
    if form:
        console.print(form)
        return
    console.print(plain(table.caption, "bold"))
    _print_lines(console, table)


def _widest(console: Console, table: tables.TextTable) -> rich.table.Table | None:
    """The widest form of a table that fits, if one does."""
    if len(table.head) * NARROWEST > console.width:
        return None
    return next((form for form in _forms(table) if _width(console, form) <= console.width), None)


def _width(console: Console, form: rich.table.Table) -> int:
    return console.measure(form, options=console.options.update(width=10_000)).maximum


def _count_lines(console: Console, form: rich.table.Table) -> int:
    return len(console.render_lines(form))


def _parts(console: Console, table: tables.TextTable) -> list[rich.table.Table]:
    """A table in as few parts as fit, all with its stub; none if not even single columns do."""
    if form := _widest(console, table):
        return [form]
    stub, columns = list(range(table.stub)), list(range(table.stub, len(table.head)))
    widths = [_width(console, _form(table, [*stub, column], narrow=True)) for column in columns]
    beside = _width(console, _form(table, stub, narrow=True))
    widest = max(widths, default=0)
    if widest > console.width:
        return []
    count = math.ceil(len(columns) * (widest - beside) / (console.width - beside))
    size = math.ceil(len(columns) / count)
    if beside + size * (widest - beside) > console.width:
        size -= 1  # columns are not divided
    parts = [columns[start : start + size] for start in range(0, len(columns), size)]
    return [_form(table, [*stub, *part], narrow=True) for part in parts]


def _print_lines(console: Console, table: tables.TextTable) -> None:
    for row in table.rows:
        names = [cell.text for cell in row[: table.stub]]
        if table.stub > 1:
            names = [f"{head}={name}" for head, name in zip(table.head, names, strict=False)]
        console.print(plain(", ".join(names), "bold"))
        for head, cell in zip(table.head[table.stub :], row[table.stub :], strict=True):
            console.print(_line(head, cell, console.width))


def _line(head: str, cell: tables.Cell, width: int) -> Text:
    """A line of a cell, or two where it is longer than the width: a number is not broken."""
    value = plain(" ".join([cell.text, *cell.details]), LOOKS.get(cell.look, ""))
    line = plain(f"  {head}: ").append_text(value)
    if line.cell_len > width:
        line = plain(f"  {head}:").append("\n    ").append_text(value)
    return line


def _forms(table: tables.TextTable) -> Iterator[rich.table.Table]:
    """With ever fewer columns, then with cells in several lines."""
    ranks = table.ranks or [0] * len(table.head)
    levels = sorted({1, *ranks} - {0}, reverse=True)
    for narrow, rank in [*((False, level) for level in levels), (True, 1), (True, 0)]:
        yield _form(table, [i for i, each in enumerate(ranks) if each <= rank], narrow)


def _form(table: tables.TextTable, columns: list[int], narrow: bool) -> rich.table.Table:
    from rich import box
    from rich.table import Table

    form = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 0 if narrow else 1),
        collapse_padding=True,
        title=plain(table.caption),
        title_justify="left",
        title_style="bold",
    )
    for column in columns:
        cells = [_lines(row[column], narrow) for row in table.rows]
        head = [table.head[column]]
        if narrow:  # little wider than what stands below it
            widest = max(len(line) for lines in cells for line in lines)
            head = textwrap.wrap(*head, widest + 2, break_long_words=False)
        form.add_column(_below(head), no_wrap=True)
    for row in table.rows:
        form.add_row(*(_below(_lines(row[i], narrow), LOOKS.get(row[i].look, "")) for i in columns))
    return form


def _lines(cell: tables.Cell, narrow: bool) -> list[str]:
    if not narrow:
        return [" ".join([cell.text, *cell.details])]
    return [*(textwrap.wrap(cell.text, FOLDED) or [""]), *cell.details]


def _below(lines: Sequence[str], style: str = "") -> Text:
    from rich.text import Text

    return Text("\n").join(plain(line, style) for line in lines)


def _without_details(table: tables.TextTable) -> tables.TextTable:
    rows = [[dataclasses.replace(cell, details=()) for cell in row] for row in table.rows]
    return dataclasses.replace(table, rows=rows)
