"""Imports go down: the rooms of jaxtl stand on floors, and a room knows only those below it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxtl"
FLOORS = (
    {"paths", "files", "blame"},
    {"form", "reading"},
    {"plan"},
    {"models", "data", "losses", "metrics", "transferability", "experiment_file"},
    {"methods", "pretrained"},
    {"train", "report", "fields", "export"},
    {"arguments", "surroundings"},
    {"cli"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SIDEWAYS = {
    ("train", "report"),  # training ends with a report, which knows nothing of training
    *(("export", room) for room in ("train", "report", "fields")),  # reads what they left
}
BUILDERS = {("data", "usps")}  # TFDS reads these, by name, when it prepares or loads them
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
        if package == "jaxtl" and rest and rest[0] in FLOOR:
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
    assert own[0] in FLOOR, f"{path} stands on no floor"
    for room, line in rooms(path).items():
        if room != own[0] and (own[0], room) not in SIDEWAYS:
            assert FLOOR[room] < FLOOR[own[0]], f"{path}:{line} imports {room}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(names(path)) or "jaxtl")
def test_packages(path):
    assert not packages(path) & {"tensorflow", "torch", "keras"}
    if names(path)[:1] != ("models",):
        modules = {module for module, _, _ in imports(path)}
        assert not {m for m in modules if m.startswith(("flax.linen", "flax.nnx"))}
    late = {"tensorflow_datasets", "orbax", "grain", "matplotlib", "sklearn", "tensorboardX"}
    if names(path) not in BUILDERS:
        assert not packages(path, only_top=True) & late


def test_rooms_and_names():
    assert {name for path in FILES for name in names(path)[:1]} <= FLOOR.keys()
    assert not {name for path in FILES for name in names(path)} & UNLOVED
    assert max(len(path.read_text().splitlines()) for path in FILES) <= 400


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
