"""What a program asks for, read as the command line's is: an experiment, seeds, a config, options.

Values of Python are held to the same types as texts of the command line, and give the same bits.
"""

import contextlib
import dataclasses
import inspect
import json
import os
import sys
import types
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

from jaxtl.arguments import parse_arms, parse_overwrite, parse_seeds
from jaxtl.experiment_file import (
    FOLDER,
    build_experiment,
    docstring,
    find,
    module_of,
    read_config,
    read_sweep,
    root_of,
)
from jaxtl.fields import field_names, from_json, get_field, json_values, sweep_points, unset_fields
from jaxtl.fingerprint import of_value
from jaxtl.form import describe
from jaxtl.paths import unknown
from jaxtl.plan import Experiment
from jaxtl.train.options import RunOptions
from jaxtl.train.store.identity import file_digest

UNNAMED = "experiment"
"""What an experiment is called that has neither file nor name."""

Source = Experiment | types.ModuleType | str | os.PathLike
Points = list[tuple[dict[str, Any], Any]]


class Given(NamedTuple):
    """An experiment as somebody gave it.

    Attributes:
        name: of its folder.
        file: it is built from; None for a value, or a module without one.
        headline: first line of its docstring.
        config: its default `Config`; None for a value, which has none.
        sweep: {field: values} that it asks for.
        digest: () -> a text that is equal only for what is surely the same code.
        build: config -> Experiment.
    """

    name: str
    file: Path | None
    headline: str
    config: Any
    sweep: Mapping[str, Sequence[Any]]
    digest: Callable[[], str]
    build: Callable[[Any], Experiment]

    def call(
        self, seeds: Sequence[int], arms: Sequence[str], config: Any, points: Points, workdir: str
    ) -> str:
        """`jaxtl.run('digits.py', seeds=5, workdir='runs')`: how to ask for the same again."""
        before, now = (_flat(each) for each in (self.config, config))
        changed = {field: value for field, value in now.items() if before.get(field) != value}
        fields = points[0][0] if points else ()
        swept = {f: list(dict.fromkeys(values[f] for values, _ in points)) for f in fields}
        arguments = {
            "seeds": len(seeds) if list(seeds) == list(range(len(seeds))) else list(seeds),
            "arms": list(arms),
            "config": changed,
            "sweep": swept or ({} if self.sweep else None),
            "name": "" if self.file or self.name == UNNAMED else self.name,
            "workdir": workdir,
        }
        words = [
            f"{k}={v!r}" for k, v in arguments.items() if v or (k == "sweep" and v is not None)
        ]
        first = repr(str(self.file)) if self.file else "experiment"
        return f"jaxtl.run({', '.join([first, *words])})"


def locate(source: Source) -> Path | None:
    """The file of an experiment that is given by name or path; None if it is another value.

    Raises:
        ValueError: there is no such file, or it is nothing that can be run.
    """
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        beside = Path(f"{name}.py")  # for a notebook that lies in experiments/ itself
        return beside if beside.is_file() and not FOLDER.is_dir() else find(name)
    if isinstance(source, Experiment | types.ModuleType):
        return None
    hint = ""
    if inspect.isroutine(source):
        hint = "; call the function, as in jaxtl.run(build(Config()))"
    raise ValueError(
        "expected an Experiment, the name of a file of experiments/, a path or a module, got "
        f"{describe(source)}{hint}"
    )


def read(source: Source, file: Path | None, name: str) -> Given:
    """The experiment that is given.

    Args:
        file: as `locate` says.
        name: for a value, which has no file that names it; empty for `UNNAMED`.

    Raises:
        ValueError: it is no experiment, or a name that cannot be one, or that is not asked for.
    """
    if isinstance(source, Experiment):
        name = name or UNNAMED
        if not name.isprintable() or "/" in name or name.startswith("."):
            raise ValueError(f"name={name!r} cannot name a folder")
        return Given(name, None, "", None, {}, lambda: _digest(source), lambda config: source)
    if name:
        raise ValueError(f"name={name!r}: the file names this experiment; a name is for a value")
    if file is not None:
        module = module_of(file)
        headline, digest = docstring(file), lambda: file_digest(file)
    else:
        module, headline = source, source.__doc__ or ""
        if missing := [part for part in ("Config", "build") if not hasattr(module, part)]:
            raise ValueError(f"module {module.__name__} has no {' and no '.join(missing)}")
        file = Path(module.__file__) if getattr(module, "__file__", None) else None
        digest = lambda: _digest_of_module(module, file)  # noqa: E731
    return Given(
        name=file.stem if file else module.__name__.rpartition(".")[2].strip("_"),
        file=file,
        headline=headline.split("\n")[0],
        config=read_config(module),
        sweep=read_sweep(module),
        digest=digest,
        build=lambda config: build_experiment(module, config),
    )


def _digest(value: Any) -> str:
    """Of a value and all that it refers to; like no other where that cannot all be looked into."""
    fingerprint = of_value(value)
    return f"{fingerprint.digest}-{uuid.uuid4().hex}" if fingerprint.opaque else fingerprint.digest


def _digest_of_module(module: types.ModuleType, file: Path | None) -> str:
    """That of its file where this still says what was imported; else of the code in memory."""
    code = module.Config, module.build
    if file is not None and module.__name__ != "__main__":  # a script must not run once more
        written = module_of(file)
        if of_value((written.Config, written.build)).digest == of_value(code).digest:
            return file_digest(file)
    return _digest(code)


@contextlib.contextmanager
def importable(file: Path | None) -> Iterator[None]:
    """What lies here, and beside an experiment's folder, can be imported, as by the command."""
    added = list(dict.fromkeys([str(Path.cwd()), *([str(root_of(file))] if file else [])]))
    sys.path[:0] = added
    try:
        yield
    finally:
        for folder in added:
            with contextlib.suppress(ValueError):  # somebody else took it out
                sys.path.remove(folder)


def read_seeds(seeds: int | str | Sequence[int]) -> tuple[int, ...]:
    """5 -> (0, 1, 2, 3, 4); [0, 3, 7] -> those; a text as the command line's.

    Raises:
        ValueError: as `parse_seeds`, or it is nothing of that kind.
    """
    if isinstance(seeds, str):
        return parse_seeds(seeds)
    if isinstance(seeds, Integral) and not isinstance(seeds, bool):
        return parse_seeds(str(int(seeds)))
    values = list(seeds) if hasattr(seeds, "__iter__") else [None]
    if not all(isinstance(seed, Integral) and not isinstance(seed, bool) for seed in values):
        raise ValueError(
            f"seeds={seeds!r}: expected how many, as in seeds=5, or a list such as [0, 3, 7]"
        )
    if len(values) < 2:  # as a text one number would say how many
        if not all(0 <= seed < 2**31 for seed in values) or not values:
            raise ValueError(f"seeds={seeds!r}: expected at least one seed, each in [0, 2**31)")
        return tuple(map(int, values))
    return parse_seeds(",".join(str(int(seed)) for seed in values))


def read_arms(arms: str | Sequence[str] | None, experiment: Experiment) -> tuple[str, ...]:
    """Names of arms; empty for all.

    Raises:
        ValueError: as `parse_arms`, or it names none.
    """
    if arms is None or isinstance(arms, str):
        return parse_arms("all" if arms is None else arms, experiment.arms)
    return _names("arms", "arm", arms, experiment.arms)


def read_overwrite(overwrite: str | Sequence[str], experiment: Experiment) -> tuple[str, ...]:
    """Names of stages that start over; `("all",)` for all.

    Raises:
        ValueError: as `parse_overwrite`.
    """
    if isinstance(overwrite, str):
        return parse_overwrite(overwrite, experiment.arms)
    if not (chosen := list(overwrite)) or chosen == ["all"]:
        return tuple(chosen)
    stages = [stage.name for chain in experiment.arms.values() for stage in chain]
    return _names("overwrite", "stage", chosen, stages)


def _names(argument: str, kind: str, chosen: Sequence[str], names: Sequence[str]) -> tuple[str]:
    chosen = list(chosen)
    problems = [unknown(kind, name, names) for name in chosen if name not in names]
    problems += [
        f"{argument} names {x!r} twice" for x in dict.fromkeys(chosen) if chosen.count(x) > 1
    ]
    if not chosen:
        problems = [f"{argument}={chosen!r} names no {kind}; leave it out for all"]
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(chosen)


def read_fields(what: str, default: Any, given: Any) -> Any:
    """A dataclass with the fields that are given, each of its declared type.

    Args:
        what: the argument, for messages.
        default: has what is not given.
        given: {dotted name: value}, a dataclass with the same fields, or None.

    Raises:
        ValueError: unknown fields (with the closest), or values that a field does not take.
    """
    if given is None:
        return default
    if type(given) is type(default) and what == "config":
        return given
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        given = dataclasses.asdict(given)
    if not isinstance(given, Mapping):
        raise ValueError(f"{what} must be {{field: value}}, got {describe(given)}")
    try:
        values, unknown_names = from_json(default, json.loads(json.dumps(given, default=_plain)))
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    if unknown_names:
        names = list(field_names(default, ""))
        raise ValueError("\n".join(unknown(f"field of {what}", n, names) for n in unknown_names))
    return values


def _plain(value: Any) -> Any:
    """What JSON does not know: numbers and arrays of NumPy, paths."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def read_options(options: RunOptions | Mapping[str, Any] | None) -> RunOptions:
    """How to run.

    Raises:
        ValueError: as `read_fields`.
    """
    return read_fields("options", RunOptions(), options)


def read_points(given: Given, config: Any, sweep: Any, chosen: Collection[str] = ()) -> Points:
    """({field: value}, config) of each point of a sweep; none where there is no sweep.

    Args:
        sweep: {field: values}; texts FIELD=V1,V2 as the command line's; None for what the
            experiment asks for; {} or False for none.
        chosen: fields that have been given a value: what the experiment asks for leaves them out.

    Raises:
        ValueError: as `sweep_points`, or the experiment has no fields.
    """
    if sweep is None:
        default = unset_fields(given.sweep, chosen)
        return sweep_points(config, (), default) if default else []
    if not sweep:
        return []
    if given.config is None:
        raise ValueError("sweep: an Experiment value has no fields; give the module or the file")
    if not isinstance(sweep, Mapping):
        return sweep_points(config, tuple(sweep), {})
    for field, values in sweep.items():
        if isinstance(values, str) or not hasattr(values, "__iter__") or not len(values):
            raise ValueError(f"sweep[{field!r}] must be a list of values, got {describe(values)}")
    return sweep_points(config, (), {f: [_plain_value(v) for v in vs] for f, vs in sweep.items()})


def _plain_value(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _flat(config: Any) -> dict[str, Any]:
    names = () if config is None else field_names(config, "")
    return {name: get_field(config, name) for name in names}


def config_record(config: Any) -> dict[str, Any]:
    """The JSON values of a config; none for an experiment without one."""
    return {} if config is None else json_values(config)
