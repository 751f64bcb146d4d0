"""The terminal's table shows every arm at every width."""

import io

import pytest
from rich.console import Console

from jaxtl.report.summary import summarize
from jaxtl.report.table import print_table


def printed(summary, width):
    file = io.StringIO()
    print_table(summary, Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_numbers_are_whole_at_any_width(result, width):
    summary = summarize(result)
    text = printed(summary, width)
    assert "…" not in text
    for name, arm in summary["arms"].items():
        assert name in text
        assert f"{arm['metrics']['target/accuracy']['mean']:.3f}" in text
        if "gain" in arm:
            low, high = arm["gain"]["target/accuracy"]["ci95"]
            assert f"[{low:.3f}, {high:.3f}]" in text
    assert "negative transfer" in text.replace("\n", " ")
    assert ("target/f1_macro" in text) == (width == 160)


def test_names_are_not_markup(make, result):
    arms = {"scratch": result.arms["scratch"], "[red]": result.arms["full"]}
    text = printed(summarize(make(arms=arms)), 160)
    assert text.count("[red]") == 3  # table, answer, sentence
