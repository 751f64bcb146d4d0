"""The terminal's table shows every arm at every width."""

import io

import numpy as np
import pytest
from rich.console import Console

from jaxtl.plan import Table
from jaxtl.report.panels import written
from jaxtl.report.summary import summarize
from jaxtl.report.terminal import print_table


def printed(summary, width):
    file = io.StringIO()
    print_table(summary, Console(file=file, width=width))
    return file.getvalue()


LONG = "LoRA [r=8] on every query and value projection of the encoder, with warm restarts"


@pytest.mark.parametrize("width", [20, 40, 60, 72, 80, 100, 160])
def test_numbers_are_whole_at_any_width(result, width):
    summary = summarize(result)
    text = printed(summary, width)
    assert "…" not in text
    for name, arm in summary["arms"].items():
        assert name in text
        assert f"{arm['metrics']['target/accuracy']['mean']:.3f}" in text
        if "gain" in arm:
            gain = arm["gain"]["target/accuracy"]
            low, high = gain["ci95"]
            assert f"{gain['mean']:+.3f}" in text
            whole = text if width > 30 else " ".join(text.split())
            assert f"[{low:.3f}, {high:.3f}]" in whole
    assert "negative transfer" in " ".join(text.split())
    assert ("target/f1_macro" in text) == (width == 160 or width < 60)
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("name", [LONG, "x" * 90, "ein Arm, 腕 🙂, [bold]"])
def test_a_name_of_any_length_hides_no_gain(make, result, name, width):
    arms = {"scratch": result.arms["scratch"], name: result.arms["full"]}
    summary = summarize(make(arms=arms))
    text = printed(summary, width)
    low, high = summary["arms"][name]["gain"]["target/accuracy"]["ci95"]
    assert f"[{low:.3f}, {high:.3f}]" in text and "…" not in text
    assert "".join(text.split()).count(name.replace(" ", "")) >= 2


@pytest.mark.parametrize("width", [40, 60, 160])
def test_names_are_shown_letter_by_letter(make, result, width):
    names = ["[red]", "[/]", ":rocket:", "[link=x]", "a\tb\x1b[31m"]
    arms = {"[r=8]": result.arms["scratch"]} | dict.fromkeys(names, result.arms["full"])
    summary = summarize(make(arms=arms, baseline="[r=8]", experiment="[b]c"))
    text = printed(summary, width)
    for name in ("[r=8]", "[red]", "[/]", ":rocket:", "[link=x]", "\\x1b[31m"):
        assert text.count(name) >= 3, name  # table, answer, sentence
    assert "gain over [r=8]" in text and text.startswith("[b]c: ") and "\x1b" not in text


def test_picks_fit_forty_columns(swept):
    picks = dict.fromkeys(map("[x] rule {}".format, range(8)), np.full(5, 0.5))
    summary = summarize(swept)
    table = Table("Picks", "", rows=dict.fromkeys(summary["arms"], picks), printed=True)
    summary["panels"] = {"picks": written(table, None)}
    text = printed(summary, 40)
    assert text.count("[x] rule 7: 0.500") == len(summary["arms"]) and "…" not in text
