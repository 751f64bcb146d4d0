"""What the command line says of itself, on any terminal."""

import dataclasses
import enum
import io
import shlex
from typing import Literal

import pytest
from rich.console import Console

from jaxtl import cli, usage
from jaxtl.arguments import FLAGS, join_values, read, spell_out
from jaxtl.fields import field_names, from_json, json_values, meanings, parse
from jaxtl.train.options import RunOptions

FILE = '''\
"""Is it told?

    python launch.py --experiment=told

Result: %d
of two lines.
"""
import dataclasses
import enum
import typing

class Colour(enum.Enum):
    red = 1

@dataclasses.dataclass(frozen=True)
class Inner:
    """Of the optimizer.

    Attributes:
        rate: of learning,
            in [0, 1].
    """
    rate: float = 0.1

@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 330  # 30 epochs
    # what moves,
    # and how
    shift: typing.Literal["turned", "inverted"] = "turned"
    sizes: tuple[int, ...] = (4, 4)
    """[bold]widths[/] of layers"""
    colour: Colour = Colour.red
    bare: bool = False
    inner: Inner = Inner()

SWEEP = {"steps": (1, 2)}
def build(config): pass
'''


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """Runs a command on a terminal or into a pipe; its lines."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "told.py").write_text(FILE)
    (tmp_path / "experiments" / "long.py").write_text(f'"""{"a long question " * 20}"""')
    (tmp_path / "experiments" / "broken.py").write_text("def build(:\n")
    (tmp_path / "experiments" / "silent.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")

    def run(*args, width=80, terminal=True):
        file = io.StringIO()
        console = Console(
            file=file, force_terminal=terminal, width=width, color_system=None, force_jupyter=False
        )
        monkeypatch.setattr(usage, "terminal", lambda: console)
        assert cli.main(["launch.py", *args]) == 0
        return file.getvalue().split("\n")

    return run


def row(lines, start):
    """What stands from a flag to the next one."""
    first = next(i for i, line in enumerate(lines) if line.startswith(f"  {start}"))
    after = [i for i, line in enumerate(lines) if i > first and line[:3] != "   "]
    return " ".join(" ".join(lines[first : after[0]]).split())


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_help_says_something_of_every_flag(shown, width):
    lines = shown("--help", width=width)
    assert all(len(line) <= width for line in lines)
    told = [name for name in FLAGS if name not in ("--config", "--run")]
    told += [f"--run.{name}" for name in field_names(RunOptions(), "")]
    for name in [*told, "--config.FIELD"]:
        assert len(row(lines, name).split()) > 3, name
    titles = [line for line in lines if line[:1].isupper() and "," not in line]
    assert {"What to run", "Other commands"} <= set(titles)
    assert lines.index("Other commands") < next(
        i for i, line in enumerate(lines) if line.startswith("  --export=RUN_DIR")
    )


def test_what_help_shows_can_be_typed(shown):
    text = row(shown("--experiment=told", "--help", width=200), "--config.sizes")
    flag = shlex.split(text)[0]
    assert flag == "--config.sizes=(4, 4)"
    for line in shown("--help", width=200):
        word = line.split()[0] if line.startswith("  --") else ""
        if word and word.partition("=")[2] not in ("", word.partition("=")[2].upper()):
            spell_out(join_values(shlex.split(word)))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_help_on_an_experiment(shown, width):
    lines = shown("--experiment=told", "--help", width=width)
    assert "Is it told?" in lines and all(len(line) <= width for line in lines)
    expected = {
        "--config.steps": "=330 int; 30 epochs",
        "--config.shift": "=turned turned or inverted; what moves, and how",
        "--config.sizes": "='(4, 4)' tuple[int, ...]; [bold]widths[/] of layers",
        "--config.colour": "=red red",
        "--config.bare": "=false bool",
        "--config.inner.rate": "=0.1 float; of learning, in [0, 1].",
        "--sweep": "=steps=1,2 what its file asks for; --sweep= for none",
        "--run.eval_batch": "=0 examples per batch of an evaluation; 0: chosen from the "
        "model and the device",
    }
    for name, text in expected.items():
        assert row(lines, name) == f"{name}{text}"
    assert not any(line.startswith(("  --export", "  --config.FIELD")) for line in lines)


def test_experiments_are_a_line_each(shown):
    lines = shown("--list")
    assert lines[1] == f"  long    {'a long question ' * 4}a ..."
    assert lines[3] == "  told    Is it told?" and "experiments/broken.py, line 1" in lines[0]
    assert lines[2] == "  silent  (it does not say what it compares)"
    narrow = shown("--list", width=40)
    assert narrow[narrow.index("  told") + 1] == "      Is it told?"
    assert max(map(len, narrow)) <= 40
    piped = shown("--list", terminal=False)
    assert [line.split()[0] for line in piped[:-1]] == ["broken", "long", "silent", "told"]
    assert piped[1].count("a long question") == 20


def test_all_about_one(shown):
    lines = shown("--list=told")
    assert lines[:4] == ["experiments/told.py", "", "Is it told?", ""]
    assert "    python launch.py --experiment=told" in lines and "Result: %d of two lines." in lines
    assert shown("--list", "experiments/told.py") == lines == shown("--list", "told")
    assert "Result: %d" in shown("--list=told", terminal=False)


# Fields.


class Number(enum.IntEnum):
    two = 2


class Word(enum.StrEnum):
    a = "first"


@dataclasses.dataclass(frozen=True)
class Choices:
    number: Number = Number.two
    word: Word = Word.a
    kind: Literal["sgd", "adam"] = "sgd"


def test_choices_come_back_from_json_and_are_named_when_wrong():
    assert from_json(Choices(), json_values(Choices())) == (Choices(), [])
    with pytest.raises(ValueError) as error:
        parse(Choices(), "config", ["--config.kind=sgdd", "--config.word=b"])
    assert str(error.value).splitlines() == [
        "--config.kind=sgdd: expected sgd or adam, as in 'sgd'",
        "--config.word=b: expected a, as in a",
    ]


def test_fields_that_nobody_wrote_are_without_meaning():
    assert meanings(dataclasses.make_dataclass("Made", [("x", int, 3)])) == {}
    assert meanings(Choices) == {}


# What a newcomer types.


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["digits"], "unexpected argument 'digits'; flags are written --name=value"),
        (["told"], "; did you mean --experiment=told?"),
        (["experiments/told.py"], "; did you mean --experiment=experiments/told.py?"),
        (["seeds=3"], "; did you mean --seeds=3?"),
        (["config.steps=3"], "; did you mean --config.steps=3?"),
        (["x=3"], "flags are written --name=value"),
        (["--"], "unexpected argument '--'"),
        ([""], "unexpected argument ''"),
        (["\u2014seeds=3"], "begins with a dash, not with hyphens; write --seeds=3"),
        (["\u2013-seeds", "3"], "write --seeds"),
        (["--list="], "--list= names nothing; write --list[=NAME]"),
        (["--list=told", "--list=told"], "--list stands 2 times"),
        (["--list", "--seeds=3"], "--seeds goes with --experiment=NAME"),
        (["--seeds", "3"], "--seeds goes with --experiment=NAME"),
        (["--list", "--experiment=told"], "--experiment and --list are 2 commands; give one of"),
        (["--export=x", "--prepare=y"], "--prepare and --export are 2 commands"),
        (["--prepare=x", "--run.mesh=data=1"], "--run.mesh goes with --experiment=NAME"),
        (["--help=told"], "expected true or false; did you mean --experiment=told --help?"),
        (["--experiment=told", "--seeds", "--arms=a"], "--seeds: write --seeds=VALUE"),
        (["--experiment=told", "--resume", "maybe"], "unexpected argument 'maybe'"),
        (["--experiment=told", "--run.tensorboard", "maybe"], "--run.tensorboard=maybe: expected"),
    ],
)
def test_slips_are_answered(shown, words, problem):
    with pytest.raises(ValueError) as error:
        read(["launch.py", *words])
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_spellings_that_mean_the_same(shown):
    words = ["--experiment=told", "--resume=false", "--run.feature_cache=true", "--seeds=-2"]
    expected = read(["launch.py", *words])
    for others in (
        ["--experiment", "told", "--no-resume", "--run.feature_cache", "--seeds", "-2"],
        ["--experiment=told", "--resume", "false", "--seeds=-2", "--run.feature_cache", "true"],
    ):
        assert read(["launch.py", *others]) == expected
    assert read(["launch.py", "-h"]) == read(["launch.py", "--help"])
    assert read(["launch.py", "--prepare=x", "--run.data_dir=y"])[0].run.data_dir == "y"
