"""The flags of the command line, read strictly: each once, hints where a name is not known."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from absl import flags

from jaxtl.experiment_file import config_fields, find
from jaxtl.fields import field_names, parse
from jaxtl.files import user_path
from jaxtl.paths import unknown
from jaxtl.train.options import RunOptions

MOST_SEEDS = 10_000
EXPORT_FLAGS = ("format", "arm", "stage", "seed")
GROUPS = ("--config.", "--run.")


class TrueOrFalse(flags.BooleanParser):
    """A flag that is on or off."""

    def parse(self, argument: Any) -> bool:
        try:
            return super().parse(argument)
        except (TypeError, ValueError):
            raise ValueError("expected true or false") from None


class WholeNumber(flags.ArgumentParser):
    """A flag that is an integer."""

    def parse(self, argument: Any) -> int:
        try:
            return int(argument)
        except ValueError:
            raise ValueError("expected a whole number") from None


def define_flags() -> flags.FlagValues:
    """The flags besides --config.* and --run.*; nothing global is touched."""
    values = flags.FlagValues()

    def define(definition, name: str, default: Any, text: str) -> None:
        definition(name, default, text, flag_values=values)

    define(
        flags.DEFINE_string, "experiment", None, "a file of experiments/, without .py; or a path"
    )
    define(flags.DEFINE_bool, "list", False, "show every experiment with its measured result")
    define(flags.DEFINE_string, "prepare", None, "prepare a TFDS dataset, then stop")
    define(flags.DEFINE_string, "export", None, "write a model of this run to RUN_DIR/export, stop")
    define(flags.DEFINE_string, "format", "safetensors", "of --export: safetensors, or stablehlo")
    define(flags.DEFINE_string, "arm", None, "of --export: an arm; by default the best one")
    define(flags.DEFINE_string, "stage", None, "of --export: a stage; by default the arm's last")
    text = "of --export: a seed; by default the run's first"
    flags.DEFINE(WholeNumber(), "seed", None, text, flag_values=values)
    define(flags.DEFINE_string, "seeds", "5", "number of seeds, or a list such as 0,3,7")
    define(flags.DEFINE_string, "arms", "all", "names of arms, separated by commas")
    define(flags.DEFINE_string, "workdir", "runs", "the run goes to WORKDIR/EXPERIMENT")
    define(flags.DEFINE_bool, "resume", True, "go on with what the directory holds")
    define(flags.DEFINE_multi_string, "sweep", [], "FIELD=V1,V2,...: run with each value")
    define(
        flags.DEFINE_string, "distributed", "off", "off, auto (a pod), or ADDRESS:PORT,COUNT,INDEX"
    )
    define(flags.DEFINE_bool, "oracle", False, "also show the best step by test labels; never used")
    define(flags.DEFINE_bool, "verbose", False, "log what is decided on the way")
    define(flags.DEFINE_bool, "help", False, "this text; with --experiment its fields")
    for name in values:
        if values[name].boolean:
            values[name].parser = TrueOrFalse()
    return values


def read(argv: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """(the flags, the arguments --config.* and --run.*).

    Raises:
        ValueError: what is no flag, has no value or stands twice; all of it.
    """
    values, problems = define_flags(), []
    fields = [arg for arg in argv[1:] if arg.startswith(GROUPS)]
    try:
        rest = values([arg for arg in argv if not arg.startswith(GROUPS)], known_only=True)[1:]
    except flags.IllegalFlagValueError as error:
        raise ValueError(str(error).removeprefix("flag ")) from None
    except flags.Error as error:
        raise ValueError(str(error)) from None
    for arg in rest:
        if arg.startswith("-") and arg.strip("-"):
            name = f"--{arg.lstrip('-').partition('=')[0]}"
            listed = [f"--{flag}" for flag in values]
            problems.append(unknown("flag", name, listed, elsewhere(values)))
    if not problems and rest:
        problems.append(f"unexpected argument {rest[0]!r}; flags are written --name=value")
    problems += [f"{arg}: write {arg}=VALUE" for arg in fields if "=" not in arg]
    counts = Counter(arg.partition("=")[0] for arg in fields)
    counts |= {f"--{name}": values[name].present for name in values if name != "sweep"}
    problems += [f"{name} stands {n} times; give it once" for name, n in counts.items() if n > 1]
    for name in ("experiment", "prepare", "export", "workdir"):
        if values[name].value == "":
            problems.append(f"--{name}= names nothing; write --{name}=VALUE")
    if problems:
        raise ValueError("\n".join(problems))
    values.workdir = user_path(values.workdir)
    values.export = values.export and user_path(values.export)
    return values, fields


def elsewhere(values: flags.FlagValues) -> list[str]:
    """--run.* and --config.* of the experiment that is meant, as far as its file tells them."""
    names = list(field_names(RunOptions(), "--run."))
    try:
        written = config_fields(find(values.experiment or ""))
    except ValueError:
        written = []
    return [*names, *(f"--config.{name}" for name in written)]


def check_companions(values: flags.FlagValues) -> None:
    """Raises ValueError for a flag of --export without it."""
    for name in EXPORT_FLAGS:
        if values[name].present:
            hint = f"; did you mean --{name}s?" if f"{name}s" in values else ""
            raise ValueError(f"--{name} goes with --export=RUN_DIR{hint}")


def parse_seeds(text: str) -> tuple[int, ...]:
    """`5` -> (0, 1, 2, 3, 4); `0,3,7` -> those.

    Raises:
        ValueError: not numbers, none, one twice, negative ones or some above 31 bits.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--seeds={text}: expected a number or a list such as 0,3,7") from None
    count = len(numbers) if "," in text else numbers[0]
    if count > MOST_SEEDS:
        raise ValueError(f"--seeds={text}: at most {MOST_SEEDS:,} seeds train in one program")
    seeds = numbers if "," in text else range(count)
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**31 or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"--seeds={text}: expected at least one seed, each in [0, 2**31) and named once"
        )
    return tuple(seeds)


def chosen_arms(text: str, known: Collection[str]) -> tuple[str, ...]:
    """`all` -> (), which stands for all; `a, b` -> ("a", "b"); a name may hold commas itself.

    Args:
        known: names of the experiment's arms.

    Raises:
        ValueError: names that are not known (with the closest), or one twice.
    """
    if text == "all":
        return ()
    parts, arms = text.split(","), []
    while parts:
        names = [",".join(parts[:count]) for count in range(len(parts), 0, -1)]
        fitting = [name for name in names if name in known or name.strip() in known]
        name = fitting[0] if fitting else names[-1]
        arms.append(name if name in known else name.strip())
        parts = parts[name.count(",") + 1 :]
    problems = [unknown("arm", arm, known) for arm in arms if arm not in known]
    problems += [f"--arms names {arm!r} twice" for arm, n in Counter(arms).items() if n > 1]
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(arms)


def run_options(fields: Iterable[str], values: flags.FlagValues) -> RunOptions:
    """The options of --run.*.

    Raises:
        ValueError: unknown ones (with the closest flag) and values that they do not take.
    """
    others = [f"--{name}" for name in values] + elsewhere(values)
    return parse(RunOptions(), "run", [f for f in fields if f.startswith("--run.")], others)
