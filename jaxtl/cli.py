"""The command line. Knows every experiment without importing it, and JAX only when work starts."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from jaxtl.arguments import (
    EXPORT_FLAGS,
    check_companions,
    chosen_arms,
    elsewhere,
    parse_seeds,
    read,
    run_options,
)
from jaxtl.blame import account
from jaxtl.experiment_file import (
    FOLDER,
    built,
    docstring,
    find,
    known_experiments,
    module_of,
    read_config,
    read_sweep,
    result_line,
    root_of,
)
from jaxtl.export.request import check_request
from jaxtl.fields import field_names, get_field, json_values, parse, replace_fields, sweep_points
from jaxtl.files import NotWritten
from jaxtl.surroundings import (
    check_devices,
    check_precision,
    configure,
    connect,
    explanation,
    keep_output,
    lost_output,
    without_echoes,
)
from jaxtl.train.options import RunOptions

USAGE = """\
python launch.py --list
python launch.py --experiment=NAME [--seeds=5] [--arms=A,B] [--config.FIELD=VALUE ...]
python launch.py --experiment=NAME --help      the fields of its Config, and --run.* options
python launch.py --prepare=DATASET             download and prepare a TFDS dataset
python launch.py --export=RUN_DIR [--format=stablehlo] [--arm=A] [--stage=S] [--seed=0]
"""


def program(argv: Sequence[str]) -> NoReturn:
    """`main` as a process of its own, which ends whatever its threads wait for."""
    keep_output()
    try:
        status = main(argv)
    except Exception:
        traceback.print_exc()
        status = 1
    if reason := lost_output():
        print(f"error: cannot write standard output: {reason}", file=sys.stderr)
        status = status or int(not any(arg.startswith("--experiment") for arg in argv))
    sys.stderr.flush()
    others = set(threading.enumerate()) - {threading.main_thread()}
    if status and not all(thread.daemon for thread in others):
        os._exit(status)  # Orbax's wait for a folder that could not be made
    sys.exit(status)


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit status.

    That is 0 (also when SIGTERM stopped it, saved), 1 for bad input, 130 for Ctrl-C. What code of
    the user's raises is told with its place there; with --verbose after the whole traceback.
    """
    try:
        return _main(list(argv))
    except NotWritten as error:
        print(
            f"error: cannot write {error.filename}: {error.strerror}; once that is mended, the "
            "same command goes on from the last whole checkpoint",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except (Exception, SystemExit) as error:
        message = explanation(error) or account(error)
        if message is None and not isinstance(error, ValueError | flags.Error):
            raise  # a bug of ours
        if "--verbose" in argv:
            traceback.print_exception(error)
        print(f"error: {message or error}", file=sys.stderr)
        return 1


def _main(argv: list[str]) -> int:
    try:
        os.getcwd()
    except OSError as error:
        raise ValueError("the current directory is gone; change to one that exists") from error
    values, fields = read(argv)
    if values.list:
        return show_list()
    if values.prepare:
        return prepare(values.prepare, fields)
    if values.export is not None:
        return export(values, fields)
    check_companions(values)
    if values.experiment is None:
        print(USAGE + values.get_help(include_special_flags=False) if values.help else USAGE)
        if not values.help:
            raise ValueError("--experiment=NAME is missing; --list shows the names")
        return 0
    path = find(values.experiment)
    options = run_options(fields, values)
    if options.data_dir:
        os.environ["TFDS_DATA_DIR"] = options.data_dir
    return launch(path, parse_seeds(values.seeds), options, fields, values)


def show_list() -> int:
    """Print every experiment, what it asks and what was measured."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True)
    for column in ("experiment", "question", "measured result"):
        table.add_column(column, overflow="fold")
    for name in known_experiments():
        try:
            text = docstring(FOLDER / f"{name}.py")
        except ValueError as error:
            text = f"not readable: {error}"
        question = text.split("\n\n")[0].replace("\n", " ")
        table.add_row(*map(Text, (name, question, result_line(text))))
    Console().print(table)
    return 0


def prepare(name: str, fields: Sequence[str]) -> int:
    """Prepare a TFDS dataset in the data directory."""
    options = parse(RunOptions(), "run", fields)
    from jaxtl import data

    data.prepare(name, options.data_dir or None)
    print(f"{name} is prepared")
    return 0


def export(values: flags.FlagValues, fields: Sequence[str]) -> int:
    """Write a model of a run to a file."""
    if fields:
        raise ValueError(f"{fields[0]}: an export is of what the run was, without such flags")
    check_request(Path(values.export), values.format)
    check_devices()
    check_precision()
    from jaxtl.export.files import export_run

    print(export_run(Path(values.export), *(values[name].value for name in EXPORT_FLAGS)))
    return 0


def show_help(module: Any) -> None:
    """Print an experiment's docstring, the fields of its Config and the run options."""
    print(module.__doc__ or "")
    for group, config in (("config", module.Config()), ("run", RunOptions())):
        for name in field_names(config, ""):
            print(f"  --{group}.{name}={get_field(config, name)!r}")


def launch(
    path: Path,
    seeds: tuple[int, ...],
    options: RunOptions,
    fields: Sequence[str],
    values: flags.FlagValues,
) -> int:
    """Import the experiment and run it."""
    sys.path[:0] = dict.fromkeys([str(Path.cwd()), str(root_of(path))])
    module = module_of(path)
    default = read_config(module)
    if values.help:
        show_help(module)
        return 0
    config_args = [arg for arg in fields if arg.startswith("--config.")]
    others = [f"--{name}" for name in values] + elsewhere(values)
    config = parse(default, "config", config_args, others)
    points = sweep_points(config, values.sweep, read_sweep(module))
    configure(options, values.verbose)
    connect(values.distributed)
    check_devices()

    from rich.console import Console

    from jaxtl.report import print_table
    from jaxtl.study.experiment import run_experiment
    from jaxtl.study.progress import Reporter
    from jaxtl.study.run import Run
    from jaxtl.study.traced import Sweep
    from jaxtl.train.mesh import is_primary
    from jaxtl.train.signals import Interrupted
    from jaxtl.train.store.identity import file_digest

    experiment = built(module, config)
    check_precision()
    run = Run(
        name=path.stem,
        config=json_values(config),
        experiment_digest=file_digest(path),
        seeds=seeds,
        arms=chosen_arms(values.arms, experiment.arms),
        directory=Path(values.workdir) / path.stem,
        options=options,
        resume=values.resume,
        headline=docstring(path).split("\n")[0],
        oracle=values.oracle,
        file=path,
    )
    sweep = Sweep(
        [fields_ for fields_, _ in points],
        [json_values(swept) for _, swept in points],
        lambda fields_: built(module, replace_fields(config, fields_)),
    )
    reporter = Reporter(Console(quiet=not is_primary()))
    try:
        with without_echoes(values.verbose):
            summary = run_experiment(experiment, run, reporter, sweep if points else None)
    except Interrupted as stopped:
        print(f"{stopped}: saved; the same command goes on from here", file=sys.stderr)
        return 130 if stopped.signal == signal.SIGINT else 0
    if not is_primary():
        return 0
    print_table(summary)
    print(f"\nreport: {run.directory / 'report.html'}")
    return 0
