"""The command line. Knows every experiment without importing it, and JAX only when work starts."""

import ast
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from jaxtl.export.request import check_request
from jaxtl.fields import field_names, get_field, json_values, parse, replace_fields, sweep_points
from jaxtl.paths import unknown
from jaxtl.train.options import RunOptions
from jaxtl.train.writing import NotWritten

USAGE = """\
python launch.py --list
python launch.py --experiment=NAME [--seeds=5] [--arms=A,B] [--config.FIELD=VALUE ...]
python launch.py --experiment=NAME --help      the fields of its Config, and --run.* options
python launch.py --prepare=DATASET             download and prepare a TFDS dataset
python launch.py --export=RUN_DIR [--format=stablehlo] [--arm=A] [--stage=S] [--seed=0]
"""

FOLDER = Path("experiments")
MOST_SEEDS = 10_000
EXPORT_FLAGS = ("format", "arm", "stage", "seed")


def define_flags() -> flags.FlagValues:
    """The flags besides --config.* and --run.*; nothing global is touched."""
    values = flags.FlagValues()

    def define(definition, name: str, default: Any, text: str) -> None:
        definition(name, default, text, flag_values=values)

    define(flags.DEFINE_string, "experiment", None, "a file of experiments/, without .py")
    define(flags.DEFINE_bool, "list", False, "show every experiment with its measured result")
    define(flags.DEFINE_string, "prepare", None, "prepare a TFDS dataset, then stop")
    define(flags.DEFINE_string, "export", None, "write a model of this run to RUN_DIR/export, stop")
    define(flags.DEFINE_string, "format", "safetensors", "of --export: safetensors, or stablehlo")
    define(flags.DEFINE_string, "arm", None, "of --export: an arm; by default the best one")
    define(flags.DEFINE_string, "stage", None, "of --export: a stage; by default the arm's last")
    define(flags.DEFINE_integer, "seed", None, "of --export: a seed; by default the run's first")
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
    return values


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit status.

    That is 0 (also when SIGTERM stopped it, saved), 1 for bad input, 130 for Ctrl-C.
    """
    try:
        return _main(list(argv))
    except (ValueError, flags.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
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


def _main(argv: list[str]) -> int:
    ours = ("--config.", "--run.")
    values = define_flags()
    rest = values([arg for arg in argv if not arg.startswith(ours)])
    if len(rest) > 1:
        raise ValueError(f"unexpected argument {rest[1]!r}; flags are written --name=value")
    fields = [arg for arg in argv[1:] if arg.startswith(ours)]
    if bare := [arg for arg in fields if "=" not in arg]:
        raise ValueError(f"{bare[0]}: write {bare[0]}=VALUE")
    if values.list:
        return show_list()
    if values.prepare:
        return prepare(values.prepare, fields)
    if values.export is not None:
        return export(values, fields)
    for name in EXPORT_FLAGS:
        if values[name].present:
            hint = f"; did you mean --{name}s?" if f"{name}s" in values else ""
            raise ValueError(f"--{name} goes with --export=RUN_DIR{hint}")
    if values.experiment is None:
        print(USAGE + values.get_help(include_special_flags=False) if values.help else USAGE)
        if not values.help:
            raise ValueError("--experiment=NAME is missing; --list shows the names")
        return 0
    path = find(values.experiment)
    seeds = parse_seeds(values.seeds)
    arms = () if values.arms == "all" else tuple(values.arms.split(","))
    check_arm_names(path, arms)
    options = parse(RunOptions(), "run", [f for f in fields if f.startswith("--run.")])
    if options.data_dir:
        os.environ["TFDS_DATA_DIR"] = options.data_dir
    return launch(path, seeds, arms, options, fields, values)


def known_experiments() -> list[str]:
    """Names of the files of experiments/ in the current directory."""
    if not FOLDER.is_dir():
        raise ValueError(f"no folder {FOLDER}/ here ({Path.cwd()}); run from the repository's root")
    return sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_"))


def find(name: str) -> Path:
    """The file of an experiment.

    Raises:
        ValueError: there is none of that name.
    """
    known = known_experiments()
    if name not in known:
        raise ValueError(unknown("experiment", name, known))
    return FOLDER / f"{name}.py"


def parse_seeds(text: str) -> tuple[int, ...]:
    """`5` -> (0, 1, 2, 3, 4); `0,3,7` -> those.

    Raises:
        ValueError: not numbers, none, one twice, negative ones or some above 31 bits.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--seeds={text}: expected a number or a list such as 0,3,7") from None
    seeds = numbers if "," in text else range(numbers[0])
    if len(seeds) > MOST_SEEDS:
        raise ValueError(f"--seeds={text}: at most {MOST_SEEDS:,} seeds train in one program")
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**31 or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"--seeds={text}: expected at least one seed, each in [0, 2**31) and named once"
        )
    return tuple(seeds)


def check_arm_names(path: Path, arms: Sequence[str]) -> None:
    """Refuse an unknown arm by reading the file, where its arms are all in one literal dict.

    Raises:
        ValueError: an arm is not among them.
    """
    nodes = list(ast.walk(parsed(path)))
    if any(map(_adds_arms, nodes)):
        return
    for node in nodes:
        named = isinstance(node, ast.keyword) and node.arg == "arms"
        if isinstance(node, ast.Assign):
            named = any(isinstance(name, ast.Name) and name.id == "arms" for name in node.targets)
        if named and isinstance(node.value, ast.Dict):
            known = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            for arm in arms:
                if arm not in known and len(known) == len(node.value.keys):
                    raise ValueError(unknown("arm", arm, known))


def _adds_arms(node: ast.AST) -> bool:
    """Whether a statement puts more into `arms`: `arms |= ...` or `arms[name] = ...`."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    found = [t.value if isinstance(t, ast.Subscript) else t for t in targets]
    changes = isinstance(node, ast.AugAssign) or any(isinstance(t, ast.Subscript) for t in targets)
    return changes and any(isinstance(t, ast.Name) and t.id == "arms" for t in found)


def parsed(path: Path) -> ast.Module:
    """The syntax tree of an experiment file.

    Raises:
        ValueError: it is not Python.
    """
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from error


def docstring(path: Path) -> str:
    return ast.get_docstring(parsed(path)) or ""


def result_line(text: str) -> str:
    """The paragraph of a docstring that begins with `Result:`, as one line."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("Result:"):
            return " ".join(paragraph.removeprefix("Result:").split())
    return "not measured"


def show_list() -> int:
    """Print every experiment, what it asks and what was measured."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=True)
    for column in ("experiment", "question", "measured result"):
        table.add_column(column, overflow="fold")
    for name in known_experiments():
        try:
            text = docstring(FOLDER / f"{name}.py")
        except ValueError as error:
            text = f"not readable: {error}"
        table.add_row(name, text.split("\n\n")[0].replace("\n", " "), result_line(text))
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
    from jaxtl.export.files import export_run

    print(export_run(Path(values.export), *(values[name].value for name in EXPORT_FLAGS)))
    return 0


def show_help(module: Any) -> None:
    """Print an experiment's docstring, the fields of its Config and the run options."""
    print(module.__doc__)
    for group, config in (("config", module.Config()), ("run", RunOptions())):
        for name in field_names(config, ""):
            print(f"  --{group}.{name}={get_field(config, name)!r}")


def launch(
    path: Path,
    seeds: tuple[int, ...],
    arms: tuple[str, ...],
    options: RunOptions,
    fields: Sequence[str],
    values: flags.FlagValues,
) -> int:
    """Import the experiment and run it."""
    sys.path.insert(0, str(Path.cwd()))
    module = importlib.import_module(f"{FOLDER}.{path.stem}")
    if missing := [name for name in ("Config", "build") if not hasattr(module, name)]:
        raise ValueError(f"{path} has no {' and no '.join(missing)}; copy one of the others")
    if values.help:
        show_help(module)
        return 0
    config_args = [arg for arg in fields if arg.startswith("--config.")]
    config = parse(module.Config(), "config", config_args)
    configure(options, values.verbose)
    connect(values.distributed)

    from rich.console import Console

    from jaxtl.report import print_table
    from jaxtl.train.experiment import run_experiment
    from jaxtl.train.identity import file_digest
    from jaxtl.train.interrupt import Interrupted
    from jaxtl.train.progress import Reporter
    from jaxtl.train.run import Run
    from jaxtl.train.sharding import is_primary
    from jaxtl.train.traced import Sweep

    run = Run(
        name=path.stem,
        config=json_values(config),
        experiment_digest=file_digest(path),
        seeds=seeds,
        arms=arms,
        directory=Path(values.workdir) / path.stem,
        options=options,
        resume=values.resume,
        headline=docstring(path).split("\n")[0],
        oracle=values.oracle,
    )
    points = sweep_points(config, values.sweep, getattr(module, "SWEEP", {}))
    sweep = Sweep(
        [fields_ for fields_, _ in points],
        [json_values(swept) for _, swept in points],
        lambda fields_: module.build(replace_fields(config, fields_)),
    )
    reporter = Reporter(Console(quiet=not is_primary()))
    try:
        summary = run_experiment(module.build(config), run, reporter, sweep if points else None)
    except Interrupted as stopped:
        print(f"{stopped}: saved; the same command goes on from here", file=sys.stderr)
        return 130 if stopped.signal == signal.SIGINT else 0
    if not is_primary():
        return 0
    print_table(summary)
    print(f"\nreport: {run.directory / 'report.html'}")
    return 0


def configure(options: RunOptions, verbose: bool) -> None:
    """Logging and the compilation cache."""
    import logging

    import jax

    logging.basicConfig(format="%(message)s")
    logging.getLogger("jaxtl").setLevel(logging.INFO if verbose else logging.WARNING)
    # What Orbax calls an error it raises too; TensorStore's broken-off writes say no more.
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.ERROR if verbose else logging.CRITICAL)
    if not verbose and sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = without_closed_loops
    folder = options.compilation_cache
    if folder == "auto":
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = str(Path(cache) / "jaxtl" / "compiled")
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if options.cpu_devices:
        jax.config.update("jax_num_cpu_devices", options.cpu_devices)


def without_closed_loops(unraisable: Any) -> None:
    """A `sys.unraisablehook` that is silent on what a failed write leaves in other threads."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def connect(distributed: str) -> None:
    """Join the other processes of a run, before JAX is used.

    Args:
        distributed: `off`; `auto` for what the cluster says (a TPU pod, Slurm); or
            `ADDRESS:PORT,COUNT,INDEX`: the first process's address, the number of processes and
            which of them this one is.

    Raises:
        ValueError: another form, or there is no cluster that says.
    """
    if distributed == "off":
        return
    import jax

    if distributed == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ValueError(
                "--distributed=auto: no cluster says which processes there are; use "
                f"--distributed=ADDRESS:PORT,COUNT,INDEX ({error})"
            ) from error
        return
    address, *numbers = distributed.split(",")
    if ":" not in address or len(numbers) != 2 or not all(n.isdigit() for n in numbers):
        raise ValueError(
            f"--distributed={distributed}: expected off, auto or ADDRESS:PORT,COUNT,INDEX"
        )
    count, index = map(int, numbers)
    jax.distributed.initialize(address, num_processes=count, process_id=index)
