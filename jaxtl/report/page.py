"""report.html: one file, nothing loaded from elsewhere, to send to a colleague."""

import base64
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from jaxtl.plan.panel import Panel, Table, Texts
from jaxtl.report import sweeps, tables, wording
from jaxtl.report.figures.draw import Drawing

STYLE = Path(__file__).with_name("page.css")
NOTE = (
    "Intervals are 95% Student-t intervals over seeds. A seed draws its own labels, order and "
    "initialisation, the same for every arm, so gains are paired by seed. The verdict is the "
    "side of 0 on which the whole interval of the gain lies, undecided below three distinct "
    "gains. Intervals are not corrected for the number of arms. The number of seeds that would "
    "decide is that whose interval leaves out 0, if mean and deviation stay as they are."
)

STRONGER = ".jaxtl.jaxtl.jaxtl"
"""Named three times, it wins against what notebooks say of tables."""
IN_NOTEBOOK = """
& {
  --ink: currentColor; --soft: color-mix(in srgb, currentColor 70%, transparent);
  --line: color-mix(in srgb, currentColor 20%, transparent);
  --card: color-mix(in srgb, currentColor 6%, transparent);
  --positive: color-mix(in srgb, currentColor 30%, #00a878);
  --negative: color-mix(in srgb, currentColor 30%, #e8590c); --undecided: var(--soft);
  color-scheme: inherit; background: none; margin: 0; padding: 0; font-size: 14px;
}
& table { table-layout: auto; }
& tr, & td, & th { background: none; text-align: left; }
& ul.verdicts { margin-left: 0; }
"""
"""Over the style of the page: colours made of the theme's own, nothing of a page's margins."""


def page(
    summary: Mapping[str, Any],
    panels: Mapping[str, Panel],
    drawing: Drawing,
    environment: Mapping[str, Any],
    headline: str = "",
) -> str:
    """The HTML of the report, the answer first and how it was measured last.

    Args:
        summary: content of summary.json.
        panels: {name: panel}, in the order of the page.
        drawing: of `figures.draw.draw`; its pictures are embedded, its failures named.
        environment: nested dict of what the run ran on.
        headline: what the experiment asks, first line of its docstring.
    """
    name = escape(summary["experiment"])
    pictures = {key: picture(Path(path).read_bytes(), key) for key, path in drawing.figures.items()}
    sections = [
        section(
            "Arms", html_table(tables.of_arms(summary)) + html_table(tables.of_metrics(summary))
        ),
        section(f"Gain over {summary['baseline']}", pictures.get("gains", "")),
        *(_panel(panel, pictures.get(key, "")) for key, panel in panels.items()),
        section("Sweep", _sweep(summary, pictures)),
        section("Not drawn", _not_drawn(drawing.failures)),
        section("How it was run", _how(summary, environment)),
    ]
    body = (
        f'<p class="soft">{name}{": " if headline else ""}{escape(headline)}</p>'
        f"<h1>Did the transfer help?</h1>{_verdicts(summary, environment)}{''.join(sections)}"
    )
    return document(f"{name}: did the transfer help?", body)


def document(title: str, body: str) -> str:
    """A whole page in the look of the house, of a title and a body that are HTML."""
    text = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>"
        f"<style>{STYLE.read_text(encoding='utf-8')}</style></head><body>{body}</body></html>\n"
    )
    return text.encode("utf-8", "replace").decode()  # names may be no text


def fragment(
    summary: Mapping[str, Any],
    figures: Mapping[str, Path],
    environment: Mapping[str, Any],
    report: Path,
) -> str:
    """What a notebook shows of a run: the answer, the arms and their gains; the rest to click on.

    Its colours are those of the notebook's theme.

    Args:
        summary: content of summary.json.
        figures: {name: PNG}, those that are there.
        environment: what the run ran on.
        report: the page, which is named.
    """
    pictures = {key: picture(path.read_bytes(), key) for key, path in figures.items()}
    panels = [
        f'<h2>{escape(panel["title"])}</h2><p class="soft">{escape(panel["note"])}</p>{image}'
        for key, panel in summary.get("panels", {}).items()
        if not panel["folded"] and (image := pictures.get(key, ""))
    ]
    more = html_table(tables.of_metrics(summary))
    if panels:
        more += folded(f"{len(panels)} more figures", "".join(panels))
    return in_notebook(
        f'<p class="soft">{escape(summary["experiment"])}: did the transfer help?</p>'
        f"{_verdicts(summary, environment)}{html_table(tables.of_arms(summary))}"
        f"{pictures.get('gains', '')}{section('Sweep', _sweep(summary, pictures))}{more}"
        f'<p class="soft">report: <code>{escape(str(report))}</code></p>'
    )


def in_notebook(body: str) -> str:
    """HTML in the look of the house, in the colours of a notebook's theme."""
    style = STYLE.read_text(encoding="utf-8").replace(":root", "&").replace("body {", "& {")
    text = f'<div class="jaxtl"><style>{STRONGER} {{ {style} {IN_NOTEBOOK} }}</style>{body}</div>'
    return text.encode("utf-8", "replace").decode()


def section(title: str, content: str) -> str:
    """A titled part of the page, nothing where it has no content."""
    return f"<h2>{escape(title)}</h2>{content}" if content else ""


def _verdicts(summary: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    items = "".join(
        f'<li class="{arm["verdict"]}">{escape(sentence)}</li>'
        for arm, sentence in zip(
            wording.compared(summary).values(), wording.sentences(summary), strict=True
        )
    )
    config = sweeps.as_it_is(summary)
    place = f"At {wording.point(config)}: " if config else ""
    answer = escape(place + wording.answer(summary))
    more = ""
    if count := wording.wanted_seeds(summary):
        launch = str(environment.get("command", ""))
        command = wording.command_with_seeds(launch, summary["arms"], summary["seeds"], count)
        more = f'<p class="soft">{wording.adding(count)}: <code>{escape(command)}</code></p>'
    others = "".join(f'<p class="answer">{escape(line)}</p>' for line in sweeps.answers(summary))
    return f'<p class="answer">{answer}</p><ul class="verdicts">{items}</ul>{more}{others}'


def _panel(panel: Panel, picture: str) -> str:
    """Its title, its note and what it shows; nothing where its picture could not be drawn."""
    content = picture
    if isinstance(panel, Table):
        content = html_table(tables.of_panel(panel))
    elif isinstance(panel, Texts):
        content = _texts(panel)
    if not content:
        return ""
    content = f'<p class="soft">{escape(panel.note)}</p>{content}'
    return folded(panel.title, content) if panel.folded else section(panel.title, content)


def _texts(panel: Texts) -> str:
    """Each passage with its words shaded: for in the one colour, against in the other."""
    passages = "".join(
        f"<dt>{escape(name)}</dt><dd>{''.join(_shaded(*piece) for piece in pieces)}</dd>"
        for name, pieces in panel.texts.items()
    )
    return f'<dl class="texts">{passages}</dl>'


def _shaded(piece: str, value: float) -> str:
    side, strength = "for" if value > 0 else "against", min(1.0, abs(value))
    return (
        f'<mark class="{side}" style="--strength: {strength:.0%}" title="{value:+.2f}">'
        f"{escape(piece)}</mark>"
    )


def _sweep(summary: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    if not summary.get("sweep"):
        return ""
    over = html_table(tables.over_points(summary)) if "over_points" in summary else ""
    parts = [over, html_table(tables.of_picked_points(summary))]
    if "held_out" in summary:
        parts = [html_table(table) for table in tables.of_held_out(summary)]
    for points in sweeps.points_of(summary):
        parts += [pictures.get(name, "") for name in (points.name, f"{points.name}_gain")]
        parts.append(html_table(tables.of_points(summary, points)))
    return "".join(parts) + html_table(tables.of_points_and_arms(summary))


def _not_drawn(failures: Mapping[str, str]) -> str:
    return (
        html_table(tables.of_facts(failures, ("picture", "why there is none"))) if failures else ""
    )


def _how(summary: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    run = {key: summary[key] for key in ("seeds", "selection", "config")}
    facts = tables.of_facts({**run, **environment}, ("what", "value"))
    return f'<p class="soft">{NOTE}</p>{html_table(facts)}'


def html_table(table: tables.TextTable) -> str:
    """A table with its caption."""
    # The caption is none of the table: it stays where wide rows are scrolled.
    text = f'<p class="soft">{escape(table.caption)}</p>' if table.caption else ""
    if table.rows:
        head = _cells("th", map(escape, table.head))
        rows = "".join(f"<tr>{_cells('td', map(_cell, row))}</tr>" for row in table.rows)
        text += (
            f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
    return folded(table.folded, text) if table.folded else text


def _cells(tag: str, contents: Iterable[str]) -> str:
    return "".join(f"<{tag}>{content}</{tag}>" for content in contents)


def _cell(cell: tables.Cell) -> str:
    text = escape(cell.text)
    if cell.look == "code":
        text = f"<code>{text}</code>"
    elif cell.look:
        text = f'<b class="{cell.look}">{text}</b>'
    return text + "".join(f"<small>{escape(detail)}</small>" for detail in cell.details)


def folded(line: str, content: str) -> str:
    """What stands behind a line to click on."""
    return f"<details><summary>{escape(line)}</summary>{content}</details>"


def picture(png: bytes, name: str) -> str:
    """A PNG as part of the page."""
    width = int.from_bytes(png[16:20]) * 2 // 3  # 150 dpi at 100 px an inch: one type size for all
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img width="{width}" alt="{escape(name)}" src="data:image/png;base64,{data}">'
        "</figure>"
    )
