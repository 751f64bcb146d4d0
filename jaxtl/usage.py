"""What the command line says of itself: how to start, every flag, every experiment."""

from __future__ import annotations

import dataclasses
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtl.arguments import COMMANDS, FLAGS, form
from jaxtl.experiment_file import FOLDER, docstring, known_experiments
from jaxtl.fields import field_names, get_field, meanings, text_of, type_name, type_of
from jaxtl.surroundings import terminal

if TYPE_CHECKING:
    from rich.console import Console

BESIDE = 36
"""Columns that a text needs to stand beside what it is about; with fewer it stands below."""
MOST_BESIDE = 34
"""Columns of the longest flag that a text stands beside."""
WIDEST = 100
"""Columns of what is read line by line."""
FIELDS = "Its fields"
COMMAND = "python launch.py"
QUESTION = "Did the transfer help, by how much, and how sure are we?"
START = (
    (f"{COMMAND} --list", "every experiment and its question"),
    (f"{COMMAND} --list=NAME", "all about one, and what was measured"),
    (f"{COMMAND} --experiment=NAME", "run one; digits takes under a minute"),
    (f"{COMMAND} --experiment=NAME --help", "what can be set in it"),
    (f"{COMMAND} --help", "every flag"),
)

Rows = Sequence[tuple[str, str]]


def show_start() -> None:
    """Print how to start."""
    console = terminal()
    _show(console, f"{QUESTION}\n")
    _show_rows(console, START)


def show_help() -> None:
    """Print every flag, its default and what it means."""
    console = terminal()
    _show(console, f"{COMMAND} --experiment=NAME [--FLAG=VALUE ...]\n\n{QUESTION}\n")
    _show_groups(console, None, {})


def show_fields(path: Path, config: Any, sweep: Mapping[str, Sequence[Any]]) -> None:
    """Print what an experiment is, the fields of its `Config`, and the flags of a run.

    Args:
        path: its file.
        config: its `Config` with the defaults.
        sweep: {field: values} that its file asks for.
    """
    show_experiment(path)
    _show_groups(terminal(), config, sweep)


def show_experiment(path: Path) -> None:
    """Print all that the file of an experiment says of it."""
    console = terminal()
    _show(console, f"{path}\n", "bold")
    for paragraph in (docstring(path) or "It does not say what it compares.").split("\n\n"):
        flows = not any(line[:1] in " -*|" for line in paragraph.splitlines())
        folded = " ".join(paragraph.split()) if flows and console.is_interactive else paragraph
        _show(console, f"{folded}\n")


def show_list() -> None:
    """Print every experiment and its question, a line each, as long as the terminal is wide."""
    console = terminal()
    rows = []
    for name in known_experiments():
        try:
            text = docstring(FOLDER / f"{name}.py") or "(it does not say what it compares)"
        except ValueError as error:
            text = f"not readable: {error}"
        rows.append((name, " ".join(text.split("\n\n")[0].split())))
    longest = max((len(name) for name, _ in rows), default=0)
    if not console.is_interactive:  # whoever reads a pipe wants whole lines
        for name, question in rows:
            _show(console, f"{name:<{longest}}  {question}")
        return
    room = console.width - longest - 4
    if room >= BESIDE:
        rows = [(name, textwrap.shorten(text, room, placeholder=" ...")) for name, text in rows]
    _show_rows(console, rows, console.width)
    _show(console, f"\n{COMMAND} --list=NAME shows all about one, --experiment=NAME runs it.")


def _show_groups(console: Console, config: Any, sweep: Mapping[str, Sequence[Any]]) -> None:
    """Print the flags by their titles; with a config those of a run, and its fields."""
    groups: dict[str, list[tuple[str, str]]] = {FIELDS: []}
    for name, field in FLAGS.items():
        group = field.metadata["group"]
        if name == "--config" and config is not None:
            groups[FIELDS] += _field_rows(name, config, typed=True)
        elif config is None or group != COMMANDS:
            groups.setdefault(group, []).extend(_rows(name, field, sweep))
    _show(console, "After = stands the default, or in capitals what to put there.")
    for title, rows in groups.items():
        if rows:
            _show(console, f"\n{title}", "bold")
            _show_rows(console, rows)


def _rows(
    name: str, field: dataclasses.Field, sweep: Mapping[str, Sequence[Any]]
) -> Iterator[tuple[str, str]]:
    """(the flag as it is written, what it means), or those of the fields that it holds."""
    if name == "--run":
        yield from _field_rows(name, field.default_factory(), typed=False)
    elif name == "--sweep" and sweep:
        for swept, values in sweep.items():
            text = ",".join(map(text_of, values))
            value = shlex.quote(f"{swept}={text}")
            yield f"{name}={value}", "what its file asks for; --sweep= for none"
    elif field.type is bool:
        yield name + "=true" * field.default, field.metadata["help"]
    else:
        yield form(name), field.metadata["help"]


def _field_rows(room: str, config: Any, typed: bool) -> Iterator[tuple[str, str]]:
    """The rows of the fields of a dataclass, with their types or without."""
    for name in field_names(config, ""):
        holder, _, field = name.rpartition(".")
        meaning = meanings(type(get_field(config, holder))).get(field, "")
        kind = type_name(type_of(config, name)) if typed else ""
        value = shlex.quote(text_of(get_field(config, name)))
        yield f"{room}.{name}={value}", "; ".join(filter(None, (kind, meaning)))


def _show_rows(console: Console, rows: Rows, width: int = WIDEST) -> None:
    """Print two columns, or the second below the first where they are too narrow."""
    from rich.text import Text

    width = min(width, console.width)
    longest = max((len(name) for name, _ in rows), default=0)
    beside = longest if longest + 4 + BESIDE <= width else min(longest, MOST_BESIDE)
    indent = beside + 4 if beside + 4 + BESIDE <= width else 6
    for name, text in rows:
        lines = [line.plain.rstrip() for line in Text(text).wrap(console, width - indent)]
        line = Text(f"  {name}", "bold")
        if lines and line.cell_len + 2 <= indent:
            line.append(" " * (indent - line.cell_len) + lines.pop(0), "not bold")
        for part in (line, *(" " * indent + rest for rest in lines)):
            console.print(part, soft_wrap=True, markup=False, highlight=False)


def _show(console: Console, text: str, style: str = "") -> None:
    """Print a text as it is; its lines are folded on a terminal."""
    plain = {"style": style, "markup": False, "highlight": False, "emoji": False}
    if console.is_interactive:
        console.print(text, width=min(WIDEST, console.width), **plain)
    else:
        console.print(text, soft_wrap=True, **plain)
