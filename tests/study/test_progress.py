"""What a run says while it trains: names as they are, on any console."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from jaxtl.study.progress import Course, Reporter, duration

SPINNING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@pytest.fixture(autouse=True)
def a_terminal_that_can(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")


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


def test_lines_of_a_pipe_are_not_folded():
    file = io.StringIO()
    reporter = Reporter(Console(file=file, width=40))
    with reporter.stage("full", 2, ["a note that is longer than the line"]):
        pass
    assert file.getvalue().count("\n") == 1
    assert not SPINNING.search(file.getvalue())


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("name", ["full", "full at learning_rate=0.001,0.01,0.1", "語" * 30])
def test_a_bar_is_one_line_that_fits(name, width):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    reporter = Reporter(console)
    reporter.course.expect({name: 10**6, "other": 10**6})
    with reporter.stage(name, 10**6) as (show, _):
        show(10, {"loss": np.ones(2)})
        show(40_000, {"loss": np.float32([1e-5 / 3, 0])})
    drawn = [line for line in SPINNING.split(file.getvalue()) if "1/2" in line]
    assert drawn and all(console.measure(line).maximum <= width for line in drawn)


# The time that is left.


@pytest.fixture
def course():
    """A course whose clock is set: `course.at(seconds)`."""
    now = [0.0]
    course = Course(clock=lambda: now[0])
    course.at = lambda seconds: now.__setitem__(0, seconds) or course
    return course


def test_what_is_left_is_told_by_what_took_how_long(course):
    course.expect({"a": 100, "b": 100, "read": None, "c": 400})
    assert course.left() is None
    course.begin("a", 100)
    assert course.at(3).left() is None  # nothing tells how long it compiles
    course.at(5).report(20)
    course.at(7).report(40)  # a second for ten units, five seconds to begin with
    assert course.left() == pytest.approx((6, 6 + 15 + 45))
    assert course.at(9).left() == pytest.approx((4, 4 + 15 + 45))
    assert course.at(99).left() == pytest.approx((0, 15 + 45))  # a report is late
    course.at(13).report(100)
    course.at(14).end(worked=True)
    assert course.left() == pytest.approx((0, 15 + 45), rel=0.1)
    course.begin("b", 100)
    assert course.left()[0] == pytest.approx(15)
    assert course.at(16).left()[0] == pytest.approx(13)
    course.at(17).report(50)
    course.at(37).report(100)  # four times as slow: the mean of both pays for what is left
    course.end(worked=True)
    course.begin("read", 100)
    course.resume(100)
    assert course.at(39).left() == pytest.approx((0, 3 + 400 * 28 / 130))
    course.end(worked=False)
    course.begin("c", 400)
    course.resume(300)
    assert course.left()[0] == pytest.approx(3 + 100 * 28 / 130)
    assert (course.number, course.total) == (4, 4)


def test_stages_of_a_single_report_are_counted_by_their_length(course):
    course.expect({"a": 10, "b": 10, "c": 0})
    course.begin("a", 10)
    course.at(4).report(10)
    assert course.left() is None
    course.at(4).end(worked=True)
    assert course.left() == (0, 8)


def test_a_line_says_which_stage_it_was_and_how_long_the_others_take():
    file = io.StringIO()
    reporter = Reporter(Console(file=file, width=80))
    reporter.course.expect({"a": 1, "b": 10**9})
    for name in ("a", "b"):
        with reporter.stage(name, 2) as (show, _):
            show(1, {})
            show(2, {})
    lines = file.getvalue().splitlines()
    assert re.fullmatch(r"stage a: 2 steps \(0\.\d s; stage 1 of 2, about \d.* left\)", lines[0])
    assert re.fullmatch(r"stage b: 2 steps \(0\.\d s; stage 2 of 2\)", lines[1])


def test_durations():
    seconds = (0.4, 8, 59.4, 59.6, 130, 599, 24.9 * 60, 3600, 12_000)
    assert [duration(each) for each in seconds] == [
        *("0 s", "8 s", "59 s", "1 min", "2 min 10 s", "10 min", "25 min", "1 h"),
        "3 h 20 min",
    ]
