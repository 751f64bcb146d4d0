"""The command line. Knows every experiment without importing it, and JAX only when work starts."""

import dataclasses
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from jaxtl import stopping, timing, usage
from jaxtl.arguments import EVERY, Launch, parse_seeds, read
from jaxtl.blame import account
from jaxtl.experiment_file import (
    find,
    module_of,
    read_config,
    read_sweep,
    root_of,
)
from jaxtl.export.request import check_request
from jaxtl.fields import parse, sweep_points, unset_fields
from jaxtl.files import NotWritten
from jaxtl.surroundings import (
    check_devices,
    check_precision,
    configure,
    connect,
    explanation,
    keep_output,
    lost_output,
    terminal,
)


def program(argv: Sequence[str]) -> NoReturn:
    """`main` as a process of its own, which ends whatever its threads wait for.

    A signal ends it with 128 and its number; while training, what `main` says.
    """
    stopping.listen()
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
        launch, config_args = read(argv)
        if launch.runs:
            return conduct(launch, config_args)
        answer(launch)
        return 0
    except NotWritten as error:
        trains = any(arg.startswith("--experiment") for arg in argv)
        remedy = "goes on from the last whole checkpoint" if trains else "does it again"
        print(
            f"error: cannot write {error.filename}: {error.strerror}; once that is mended, the "
            f"same command {remedy}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; {stopping.promised()}", file=sys.stderr)
        return 130
    except (Exception, SystemExit) as error:
        message = explanation(error) or account(error)
        if message is None and not isinstance(error, ValueError):
            raise  # a bug of ours
        if "--verbose" in argv:
            traceback.print_exception(error)
        print(f"error: {message or error}", file=sys.stderr)
        return 1


def answer(launch: Launch) -> None:
    """Do what a command line asks for that trains nothing."""
    if launch.help and launch.experiment:
        path = find(launch.experiment)
        module = imported(path)
        usage.show_fields(path, read_config(module), read_sweep(module))
    elif launch.help:
        usage.show_help()
    elif launch.list == EVERY:
        usage.show_list()
    elif launch.list:
        usage.show_experiment(find(launch.list))
    elif launch.prepare:
        prepare(launch)
    elif launch.export:
        export(launch)
    elif launch.compare:
        compare(launch)
    elif launch.collect:
        collect(launch)
    else:
        usage.show_start()
        raise ValueError("--experiment=NAME is missing; --list shows the names")


def prepare(launch: Launch) -> None:
    """Prepare datasets in the data directory and print what they hold.

    Raises:
        ValueError: an unknown name, before any work; after all others, what could not be prepared.
    """
    from jaxtl.data.prepared import preparation

    logging.basicConfig(format="%(message)s")
    logging.getLogger("jaxtl.data.prepared").setLevel(logging.INFO)
    names = [name.strip() for name in launch.prepare.split(",")]
    data_dir, problems = launch.run.data_dir or None, []
    preparation.check_names(names)
    for name in names:
        discard = preparation.discarding(name, data_dir)

        def stop(number: int, discard: Callable[[], None] = discard) -> None:
            discard()
            stopping.end(number, stopping.STARTS_AGAIN)

        try:
            with stopping.handed_to(stop):
                print(preparation.contents(preparation.prepare(name, data_dir)), flush=True)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def export(launch: Launch) -> None:
    """Write a model of a run to a file."""
    directory = Path(launch.export)
    check_request(directory, launch.format)
    check_devices()
    check_precision()
    from jaxtl.export.files import export_run

    arm, stage = launch.arm or None, launch.stage or None
    print(export_run(directory, launch.format, arm, stage, launch.seed))


def compare(launch: Launch) -> None:
    """Print finished runs side by side, and write them to the working directory."""
    from jaxtl.study.front.across.compare import compare, paths_of

    despite = [kind.strip() for kind in launch.despite.split(",")] if launch.despite else []
    runs = paths_of(launch.compare)
    comparison = compare(runs, against=launch.against or None, despite=despite)
    comparison.print()
    print(f"\ncomparison: {comparison.write(launch.workdir)}")


def collect(launch: Launch) -> None:
    """Write the runs under a folder to experiments/results.json and experiments/README.md."""
    from jaxtl.study.front.across.collect import collect

    for line in collect(Path(launch.collect)):
        print(line)


def imported(path: Path) -> ModuleType:
    """The module of an experiment file, which may import what lies beside it."""
    sys.path[:0] = dict.fromkeys([str(Path.cwd()), str(root_of(path))])
    return module_of(path)


def conduct(launch: Launch, config_args: Sequence[str]) -> int:
    """Import the experiment and run it, as `jaxtl.run` does."""
    path = find(launch.experiment)
    seeds = parse_seeds(launch.seeds)
    if launch.run.data_dir:
        os.environ["TFDS_DATA_DIR"] = launch.run.data_dir
    module = imported(path)
    launch = dataclasses.replace(launch, config=read_config(module))
    launch = parse(launch, "", config_args)
    chosen = [arg.partition("=")[0].removeprefix("--config.") for arg in config_args]
    default_sweep = unset_fields(read_sweep(module), chosen)
    sweep_points(launch.config, launch.sweep, default_sweep)  # refused before JAX is there
    configure(launch.verbose)
    connect(launch.distributed)

    from jaxtl.features import in_words
    from jaxtl.report import print_table
    from jaxtl.study.front import call
    from jaxtl.study.progress import Reporter
    from jaxtl.train.mesh import is_primary
    from jaxtl.train.signals import Interrupted

    command = "the same command" + (" without --overwrite" if launch.overwrite else "")
    stopping.promise(stopping.GOES_ON.replace("the same command", command))
    try:
        result = call.conduct(
            path,
            seeds=seeds,
            workdir=launch.workdir,
            arms=launch.arms,
            config=launch.config,
            sweep=launch.sweep or default_sweep,
            options=launch.run,
            resume=launch.resume,
            overwrite=launch.overwrite,
            oracle=launch.oracle,
            reporter=lambda: Reporter(terminal(quiet=not is_primary())),
            verbose=launch.verbose,
            began=timing.BEGAN,
        )
    except Interrupted as stopped:
        stopping.promise("")
        print(f"{stopped}: saved; {command} goes on from here", file=sys.stderr)
        return 130 if stopped.signal == signal.SIGINT else 0
    if is_primary():
        print_table(result.summary, terminal())
        if "seconds" in result.summary:
            print(f"\n{timing.in_words(result.summary['seconds'])}")
        if "features" in result.summary:
            print(f"\n{in_words(result.summary['features'])}")
        print(f"\nreport: {Path(launch.workdir) / path.stem / 'report.html'}")
    return 0
