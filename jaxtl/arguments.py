"""The command line as one frozen dataclass; every flag and field is read by its type."""

import contextlib
import dataclasses
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jaxtl.experiment_file import config_fields, find
from jaxtl.fields import parse, text_of
from jaxtl.files import user_path
from jaxtl.paths import unknown
from jaxtl.train.options import RunOptions

TRUE, FALSE = ("true", "t", "1"), ("false", "f", "0")
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d"
"""What text processors make of a hyphen."""
MOST_SEEDS = 10_000
EVERY = "*"
"""What a bare `--list` lists."""
RUN, PLACE, COMMANDS, MACHINE = (
    "What to run",
    "Where it goes, and going on",
    "Other commands",
    "How to run: nothing here changes what an experiment means",
)
"""Titles in --help, in the order of the fields below."""


@dataclasses.dataclass(frozen=True)
class NoConfig:
    """As long as no experiment is imported."""


def flag(default: Any, meaning: str, group: str, value: str = "", of: str = "experiment") -> Any:
    """A flag, with all that --help and the checks need to know of it.

    Args:
        meaning: what --help says of it.
        group: the title that it stands under.
        value: what --help writes for its value; empty: its default.
        of: the commands that it goes with, words apart; its own name makes it one; empty: all.
    """
    metadata = {"help": meaning, "group": group, "value": value, "of": of.split()}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Launch:
    """What a command line asks for: `--<field>=<value>`, with dots for `config` and `run`."""

    experiment: str = flag("", "name of a file in experiments/, or the path of one", RUN, "NAME")
    arms: str = flag("all", "names of arms, separated by commas; ? is answered with them", RUN)
    seeds: str = flag("5", "how many, or which, as in 0,3,7", RUN)
    config: Any = dataclasses.field(
        default=NoConfig(),
        metadata={
            "help": "a field of the experiment; --experiment=NAME --help shows them",
            "group": RUN,
            "value": ".FIELD=VALUE",
            "of": ["experiment"],
        },
    )
    sweep: tuple[str, ...] = flag(
        (), "run with each of these values; several sweeps are multiplied", RUN, "FIELD=V1,V2"
    )
    oracle: bool = flag(
        False, "also show what the best step by test labels gives; never the result", RUN
    )
    workdir: str = flag(
        "runs", "the run goes to WORKDIR/EXPERIMENT", PLACE, of="experiment compare"
    )
    resume: bool = flag(
        True, "go on with what that folder holds; false: refuse if it holds a run", PLACE
    )
    overwrite: str = flag(
        "", "stages to train anew, with those that follow them; or all", PLACE, "STAGE,..."
    )
    list: str = flag(
        "", "every experiment, a line each; with a name, all about one", COMMANDS, "[=NAME]", "list"
    )
    prepare: str = flag(
        "", "download datasets and prepare them", COMMANDS, "NAME,NAME,...", "prepare"
    )
    compare: str = flag(
        "",
        "compare finished runs with the first of them",
        COMMANDS,
        "RUN_DIR,RUN_DIR,...",
        "compare",
    )
    against: str = flag(
        "",
        "of --compare: an arm of the first run; else that of each name",
        COMMANDS,
        "ARM",
        "compare",
    )
    despite: str = flag(
        "",
        "of --compare: what may differ: evaluation, selection, steps, data",
        COMMANDS,
        "KIND,...",
        "compare",
    )
    collect: str = flag(
        "", "write the runs in a folder to experiments/results.json", COMMANDS, "WORKDIR", "collect"
    )
    export: str = flag("", "write a model to RUN_DIR/export", COMMANDS, "RUN_DIR", "export")
    format: str = flag("safetensors", "of --export; stablehlo, or peft", COMMANDS, of="export")
    arm: str = flag("", "of --export: an arm; else the best one", COMMANDS, "ARM", "export")
    stage: str = flag("", "of --export: a stage; else the arm's last", COMMANDS, "STAGE", "export")
    seed: int | None = flag(
        None, "of --export: a seed; else the run's first", COMMANDS, "SEED", "export"
    )
    help: bool = flag(False, "this text; with --experiment=NAME its fields too", COMMANDS, of="")
    distributed: str = flag(
        "off",
        "run in several processes; auto: as a pod or Slurm says; else the first one's "
        "ADDRESS:PORT, their COUNT, the INDEX of this one, with commas",
        MACHINE,
    )
    verbose: bool = flag(
        False, "log what is decided on the way; tell errors with their tracebacks", MACHINE, of=""
    )
    run: RunOptions = dataclasses.field(
        default_factory=RunOptions, metadata={"group": MACHINE, "of": ["experiment"]}
    )

    def __post_init__(self):
        for field in ("workdir", "export", "collect"):
            object.__setattr__(self, field, user_path(getattr(self, field)))

    @property
    def commands(self) -> tuple[str, ...]:
        """The flags that say what is to be done; several are refused."""
        return tuple(name for name in COMMAND_FLAGS if getattr(self, name.removeprefix("--")))

    @property
    def runs(self) -> bool:
        """Whether it asks for a run of an experiment."""
        return self.commands == ("--experiment",) and not self.help


FLAGS = {f"--{field.name}": field for field in dataclasses.fields(Launch)}
SWITCHES = {name for name, field in FLAGS.items() if field.type is bool}
NEVER_EMPTY = {"--workdir"} | {name for name, field in FLAGS.items() if field.default == ""}
COMMAND_FLAGS = [name for name, field in FLAGS.items() if field.name in field.metadata["of"]]


def form(name: str) -> str:
    """How a flag is written: `--experiment=NAME`, `--seeds=5`."""
    field = FLAGS[name]
    value = field.metadata["value"] or text_of(field.default)
    return f"{name}{value}" if value[0] in ".[" else f"{name}={value}"


def read(argv: Sequence[str]) -> tuple[Launch, list[str]]:
    """(what is asked for, the arguments --config.*, which only the experiment can read).

    Raises:
        ValueError: what is no flag, has no value or a wrong one, stands twice, or goes with others.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise ValueError("the current directory is gone; change to one that exists") from error
    args = spell_out(join_values(argv[1:]))
    config_args = [arg for arg in args if arg.startswith("--config.")]
    sweep = tuple(arg.removeprefix("--sweep=") for arg in args if arg.startswith("--sweep="))
    flags = [arg for arg in args if not arg.startswith(("--config.", "--sweep="))]
    launch = parse(Launch(sweep=sweep), "", flags, config_flags(args))
    if not launch.help:
        check_together(launch.commands, args)
    return launch, config_args


def join_values(words: Sequence[str]) -> list[str]:
    """`--name=value` in place of `--name value`.

    Raises:
        ValueError: a word that is neither a flag nor a flag's value.
    """
    args: list[str] = []
    for word in words:
        if word[:1] in tuple(DASHES):
            rest = word.lstrip(f"-{DASHES}")
            raise ValueError(f"{word} begins with a dash, not with hyphens; write --{rest}")
        flag = args[-1] if args and args[-1].startswith("--") and "=" not in args[-1] else ""
        if re.match(r"-(?![\d.])", word) and word.strip("-"):
            args.append(word)
        elif flag and (flag not in SWITCHES or word.lower() in TRUE + FALSE):
            args[-1] += f"={word}"
        else:
            raise ValueError(
                f"unexpected argument {word!r}; flags are written --name=value{_meant(word)}"
            )
    return args


def _meant(word: str) -> str:
    """What a word without hyphens was surely meant as."""
    if "=" in word and f"--{re.split('[.=]', word)[0]}" in FLAGS:
        return f"; did you mean --{word}?"
    with contextlib.suppress(ValueError):
        return f"; did you mean --experiment={word}?" if word and find(word) else ""
    return ""


def spell_out(words: Sequence[str]) -> list[str]:
    """Switches as `--name=value`, also from `--name` and `--noname`; and other short forms in full.

    Raises:
        ValueError: a switch that is neither true nor false, or a flag that needs a name has none.
    """
    args: list[str] = []
    for word in words:
        name, equals, text = word.partition("=")
        negated = f"--{name.removeprefix('--no').removeprefix('-')}"
        if word == "-h":
            args.append("--help=True")
        elif word == "--list":
            args.append(f"--list={EVERY}")
        elif negated in SWITCHES and not equals:
            args.append(f"{negated}=false")
        elif name in SWITCHES:
            if equals and text.lower() not in TRUE + FALSE:
                hint = f"; did you mean --experiment={text} --help?" if name == "--help" else ""
                raise ValueError(f"{word}: expected true or false{hint}")
            args.append(f"{name}={text.lower() not in FALSE}")
        elif name in NEVER_EMPTY and equals and not text:
            raise ValueError(f"{name}= names nothing; write {form(name)}")
        else:
            args.append(word)
    return args


def check_together(commands: Sequence[str], args: Sequence[str]) -> None:
    """Raises ValueError if there are two commands, or flags that go with another one."""
    if len(commands) > 1:
        raise ValueError(f"{' and '.join(commands)} are {len(commands)} commands; give one of them")
    for arg in args:
        name = arg.partition("=")[0]
        room = name.partition(".")[0]
        of = FLAGS[room].metadata["of"]
        if name == "--run.data_dir":
            of = [*of, "prepare"]
        if not of or {f"--{command}" for command in of} & set(commands):
            continue
        if "--export" in commands and room in ("--config", "--run"):
            raise ValueError(f"{arg}: an export is of what the run was, without such flags")
        commands_of = " or ".join(form(f"--{command}") for command in of)
        hint = "; did you mean --seeds?" if name == "--seed" else ""
        raise ValueError(f"{arg if room == '--config' else name} goes with {commands_of}{hint}")


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
