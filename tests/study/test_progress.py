"""What a run says while it trains: names as they are, on any console."""

import io

import numpy as np
import pytest
from rich.console import Console

from jaxtl.study.progress import Reporter


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", ["lora [r=8]", "[/]", "[bold red]", ":rocket:", "x" * 200])
def test_a_stage_is_called_by_its_name(name, terminal):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=300, color_system=None)
    with Reporter(console).stage(name, 2, ["[3] of 4 trained"]) as (show, _):
        show(1, {"loss": np.ones(2)})
        show(2, {"loss": np.zeros(2)})
    text = file.getvalue()
    assert f"stage {name}: 2 steps, loss 0, [3] of 4 trained (" in text
    assert text.count(name) >= 1 + terminal


def test_what_is_said_is_no_markup():
    file = io.StringIO()
    reporter = Reporter(Console(file=file, width=80))
    reporter.say(("warning: ", "yellow"), "[bold]a[/] :smile: [0.1, 0.2]")
    assert file.getvalue() == "warning: [bold]a[/] :smile: [0.1, 0.2]\n"
