"""The command line as one frozen dataclass; every flag and field is read by its type."""

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jaxtl.experiment_file import config_fields, find
from jaxtl.fields import parse
from jaxtl.files import user_path
from jaxtl.paths import unknown
from jaxtl.train.options import RunOptions

TRUE, FALSE = ("true", "t", "1"), ("false", "f", "0")
MOST_SEEDS = 10_000
OF_EXPORT = ("--format", "--arm", "--stage", "--seed")
OF_COMPARE = ("--against", "--despite")
OF_EXPERIMENT = ("--config.", "--sweep=")
NEVER_EMPTY = (
    *("--experiment", "--prepare", "--export", "--arm", "--stage", "--workdir", "--overwrite"),
    *("--compare", "--against", "--despite", "--collect"),
)


@dataclasses.dataclass(frozen=True)
class NoConfig:
    """As long as no experiment is imported."""


def flag(default: Any, meaning: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": meaning})


@dataclasses.dataclass(frozen=True)
class Launch:
    """What a command line asks for: `--<field>=<value>`, with dots for `config` and `run`."""

    experiment: str = flag("", "a file of experiments/, without .py; or a path")
    list: bool = flag(False, "show every experiment with its measured result")
    prepare: str = flag("", "prepare datasets (NAME or NAME,NAME), then stop")
    export: str = flag("", "write a model of this run to RUN_DIR/export, stop")
    format: str = flag("safetensors", "of --export: safetensors, or stablehlo")
    arm: str = flag("", "of --export: an arm; by default the best one")
    stage: str = flag("", "of --export: a stage; by default the arm's last")
    seed: int | None = flag(None, "of --export: a seed; by default the run's first")
    compare: str = flag("", "compare finished runs, RUN_DIR,RUN_DIR,..., with the first; stop")
    against: str = flag("", "of --compare: an arm of the first run; by default that of each name")
    despite: str = flag("", "of --compare: what may differ: evaluation, selection, steps, data")
    collect: str = flag("", "write the runs under this folder to experiments/results.json; stop")
    seeds: str = flag("5", "number of seeds, or a list such as 0,3,7")
    arms: str = flag("all", "names of arms, separated by commas")
    workdir: str = flag("runs", "the run goes to WORKDIR/EXPERIMENT")
    resume: bool = flag(True, "go on with what the directory holds")
    overwrite: str = flag("", "stages to train anew, with those after them; or all")
    sweep: tuple[str, ...] = flag((), "FIELD=V1,V2,...: run with each value; may be repeated")
    distributed: str = flag("off", "off, auto (a pod), or ADDRESS:PORT,COUNT,INDEX")
    oracle: bool = flag(False, "also show the best step by test labels; never used")
    verbose: bool = flag(False, "log what is decided on the way")
    help: bool = flag(False, "this text; with --experiment its fields")
    config: Any = NoConfig()
    run: RunOptions = dataclasses.field(default_factory=RunOptions)

    def __post_init__(self):
        for field in ("workdir", "export", "collect"):
            object.__setattr__(self, field, user_path(getattr(self, field)))

    @property
    def runs(self) -> bool:
        """Whether it asks for a run of an experiment, and nothing else."""
        others = self.list, self.prepare, self.export, self.compare, self.collect
        return bool(self.experiment) and not any(others)


SWITCHES = {f"--{field.name}" for field in dataclasses.fields(Launch) if field.type is bool}
TAKES_VALUE = {f"--{field.name}" for field in dataclasses.fields(Launch)} - SWITCHES


def read(argv: Sequence[str]) -> tuple[Launch, list[str]]:
    """(what is asked for, the arguments --config.*, which only the experiment can read).

    Raises:
        ValueError: what is no flag, has no value or a wrong one, stands twice, or goes with others.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise ValueError("the current directory is gone; change to one that exists") from error
    args = spell_out(argv[1:])
    config_args = [arg for arg in args if arg.startswith("--config.")]
    sweep = tuple(arg.removeprefix("--sweep=") for arg in args if arg.startswith("--sweep="))
    flags = [arg for arg in args if arg.startswith("-") and not arg.startswith(OF_EXPERIMENT)]
    launch = parse(Launch(sweep=sweep), "", flags, config_flags(args))
    for arg in args:
        name = arg.partition("=")[0]
        if not arg.startswith("-"):
            raise ValueError(f"unexpected argument {arg!r}; flags are written --name=value")
        if launch.export and name.startswith(("--config.", "--run.")):
            raise ValueError(f"{arg}: an export is of what the run was, without such flags")
        if not launch.experiment and name.startswith("--config."):
            raise ValueError(f"{arg} goes with --experiment=NAME")
        if launch.compare and name not in (*OF_COMPARE, "--compare", "--workdir", "--verbose"):
            raise ValueError(
                f"{name} does not go with --compare; of it are {', '.join(OF_COMPARE)}"
            )
        if launch.collect and name not in ("--collect", "--verbose"):
            raise ValueError(f"{name} does not go with --collect")
        if not launch.compare and name in OF_COMPARE:
            raise ValueError(f"{name} goes with --compare=RUN_DIR,RUN_DIR,...")
        if not launch.export and name in OF_EXPORT:
            hint = "; did you mean --seeds?" if name == "--seed" else ""
            raise ValueError(f"{name} goes with --export=RUN_DIR{hint}")
    return launch, config_args


def spell_out(words: Sequence[str]) -> list[str]:
    """`--name=value` in place of `--name value`, and of `--name` and `--noname` of a switch.

    Raises:
        ValueError: a switch that is neither true nor false, or a flag that needs a name has none.
    """
    args: list[str] = []
    for word in words:
        name, equals, text = word.partition("=")
        negated = f"--{name.removeprefix('--no')}"
        if args and args[-1] in TAKES_VALUE:
            args[-1] += f"={word}"
        elif negated in SWITCHES and not equals:
            args.append(f"{negated}=false")
        elif name in SWITCHES:
            if equals and text.lower() not in TRUE + FALSE:
                raise ValueError(f"{word}: expected true or false")
            args.append(f"{name}={text.lower() not in FALSE}")
        elif name in NEVER_EMPTY and equals and not text:
            raise ValueError(f"{name}= names nothing; write {name}=VALUE")
        else:
            args.append(word)
    return args


def config_flags(args: Sequence[str]) -> list[str]:
    """The flags --config.* of the experiment, as far as its file tells them without being run."""
    for arg in args:
        if arg.startswith("--experiment="):
            with contextlib.suppress(ValueError, RecursionError):
                return [f"--config.{name}" for name in config_fields(find(arg.partition("=")[2]))]
    return []


def parse_seeds(text: str) -> tuple[int, ...]:
    """`5` -> (0, 1, 2, 3, 4); `0,3,7` -> those.

    Raises:
        ValueError: not numbers, none, one twice, negative ones or some above 31 bits.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--seeds={text}: expected a number or a list such as 0,3,7") from None
    seeds = numbers if "," in text else range(min(numbers[0], MOST_SEEDS + 1))
    if len(seeds) > MOST_SEEDS:
        raise ValueError(f"--seeds={text}: at most {MOST_SEEDS:,} seeds train in one program")
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**31 or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"--seeds={text}: expected at least one seed, each in [0, 2**31) and named once"
        )
    return tuple(seeds)


def parse_arms(text: str, names: Collection[str]) -> tuple[str, ...]:
    """`all` -> (), which stands for all; `a, b` -> ("a", "b").

    Args:
        names: of the experiment's arms.

    Raises:
        ValueError: as `parse_names`.
    """
    return () if text == "all" else parse_names("--arms", "arm", text, names)


def parse_names(flag: str, kind: str, text: str, names: Collection[str]) -> tuple[str, ...]:
    """`a, b` -> ("a", "b"); a name may hold commas itself.

    Raises:
        ValueError: other names (with the closest), or one twice.
    """
    stripped = {name.strip(): name for name in names}
    parts, chosen = text.split(","), []
    while parts:
        joined = [",".join(parts[:count]).strip() for count in range(len(parts), 0, -1)]
        longest = next((text for text in joined if text in stripped), joined[-1])
        chosen.append(stripped.get(longest, longest))
        parts = parts[longest.count(",") + 1 :]
    problems = [unknown(kind, name, names) for name in chosen if name not in names]
    problems += [f"{flag} names {name!r} twice" for name, n in Counter(chosen).items() if n > 1]
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(chosen)


def parse_overwrite(text: str, arms: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """`all` -> ("all",); `a, b` -> ("a", "b").

    Args:
        arms: {name: its stages}.

    Raises:
        ValueError: as `parse_names`.
    """
    if text in ("", "all"):
        return (text,) if text else ()
    stages = dict.fromkeys(stage.name for chain in arms.values() for stage in chain)
    return parse_names("--overwrite", "stage", text, stages)
