"""report.html: one file, nothing loaded from elsewhere, to send to a colleague."""

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxtl.files import replacing
from jaxtl.report import wording
from jaxtl.report.figures import heatmaps
from jaxtl.report.summary import primary_metric

STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #5b6570; --line: #dfe3e8; --paper: #fff;
  --card: #f6f8fa; --positive: #00734f; --negative: #b34700; --undecided: #5b6570; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #a3adb8; --line: #3a424b;
  --paper: #15181c; --card: #1f242a; --positive: #3ecf9d; --negative: #ff9a57;
  --undecided: #a3adb8; } }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .2rem 0 .6rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
p, ul { margin: .5rem 0; } .soft, caption, figcaption { color: var(--soft); font-size: .88rem; }
.answer { font-size: 1.15rem; font-weight: 600; } ul.verdicts { list-style: none; padding: 0; }
ul.verdicts li { padding: .35rem .8rem; margin: .3rem 0; background: var(--card);
  border-left: 4px solid var(--line); border-radius: 0 4px 4px 0; }
li.positive { border-color: var(--positive) !important; }
li.negative { border-color: var(--negative) !important; }
li.undecided { border-left-style: dashed !important; border-color: var(--undecided) !important; }
b.positive { color: var(--positive); } b.negative { color: var(--negative); }
b.undecided, b.baseline { color: var(--undecided); font-weight: 500; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem;
  font-variant-numeric: tabular-nums; } caption { text-align: left; padding-bottom: .4rem; }
th, td { padding: .4rem .7rem .4rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; } thead th { color: var(--soft); font-weight: 600; }
td small { color: var(--soft); display: block; white-space: nowrap; }
figure { margin: 1rem 0; } img { display: block; max-width: 100%; background: #fff;
  border: 1px solid var(--line); border-radius: 4px; padding: .5rem; box-sizing: border-box; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--soft); }
code { font: .85rem ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
"""


def write_report(
    path: str | os.PathLike,
    summary: Mapping[str, Any],
    figures: Mapping[str, Sequence[Path]],
    environment: Mapping[str, Any],
    headline: str = "",
    failures: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes the page in one step.

    Args:
        path: of the HTML file.
        summary: content of summary.json.
        figures: {section: PNG files}, of `figures.draw.draw`; they are embedded.
        environment: nested dict of what the run ran on.
        headline: what the experiment asks, first line of its docstring.
        failures: {picture: why it could not be drawn}.
    """
    text = page(summary, figures, environment, headline, failures)
    with replacing(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")  # names may be no text


def page(
    summary: Mapping[str, Any],
    figures: Mapping[str, Sequence[Path]],
    environment: Mapping[str, Any],
    headline: str = "",
    failures: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The HTML of the report, the answer first and how it was measured last."""
    name, baseline = escape(summary["experiment"]), escape(summary["baseline"])
    pictures = {
        section: "".join(_picture(path, section) for path in paths)
        for section, paths in figures.items()
    }
    sections = [
        ("Arms", _arms(summary)),
        (f"Gain over {baseline}", pictures.get("gains")),
        ("Chosen without target labels", _picks(summary)),
        ("Learning curves", pictures.get("curves")),
        ("Classes", pictures.get("classes")),
        ("Confusion", pictures.get("confusion")),
        ("Adaptation", pictures.get("adversaries")),
        (
            "Source and target features",
            "".join(filter(None, [_domains(summary), pictures.get("features")])),
        ),
        ("Forgetting", _forgetting(summary)),
        ("After each stage", "".join(filter(None, [pictures.get("stages"), _stages(summary)]))),
        ("Sweep", "".join(filter(None, [pictures.get("sweep"), _sweep(summary)]))),
        ("Not drawn", _not_drawn(failures)),
        ("How it was run", _how(summary, environment)),
    ]
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in sections if content)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: did the transfer help?</title><style>{STYLE}</style></head><body>"
        f'<p class="soft">{name}{": " if headline else ""}{escape(headline)}</p>'
        f"<h1>Did the transfer help?</h1>{_verdicts(summary)}{body}</body></html>\n"
    )


def _verdicts(summary: Mapping[str, Any]) -> str:
    items = "".join(
        f'<li class="{arm["verdict"]}">{escape(sentence)}</li>'
        for arm, sentence in zip(
            wording.compared(summary).values(), wording.sentences(summary), strict=True
        )
    )
    answer = escape(wording.answer(summary))
    return f'<p class="answer">{answer}</p><ul class="verdicts">{items}</ul>'


def _arms(summary: Mapping[str, Any]) -> str:
    primary = summary["primary"]["metric"]
    others = wording.secondary(summary, 2)
    header = ["arm", primary, f"gain over {summary['baseline']}", "verdict", *others]
    rows = []
    for name, arm in summary["arms"].items():
        verdict = arm["verdict"] or "baseline"
        seconds, speed = arm["train_seconds"], arm["steps_per_second"]
        memory, digits = arm.get("step_memory_mb"), 0 if (speed or 0) >= 10 else 2
        rows.append(
            [
                f"<b>{escape(name)}</b>",
                _interval(arm["metrics"].get(primary)),
                _interval(arm.get("gain", {}).get(primary), signed=True),
                f'<b class="{verdict}">{verdict}</b>',
                *(_interval(arm["metrics"].get(metric)) for metric in others),
                f"{arm['trainable_parameters']:,}<small>of {arm['total_parameters']:,}</small>",
                (wording.NOTHING if seconds is None else f"{seconds:.1f} s")
                + ("" if speed is None else f"<small>{speed:,.{digits}f} steps/s</small>")
                + (f"<small>{memory:,.0f} MB</small>" if memory else ""),
            ]
        )
    table = _table([*map(escape, header), "trained parameters", "training"], rows)
    return f"{table}{_all_metrics(summary)}"


def _all_metrics(summary: Mapping[str, Any]) -> str:
    arms, arrows = summary["arms"], {"max": " ↑", "min": " ↓"}
    metrics = dict.fromkeys(metric for arm in arms.values() for metric in arm["metrics"])
    rows = []
    for metric in metrics:
        arrow = arrows.get(summary["directions"].get(metric), "")  # none where nobody says
        cells = (_interval(arm["metrics"].get(metric)) for arm in arms.values())
        rows.append([f"{escape(metric)}{arrow}", *cells])
    table = _table(["metric, better ↑ high or ↓ low", *map(escape, arms)], rows)
    return f"<details><summary>All metrics of all arms</summary>{table}</details>"


def _picks(summary: Mapping[str, Any]) -> str:
    rules, rows = wording.picks(summary)
    if not rows:
        return ""
    note = wording.PICKS.format(summary["primary"]["metric"])
    note += f". The arms above are measured at: {summary['selection']}."
    if wording.ORACLE in rules:
        note += " The oracle picks by the labels that it is measured on; it decides nothing."
    cells = [[f"<b>{escape(name)}</b>", *map(_interval, found)] for name, found in rows.items()]
    return _table(["arm", *map(escape, rules)], cells, escape(note))


def _forgetting(summary: Mapping[str, Any]) -> str:
    arms = {name: arm["forgetting"] for name, arm in summary["arms"].items() if "forgetting" in arm}
    metrics = dict.fromkeys(metric for forgetting in arms.values() for metric in forgetting)
    if not metrics:
        return ""
    rows = [
        [f"<b>{escape(name)}</b>", *(_interval(lost.get(m), signed=True) for m in metrics)]
        for name, lost in arms.items()
    ]
    note = "How much worse each is at the end than right after the first stage; above 0: lost"
    return _table(["arm", *map(escape, metrics)], rows, note)


def _stages(summary: Mapping[str, Any]) -> str:
    arms = {name: arm for name, arm in summary["arms"].items() if "by_stage" in arm}
    kind = escape(primary_metric(summary).name)
    changed = [
        [f"<b>{escape(name)}</b>", _interval(arm["backward_transfer"], signed=True)]
        for name, arm in arms.items()
        if "backward_transfer" in arm
    ]
    note = (
        "Mean over the former tasks of how much better each is at the end than right after it was "
        "trained; below 0: forgotten"
    )
    parts = [_table(["arm", f"backward transfer, {kind}"], changed, note)] if changed else []
    for name, arm in arms.items():
        stages, evaluations, _ = heatmaps.table(arm)
        metrics = dict.fromkeys(metric for row in arm["by_stage"].values() for metric in row)
        rows = [
            [escape(stage), *(_interval(arm["by_stage"][stage].get(m)) for m in metrics)]
            for stage in stages
        ]
        whole = _table(["after stage", *map(escape, evaluations)], rows)
        parts.append(f"<details><summary>{escape(name)}: {kind}</summary>{whole}</details>")
    return "".join(parts)


def _sweep(summary: Mapping[str, Any]) -> str:
    if "sweep" not in summary:
        return ""
    primary = summary["primary"]["metric"]

    def row(config: Mapping[str, Any], name: str, arm: Mapping[str, Any]) -> list[str]:
        verdict = arm["verdict"] or "baseline"
        gain = _interval(arm.get("gain", {}).get(primary), signed=True)
        value = _interval(arm["metrics"].get(primary))
        label = f'<b class="{verdict}">{verdict}</b>'
        return [escape(wording.point(config)), f"<b>{escape(name)}</b>", value, gain, label]

    gain = f"gain over {escape(summary['baseline'])}"
    header = ["point", "arm", escape(primary), gain, "verdict"]
    tuned = [row(arm["config"], name, arm) for name, arm in summary["tuned"].items()]
    rows = [row(p["config"], name, a) for p in summary["sweep"] for name, a in p["arms"].items()]
    picked = _table(header, tuned) if tuned else ""
    return (
        f'{_over_points(summary)}<p class="soft">{escape(wording.picking(summary))}</p>{picked}'
        f"<details><summary>All points</summary>{_table(header, rows)}</details>"
    )


def _over_points(summary: Mapping[str, Any]) -> str:
    if "over_points" not in summary:
        return ""
    primary, points = summary["primary"]["metric"], summary["sweep"]
    rows = []
    for name, arm in summary["over_points"].items():
        value, verdict = arm["metrics"][primary], arm["verdict"] or wording.NOTHING
        gain = _interval(arm.get("gain", {}).get(primary), signed=True)
        cells = map(wording.number, value["per_point"])
        label = f'<b class="{verdict}">{verdict}</b>'
        rows.append([f"<b>{escape(name)}</b>", _interval(value), gain, label, *cells])
    names = [escape("/".join(point["config"].values())) for point in points]
    header = ["arm", "mean", f"gain over {escape(summary['baseline'])}", "verdict", *names]
    return _table(header, rows, escape(wording.over_points(summary)))


def _domains(summary: Mapping[str, Any]) -> str:
    arms = {name: arm["domain_gap"] for name, arm in summary["arms"].items() if "domain_gap" in arm}
    metrics = dict.fromkeys(metric for gap in arms.values() for metric in gap)
    if not metrics:
        return ""
    rows = [
        [f"<b>{escape(name)}</b>", *(_interval(gap.get(metric)) for metric in metrics)]
        for name, gap in arms.items()
    ]
    note = (
        f"Distances in the features at the end of each arm between that evaluation's examples and "
        f"those of {primary_metric(summary).evaluation}: the proxy A-distance of a "
        f"linear domain classifier (0: cannot tell, 2: always can) and the squared MMD. Before "
        f"adaptation: {summary['baseline']}."
    )
    return _table(["arm", *map(escape, metrics)], rows, escape(note))


def _not_drawn(failures: Mapping[str, str]) -> str:
    if not failures:
        return ""
    rows = [[escape(picture), f"<code>{escape(why)}</code>"] for picture, why in failures.items()]
    return _table(["picture", "why there is none"], rows)


def _how(summary: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, summary["seeds"]))
    note = (
        "Intervals are 95% Student-t intervals over seeds. A seed draws its own labels, order and "
        "initialisation, the same for every arm, so gains are paired by seed. The verdict is the "
        "side of 0 on which the whole interval of the gain lies, undecided below three distinct "
        "gains. Intervals are not corrected for the number of arms."
    )
    run = {"seeds": seeds, "selection": summary["selection"], "config": summary["config"]}
    return f'<p class="soft">{note}</p>{_table(["what", "value"], _facts({**run, **environment}))}'


def _facts(tree: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    rows = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows += _facts(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append([escape(f"{prefix}{key}"), f"<code>{escape(text)}</code>"])
    return rows


def _interval(statistics: Mapping[str, Any] | None, signed: bool = False) -> str:
    mean, _, ends = wording.interval(statistics, signed).partition(" ")
    return f"{mean}<small>{ends}</small>" if ends else mean


def _table(header: Iterable[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Cells are HTML."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    title = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _picture(path: Path, section: str) -> str:
    png = Path(path).read_bytes()
    width = int.from_bytes(png[16:20]) * 2 // 3  # 150 dpi at 100 px an inch: one type size for all
    data = base64.b64encode(png).decode("ascii")
    alt = escape(f"{section}: {Path(path).stem}")
    return f'<figure><img width="{width}" alt="{alt}" src="data:image/png;base64,{data}"></figure>'
