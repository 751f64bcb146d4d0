"""Experiment files: found by name or path, read without running them, imported from there."""

import ast
import dataclasses
import hashlib
import importlib.util
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxtl.blame import place_of, summary
from jaxtl.files import user_path
from jaxtl.paths import LISTED, unknown

FOLDER = Path("experiments")


def known_experiments() -> list[str]:
    """Names of the files of experiments/ in the current directory."""
    if not FOLDER.is_dir():
        raise ValueError(
            f"no folder {FOLDER}/ here; run from the repository's root, or name the path of a file"
        )
    return sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_"))


def find(name: str) -> Path:
    """The file of an experiment: of this name in experiments/, or at this path.

    Raises:
        ValueError: there is none.
    """
    if not name.endswith(".py") and "/" not in name:
        names = known_experiments()
        if name in names:
            return FOLDER / f"{name}.py"
        if not Path(name).exists():
            raise ValueError(unknown("experiment", name, names))
    path = Path(user_path(name))
    for place in (path, FOLDER / name):
        for file in (place, place.with_name(f"{place.name}.py")):
            if file.suffix == ".py" and file.is_file():
                return file
    if not path.parent.is_dir():
        raise ValueError(f"no file {name}: there is no folder {path.parent}")
    folder = path if path.is_dir() else path.parent
    nearby = sorted(file.stem for file in folder.glob("*.py"))
    if path.is_dir():
        some = ", ".join(nearby[:LISTED]) + ", ..." * (len(nearby) > LISTED)
        raise ValueError(f"no file {name}: it is a folder; experiments in it: {some or 'none'}")
    if path.exists():
        raise ValueError(f"no file {name} that is Python: its name must end in .py")
    names = {*nearby, *(known_experiments() if FOLDER.is_dir() else ())}
    problem = unknown("experiment", path.name.removesuffix(".py"), names)
    raise ValueError(f"no file {name}; {problem}")


def syntax_tree(path: Path) -> ast.Module:
    """The syntax tree of an experiment file.

    Raises:
        ValueError: it is not Python, or cannot be read.
    """
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from error
    except (OSError, ValueError) as error:  # a NUL byte is a ValueError
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def docstring(path: Path) -> str:
    return ast.get_docstring(syntax_tree(path)) or ""


def result_line(text: str) -> str:
    """The paragraph of a docstring that begins with `Result:`, as one line."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("Result:"):
            return " ".join(paragraph.removeprefix("Result:").split())
    return "not measured"


def config_fields(path: Path) -> list[str]:
    """Dotted names of the fields of a file's `Config`, as far as they are written in it."""
    nodes = [node for node in syntax_tree(path).body if isinstance(node, ast.ClassDef)]
    classes = {node.name: node for node in nodes}

    def names(kind: str, prefix: str = "") -> Iterator[str]:
        for line in classes[kind].body if kind in classes else ():
            if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
                continue
            inner = getattr(line.annotation, "id", "")
            if inner in classes and inner != kind:
                yield from names(inner, f"{prefix}{line.target.id}.")
            else:
                yield f"{prefix}{line.target.id}"

    return list(names("Config"))


def code_digest(source: bytes) -> str:
    """Of an experiment file without its docstring, its comments and the defaults of its `Config`.

    Files of one digest build the same experiment of the same config.

    Raises:
        ValueError: it is not Python.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(str(error)) from error
    if ast.get_docstring(tree) is not None:
        del tree.body[0]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Config":
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Constant):
                    line.value = None
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def root_of(file: Path) -> Path:
    """What an experiment file may import from: the folder that holds experiments/, or its own."""
    folder = file.absolute().parent
    return folder.parent if folder.name == FOLDER.name else folder


def module_of(file: Path) -> ModuleType:
    """A file as a module that no other file or package of its name replaces, whatever its name.

    Raises:
        ValueError: it is not Python, or lacks `Config` or `build`.
    """
    file = file.absolute()
    syntax_tree(file)
    content = hashlib.sha256(f"{file}\0".encode(errors="surrogateescape") + file.read_bytes())
    stem = re.sub(r"\W", "_", file.stem)
    name = f"jaxtl_experiment_{stem}_{content.hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise
    if missing := [part for part in ("Config", "build") if not hasattr(sys.modules[name], part)]:
        raise ValueError(f"{file} has no {' and no '.join(missing)}; copy one of the others")
    return sys.modules[name]


def read_config(module: ModuleType) -> Any:
    """The default config of an experiment file.

    Raises:
        ValueError: its `Config` is no dataclass whose fields all have defaults.
    """
    file = place_of(module)
    config = module.Config
    if not isinstance(config, type) or not dataclasses.is_dataclass(config):
        kind = "an instance" if dataclasses.is_dataclass(config) else "none"
        raise ValueError(
            f"{file}: Config must be a dataclass, a class under "
            f"@dataclasses.dataclass(frozen=True); it is {kind}"
        )
    bare = [
        field.name
        for field in dataclasses.fields(config)
        if field.init and field.default is field.default_factory is dataclasses.MISSING
    ]
    if bare:
        raise ValueError(f"{file}: these fields of Config need defaults: {', '.join(bare)}")
    try:
        typing.get_type_hints(config)
    except Exception as error:  # an annotation may be any expression
        raise ValueError(
            f"{file}: the annotations of Config cannot be read: {summary(error)}"
        ) from error
    return config()


def read_sweep(module: ModuleType) -> Mapping[str, Any]:
    """The sweep that an experiment file asks for, {field: values}; empty if none.

    Raises:
        ValueError: its `SWEEP` has another form.
    """
    sweep = getattr(module, "SWEEP", {})
    if not isinstance(sweep, Mapping):
        raise ValueError(
            f"{place_of(module)}: SWEEP must be {{field of Config: (value, value, ...)}}, got a "
            f"{type(sweep).__name__}"
        )
    for field, values in sweep.items():
        if not isinstance(field, str) or not isinstance(values, list | tuple) or not values:
            raise ValueError(
                f"{place_of(module)}: SWEEP[{field!r}] must be a list or tuple of values of "
                f"a field of Config, got {values!r:.60}"
            )
    return sweep


def build_experiment(module: ModuleType, config: Any) -> Any:
    """The `Experiment` that an experiment file builds.

    Raises:
        ValueError: its `build` is no function of the config, or returns something else.
    """
    from jaxtl.form import describe  # imports JAX, which a mistyped name need not wait for
    from jaxtl.plan import Experiment

    build = module.build
    place = place_of(build) or place_of(module)
    try:
        inspect.signature(build).bind(config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: build must be a function of the config: {error}") from None
    experiment = build(config)
    if isinstance(experiment, Experiment):
        return experiment
    hints = {
        type(None): "; is its `return` missing?",
        dict: "; write Experiment(arms=..., baseline=..., evals=..., primary=...)",
    }
    hint = hints.get(type(experiment), "")
    if inspect.isgenerator(experiment) or inspect.iscoroutine(experiment):
        hint = "; write `return` in place of `yield`, and no `async`"
    raise ValueError(
        f"{place}: build must return an Experiment, it returned {describe(experiment)}{hint}"
    )
