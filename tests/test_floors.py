"""Imports go down: who may import whom, how large a room may be, what it may be called."""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxtl"
MAY_IMPORT = {
    "paths": "",
    "files": "",
    "lock": "files",
    "stopping": "",
    "timing": "",
    "blame": "",
    "form": "blame",
    "plan": "form",
    "fields": "files paths",
    "experiment_file": "blame files form paths plan",
    "data": "files form paths plan",
    "models": "fingerprint form paths plan",
    "fingerprint": "",
    "features": "data files fingerprint models paths plan",
    "losses": "form paths plan",
    "metrics": "plan",
    "transferability": "plan",
    "methods": "data features form losses models paths plan",
    "pretrained": "data features files form models paths plan",
    "train": "blame data features files fingerprint form models paths plan stopping",
    "measure": "data features form losses metrics models paths plan timing train transferability",
    "report": "files measure metrics plan",
    "export": "data experiment_file features fields files fingerprint models paths plan pretrained "
    "report train",
    "arguments": "experiment_file fields files paths train",
    "surroundings": "files",
    "study": "arguments blame data experiment_file export features fields files fingerprint "
    "form lock measure models paths plan report surroundings timing train",
    "usage": "arguments experiment_file fields surroundings",
    "cli": "arguments blame data experiment_file export features fields files report study "
    "stopping surroundings timing train usage",
}
ROOMS = {room: set(others.split()) for room, others in MAY_IMPORT.items()}
MOST_FILES = 12
FAMILIES = ("methods", "losses", "models", "measure/analyses")  # a file for each member
BUILDERS = ("data", "prepared", "builders")  # TFDS reads these, by name, when it prepares
FILES = sorted(PACKAGE.rglob("*.py"))
UNLOVED = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def names(path):
    """The parts of a module's name, without jaxtl."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path):
    """[(module, line, whether it is done when this module is imported)], absolute names."""
    found = []

    def visit(node, top):
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            # `from jaxtl import data` imports the room, `from jaxtl.data import x` may.
            found.append((node.module, node.lineno, top))
            found.extend((f"{node.module}.{alias.name}", node.lineno, top) for alias in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, top and not inside and not typing_only)

    visit(ast.parse(path.read_text()), True)
    return found


def rooms(path):
    """{room of jaxtl that a file imports from: line}."""
    used = {}
    for module, line, _ in imports(path):
        package, *rest = module.split(".")
        if package == "jaxtl" and rest and rest[0] in ROOMS:
            used.setdefault(rest[0], line)
    return used


def packages(path, only_top=False):
    return {module.split(".")[0] for module, _, top in imports(path) if top or not only_top}


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(names(path)) or "jaxtl")
def test_imports_go_down(path):
    own = names(path)
    if not own:
        assert not packages(path, only_top=True)
        return
    assert own[0] in ROOMS, f"{path} stands in no room"
    for room, line in rooms(path).items():
        assert room in {own[0], *ROOMS[own[0]]}, f"{path}:{line} imports {room}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(names(path)) or "jaxtl")
def test_packages(path):
    assert not packages(path) & {"tensorflow", "torch", "keras"}
    if names(path)[:1] != ("models",):
        modules = {module for module, _, _ in imports(path)}
        assert not {m for m in modules if m.startswith(("flax.linen", "flax.nnx"))}
    late = {"tensorflow_datasets", "orbax", "grain", "matplotlib", "sklearn", "tensorboardX"}
    late |= {"pandas", "polars", "datasets", "pyarrow"}
    if names(path)[:3] != BUILDERS:
        assert not packages(path, only_top=True) & late


def test_rooms_and_names():
    assert {name for path in FILES for name in names(path)[:1]} == ROOMS.keys()
    assert not {name for path in FILES for name in names(path)} & UNLOVED
    assert max(len(path.read_text().splitlines()) for path in FILES) <= 350
    families = [PACKAGE / family for family in FAMILIES]
    for folder in {path.parent for path in FILES}:
        if {folder, *folder.parents}.intersection(families):
            continue
        inside = {p.stem for p in folder.iterdir()} - {"__init__", "__pycache__"}
        assert folder == PACKAGE or len(inside) <= MOST_FILES, f"{folder} is crowded"


def test_the_rooms_stand_on_each_other():
    graphlib.TopologicalSorter(ROOMS).prepare()  # a circle raises


def test_no_file_imports_itself_by_way_of_others():
    files = {names(path): path for path in FILES}

    def file(module):
        parts = tuple(module.split(".")[1:])
        return parts if parts in files else parts[:-1]

    graph = {
        name: {
            file(module)
            for module, _, top in imports(path)
            if top and module.startswith("jaxtl.") and file(module) not in ((), name)
        }
        for name, path in files.items()
        if path.stem != "__init__"  # a room's face hands names on
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_nothing_at_run_time_needs_the_tests():
    assert not [path for path in FILES if packages(path) & {"pytest", "tests", "chex"}]


def test_the_parser_sees_what_it_must(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "from jaxtl import data\n"
        "import jaxtl.train.loop as loop\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from jaxtl.plan import Head\n"
        "def f():\n    from jaxtl.report import write\n    import orbax\n"
    )
    assert rooms(path).keys() == {"data", "train", "plan", "report"}
    assert "orbax" in packages(path) and "orbax" not in packages(path, only_top=True)
