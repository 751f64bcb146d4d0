"""Experiment files of any name, anywhere."""

import sys

import pytest

from jaxtl import experiment_file
from jaxtl.experiment_file import config_fields, find, module_of, root_of

FILE = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    more: "Inner" = None

class Loose:
    x: int = 1

@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 3
    inner: Inner = Inner()
    sizes: tuple[int, ...] = ()

def build(config):
    return __file__
"""
NAMES = ["toy", "v1.5", "two words", "my-study", "class", "jaxtl", "json", "ärmel", "1st", "a,b"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory, with experiments of all names, and a folder beside it."""
    for name in NAMES:
        path = tmp_path / "here" / "experiments" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.py").write_text(FILE)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("jaxtl_experiment_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_imported_whatever_its_name(folder, name):
    path = find(name)
    module = module_of(path)
    assert module.build(module.Config()) == str(folder / "here/experiments" / f"{name}.py")
    assert module_of(path) is module
    assert name not in sys.modules or sys.modules[name] is not module


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("experiments/toy.py", "here/experiments/toy.py"),
        ("experiments/toy", "here/experiments/toy.py"),
        ("./experiments/v1.5", "here/experiments/v1.5.py"),
        ("toy.py", "here/experiments/toy.py"),
        ("../mine/study.py", "mine/study.py"),
        ("../mine/study", "mine/study.py"),
        ("~/mine/study.py", "mine/study.py"),
    ],
)
def test_a_path_is_a_name_too(folder, text, file):
    path = find(text)
    assert path.resolve() == folder / file
    assert root_of(path.resolve()) == folder / file.split("/")[0]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("ty", "unknown experiment 'ty'. Did you mean 'toy'?"),
        ("experiments/ty.py", "no file experiments/ty.py; unknown experiment 'ty'. Did you mean"),
        ("../mine/toy.py", "no file ../mine/toy.py; unknown experiment 'toy'. Did you mean 'toy'?"),
        ("experiments/", "no file experiments/"),
        ("experiments/toy.txt", "no file experiments/toy.txt"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(folder, text, answer):
    with pytest.raises(ValueError) as error:
        find(text)
    assert str(error.value).startswith(answer) and "two words" in str(error.value)


def test_no_package_of_the_same_name_is_taken_for_it(folder, monkeypatch):
    other = folder / "site" / "experiments"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise RuntimeError('another package')")
    monkeypatch.syspath_prepend(str(folder / "site"))
    module = module_of(find("toy"))
    assert module.build(None) == str(folder / "here/experiments/toy.py")


def test_equal_files_in_two_places_are_two_modules(folder):
    (folder / "mine" / "toy.py").write_text(FILE)
    paths = [find("toy"), find("../mine/toy.py")]
    assert len({module_of(path).build(None) for path in paths}) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"x = 1", "has no Config and no build"),
        (b"Config = 1", "has no build"),
        (b"def f(:", "line 1: "),
        (b"x = '\xff'", "line 1: "),
        (b"x = 1\0", "null bytes"),
    ],
)
def test_a_file_that_is_no_experiment(folder, text, problem):
    path = folder / "mine" / "bad.py"
    path.write_bytes(text)
    for _ in range(2):
        with pytest.raises(ValueError, match=problem) as error:
            module_of(path)
        assert "\n" not in str(error.value)


def test_fields_that_a_file_writes(folder, tmp_path):
    assert config_fields(find("toy")) == ["steps", "inner.rate", "inner.more", "sizes"]
    assert experiment_file.docstring(find("toy")) == ""
    (tmp_path / "x.py").write_text("class Config:\n    def f(self): pass\n    a.b: int = 1\n")
    assert config_fields(tmp_path / "x.py") == []
