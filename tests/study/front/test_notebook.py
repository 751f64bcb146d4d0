"""What a notebook shows while a run goes on, and where nothing is shown."""

import logging
import sys

import numpy as np
import pytest

from jaxtl.study.front.notebook import NotebookReporter, SilentReporter, in_notebook


@pytest.fixture
def drawn(monkeypatch):
    """The pages that a notebook is given, in order."""
    display = pytest.importorskip("IPython.display")
    pages = []

    class Handle:
        def update(self, shown):
            pages.append(shown._repr_html_())

    def show(shown, display_id):
        assert display_id
        Handle().update(shown)
        return Handle()

    monkeypatch.setattr(display, "display", show)
    return pages


def test_one_output_is_drawn_again_as_a_stage_goes_on(drawn):
    reporter = NotebookReporter()
    reporter.course.expect({"a <b>": 4, "other": 4})
    with reporter.busy("checking"):
        assert "checking ..." in drawn[-1]
    with reporter.stage("a <b>", 4, ["3 of 4 trained"]) as (show, restored):
        assert "1/2 <b>a &lt;b&gt;</b> <progress value='0' max='4'" in drawn[-1]
        assert "compiling" in drawn[-1]
        count = len(drawn)
        for step in range(1, 4):
            show(step, {"loss": np.ones(2)})
        assert len(drawn) == count  # not each step
        restored(2)
    assert "goes on from step 2" in drawn[-1] and "<progress" not in drawn[-1]
    assert "stage <b>a &lt;b&gt;</b>: went on from step 2, 4 steps, loss 1, 3 of 4" in drawn[-1]
    assert repr(reporter).startswith("stage a <b> goes on from step 2\nstage a <b>: went on")


def test_a_stage_that_stops_leaves_no_bar(drawn):
    reporter = NotebookReporter()
    with pytest.raises(KeyboardInterrupt), reporter.stage("a", 4):
        raise KeyboardInterrupt
    assert "<progress" not in drawn[-1]


def test_silence_but_for_warnings(capsys, caplog):
    reporter = SilentReporter()
    with caplog.at_level(logging.WARNING), reporter.busy("checking"):
        with reporter.stage("a", 2) as (show, _):
            show(1, {"loss": np.ones(2)})
        reporter.say(("warning: ", "yellow"), "[bold] no ", ("name", "bold"))
    assert capsys.readouterr().out == ""
    assert [record.getMessage() for record in caplog.records] == ["[bold] no name"]


def test_a_terminal_is_no_notebook(monkeypatch):
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
