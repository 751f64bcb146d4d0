"""`jaxtl.run` and `jaxtl.open`: an experiment as a call, its outcome as a value.

The command line goes the same way; it only has signals, output and exit codes of its own.
"""

import os
import shutil
import signal
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxtl.blame import account, is_refusal
from jaxtl.export.request import check_run
from jaxtl.fields import replace_fields
from jaxtl.files import read_json, user_path
from jaxtl.plan import Experiment
from jaxtl.report.summary import load_summary
from jaxtl.study.experiment import run_experiment
from jaxtl.study.front import given
from jaxtl.study.front.models import Models
from jaxtl.study.front.notebook import NotebookReporter, SilentReporter, in_notebook
from jaxtl.study.front.process import settings
from jaxtl.study.front.result import Result
from jaxtl.study.progress import Reporter
from jaxtl.study.run import Run
from jaxtl.study.traced import Sweep
from jaxtl.surroundings import check_devices, check_precision, explanation, terminal, without_echoes
from jaxtl.timing import measured
from jaxtl.train.mesh import is_primary
from jaxtl.train.options import RunOptions
from jaxtl.train.signals import Interrupted

FLAGS = (
    "In Python, --workdir=W is workdir='W', --overwrite=A,B is overwrite=['A', 'B'], "
    "--config.F=V is config={'F': V}, --run.F=V is options={'F': V}, and so on."
)


class Stopped(KeyboardInterrupt):
    """Somebody stopped a run; what it had trained is saved. A notebook shows it as one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"interrupted: {self}"]


def run(
    experiment: given.Source,
    seeds: int | str | Sequence[int] = 5,
    workdir: str | os.PathLike | None = None,
    *,
    arms: str | Sequence[str] | None = None,
    config: Mapping[str, Any] | Any = None,
    sweep: Mapping[str, Sequence[Any]] | Sequence[str] | None = None,
    options: RunOptions | Mapping[str, Any] | None = None,
    resume: bool = True,
    overwrite: str | Sequence[str] = (),
    oracle: bool = False,
    progress: bool = True,
    name: str = "",
) -> Result:
    """Train and measure an experiment: what `launch.py` does, for a script or a notebook.

    Called again with the same `workdir` it goes on, and trains only what is not there. That holds
    for an experiment made in a notebook too: whether a stage is the same is decided by what it
    computes, and where that cannot be told, the call is refused.

    Ctrl-C saves and raises `Stopped`, a KeyboardInterrupt. A thread other than the main one hears
    no signals: there nothing stops a run. Settings of JAX are set back at the end, but
    for `cpu_devices`, which JAX is told once.

    Args:
        experiment: an `Experiment`; a name of `experiments/`; a path; or a module with `Config` and
            `build`.
        seeds: how many, or which.
        workdir: the run goes to `<workdir>/<name>`. None for a temporary folder, which is removed
            when neither the result nor one of its arms is in use any more, or the process ends.
        arms: names; None for all.
        config: {field: value} of the experiment's `Config`, inner fields by dots; or a `Config`.
        sweep: {field: values}; None for the one that the experiment asks for, without fields that
            `config` gives a value; {} for none.
        options: `RunOptions`, or {field: value} of it: the command line's `--run.*`.
        resume: False refuses a folder that holds a run.
        overwrite: stages to train anew, with those after them; or "all".
        oracle: also show the best step by test labels; never used.
        progress: False says nothing; warnings go to the log.
        name: of the folder, for an `Experiment`; by default "experiment".

    Raises:
        ValueError: bad input of any kind, before any training.
        Stopped: by Ctrl-C, saved.
        NotWritten: a file of the run cannot be.
    """
    if not isinstance(progress, bool):
        raise ValueError(f"progress must be True or False, got {progress!r}")
    if workdir is None and jax.distributed.is_initialized():
        raise ValueError("workdir: several processes need a folder that they share")
    folder = Temporary() if workdir is None else None
    place = folder.path if folder else _workdir(workdir)
    without = [
        word for word, is_set in (("overwrite", overwrite), ("resume", not resume)) if is_set
    ]
    same = f"the same call without {' and '.join(without)}" if without else "the same call"
    again = f"{same} goes on from there: {place}"
    if folder:
        again = f"{same} with workdir={place!r} goes on, as long as this process lives"
    try:
        result = conduct(
            experiment,
            seeds=seeds,
            workdir=place,
            arms=arms,
            config=config,
            sweep=sweep,
            options=options,
            resume=resume,
            overwrite=overwrite,
            oracle=oracle,
            reporter=lambda: _reporter(progress),
            name=name,
            by_call=True,
        )
    except Interrupted as stopped:
        if folder:
            folder.stay()
        if stopped.signal != signal.SIGINT:
            signal.raise_signal(stopped.signal)  # what the process does of it is not ours
        raise Stopped(f"saved; {again}") from None
    except KeyboardInterrupt:
        if folder:
            folder.stay()
        raise Stopped(f"what was trained is saved; {again}") from None
    except BaseException as error:
        if folder:
            folder.remove()
        _explain(error)
        raise
    result.models.temporary = folder
    return result


def conduct(
    experiment: given.Source,
    *,
    seeds: int | str | Sequence[int],
    workdir: str,
    arms: str | Sequence[str] | None,
    config: Any,
    sweep: Any,
    options: RunOptions | Mapping[str, Any] | None,
    resume: bool,
    overwrite: str | Sequence[str],
    oracle: bool,
    reporter: Callable[[], Reporter],
    name: str = "",
    by_call: bool = False,
    verbose: bool = False,
    began: float | None = None,
) -> Result:
    """As `run`, which documents the arguments.

    Args:
        reporter: makes what says what is going on, once JAX has its devices.
        by_call: a program asks for it, not a command line.
        verbose: let libraries say what is raised too.
        began: `time.perf_counter()` from which on the time of the run counts; None for now.

    Raises:
        Interrupted: a signal stopped a stage; its state is saved.
    """
    seeds, options = given.read_seeds(seeds), given.read_options(options)
    file = given.locate(experiment)
    with measured(began), settings(options), given.importable(file):
        source = given.read(experiment, file, name)
        if source.config is None and config:
            raise ValueError("config: an Experiment value has no fields; give the module or file")
        values = given.read_fields("config", source.config, config)
        chosen_fields = config if isinstance(config, Mapping) else ()
        points = given.read_points(source, values, sweep, chosen_fields)
        check_devices()
        built = source.build(values)
        check_precision()
        chosen = given.read_arms(arms, built)
        run = Run(
            name=source.name,
            config=given.config_record(values),
            experiment_digest=source.digest(),
            seeds=seeds,
            arms=chosen,
            directory=Path(workdir) / source.name,
            options=options,
            resume=resume,
            overwrite=given.read_overwrite(overwrite, built),
            headline=source.headline,
            oracle=oracle,
            file=source.file,
            call=source.call(seeds, chosen, values, points, workdir) if by_call else "",
        )
        swept = Sweep(
            [point for point, _ in points],
            [given.config_record(each) for _, each in points],
            lambda point: source.build(replace_fields(values, point)),
        )
        with without_echoes(verbose):
            summary = run_experiment(built, run, reporter(), swept if points else None)
    return Result(summary, run.directory, Models(run.directory, built))


def open_run(run_dir: str | os.PathLike, experiment: Experiment | None = None) -> Result:
    """A finished run as the value that `run` gave; nothing is trained or measured.

    Its models are read when they are asked for, from the experiment's file as `jaxtl.load` does.

    Args:
        run_dir: `<workdir>/<experiment>`.
        experiment: for the models of a run whose experiment a program made; they are checked to
            compute what was trained.

    Raises:
        ValueError: it holds no run, or one that has not ended (how to go on is said).
    """
    try:
        directory = Path(user_path(run_dir))
        check_run(directory)
        return Result(_summary(directory), directory, Models(directory, experiment))
    except ValueError as error:
        _explain(error)
        raise


def _summary(directory: Path) -> dict[str, Any]:
    try:
        return load_summary(directory / "summary.json")
    except FileNotFoundError:
        record = read_json(directory / "config.json", {"experiment": str}, "run it again") or {}
        what = record.get("experiment", "EXPERIMENT")
        raise ValueError(
            f"the run of {what} in {directory} has not ended: it has no summary.json; the command "
            "or call that began it goes on"
        ) from None


class Temporary:
    """A folder that goes with this value, or with the process that made it."""

    _staying: list["Temporary"] = []  # noqa: RUF012

    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="jaxtl-")
        self._finalizer = weakref.finalize(self, _remove, self.path, os.getpid())

    def remove(self) -> None:
        self._finalizer()

    def stay(self) -> None:
        """Until the process ends."""
        self._staying.append(self)


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:  # a forked one ends too
        shutil.rmtree(path, ignore_errors=True)


def _explain(error: BaseException) -> None:
    """Add what helps in Python; a notebook shows what we refuse as a message, not as our calls."""
    if note := explanation(error):
        error.add_note(note)
    if is_refusal(error):
        if "--" in str(error):
            error.add_note(FLAGS)
        lines = [f"{type(error).__name__}: {account(error) or error}"]
        lines += getattr(error, "__notes__", [])
        error._render_traceback_ = lambda: lines


def _workdir(workdir: str | os.PathLike) -> str:
    if not (path := user_path(workdir)):
        raise ValueError("workdir='' names nothing; None is a temporary folder")
    return path


def _reporter(progress: bool) -> Reporter:
    if not progress or not is_primary():
        return SilentReporter()
    return NotebookReporter() if in_notebook() else Reporter(terminal())
