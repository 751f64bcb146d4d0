"""A command line as a value."""

import pytest

from jaxtl.arguments import Launch, NoConfig, read
from jaxtl.train.options import RunOptions


@pytest.mark.parametrize(
    "text",
    [
        "--experiment=digits --seeds=3 --resume=false --run.log_every=7 --sweep=a=1,2 --sweep=b=x",
        "--experiment digits --seeds 3 --noresume --run.log_every=7 --sweep a=1,2 --sweep=b=x",
        "--sweep=a=1,2 --resume=0 --run.log_every=7 --sweep b=x --seeds=3 --experiment=digits",
    ],
)
def test_a_command_line_is_one_value_however_it_is_spelled(text):
    launch, config_args = read(["launch.py", *text.split(), "--config.rate=1e-3"])
    assert launch == Launch(
        experiment="digits",
        seeds="3",
        resume=False,
        sweep=("a=1,2", "b=x"),
        run=RunOptions(log_every=7),
    )
    assert config_args == ["--config.rate=1e-3"]


def test_nothing_is_asked_for_by_default(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert read(["launch.py"]) == (Launch(), []) and Launch().config == NoConfig()
    launch, _ = read(["launch.py", "--export=~/runs/a", "--seed=3", "--arm=None"])
    assert (launch.export, launch.seed, launch.arm) == ("/home/me/runs/a", 3, "None")
    assert read(["launch.py", "--experiment=x", "--sweep="])[0].sweep == ("",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("--seeds", "--seeds: write --seeds=VALUE"),
        ("--sweep", "--sweep: write --sweep=VALUE"),
        ("--seeds 5 6", "unexpected argument '6'; flags are written --name=value"),
        ("-seeds=5", "unknown flag '-seeds'. Did you mean '--seeds'?"),
        ("--sedes 5", "unknown flag '--sedes'. Did you mean '--seeds'?"),
        ("--noresume=true", "unknown flag '--noresume'. Did you mean '--resume'?"),
        ("--run=3", "unknown flag '--run'."),
        ("--seeds=1 --seeds=2 --seeds=3", "--seeds stands 3 times; give it once"),
        ("--verbose=2", "--verbose=2: expected true or false"),
        ("--export=run --seed=x", "--seed=x: expected int | None, as in None"),
        ("--config.rate=1", "--config.rate=1 goes with --experiment=NAME"),
    ],
)
def test_what_is_no_command_line_is_one_line(text, problem):
    with pytest.raises(ValueError) as error:
        read(["launch.py", *text.split()])
    assert str(error.value).startswith(problem) and "\n" not in str(error.value)
