"""Every block of code of every README runs as it stands, long ones with fewer steps and arms."""

import contextlib
import importlib
import inspect
import itertools
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest
from contained import containing

from jaxtl import cli
from jaxtl.arguments import read
from jaxtl.data.prepared.preparation import check_names
from jaxtl.experiment_file import config_fields, find

ROOT = Path(__file__).parents[1]
READMES = [
    path
    for path in sorted(ROOT.rglob("README.md"))
    if not any(part.startswith(".") or part == "runs" for part in path.relative_to(ROOT).parts)
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEPS = ("source_steps", "target_steps", "steps")
SECOND_ARM = {"digits": "source_only"}
HOSTS = ("gcloud", "srun")
REPLACES = re.compile(r"^def (tasks\(\)|network\(heads\)|ways\(adam\)):", re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def contained():
    with containing():
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A clone with the files that the READMEs speak of."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    files = "tests/pretrained/peft_files"
    shutil.copytree(ROOT / files, tmp_path / files)
    rng = np.random.default_rng(0)
    for place in "ab":
        rows = [
            f"{a:.3f},{b:.3f},{'ill' if a > b else 'well'}" for a, b in rng.normal(size=(40, 2))
        ]
        (tmp_path / f"hospital_{place}.csv").write_text("\n".join(["age,pressure,outcome", *rows]))
        for part, number in itertools.product(("train", "test"), range(2)):
            kind = tmp_path / f"photos_{place}" / part / ("cat", "dog")[number]
            kind.mkdir(parents=True)
            for index in range(6):
                pixels = rng.integers(0, 128, (40, 30, 3)) + 120 * number
                PIL.Image.fromarray(pixels.astype(np.uint8)).save(kind / f"{index}.png")
    shutil.copytree(tmp_path / "photos_a", tmp_path / "photos")
    patients = [
        f"{40 + i},{'fm'[i % 2]},{'AB'[i // 5]},{'ill' if i % 3 else 'well'},{i}" for i in range(10)
    ]
    table = ["age,sex,ward,outcome,days", *patients]
    (tmp_path / "patients.csv").write_text("\n".join(table))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_runs(path, folder):
    text = path.read_text()
    names: dict = {}
    for block in BLOCK.finditer(text):
        language, code = block.groups()
        line = text[: block.start()].count("\n") + 1
        assert language in ("python", "bash", "text"), f"{path}:{line}: a block of no language"
        if language == "bash":
            for command in commands(code):
                run_command(command, folder)
        elif language == "python" and REPLACES.search(code):
            run_fork(code)
        elif language == "python":
            exec(compile("\n" * line + code, str(path), "exec"), names)


def test_links_lead_somewhere():
    for path in READMES:
        for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
            assert target.startswith("https://") or (path.parent / target).exists(), (path, target)


def commands(code: str) -> list[str]:
    """The commands of a block, without comments, a line each."""
    lines = [
        shlex.join(shlex.split(line, comments=True))
        for line in code.replace("\\\n", " ").split("\n")
    ]
    return [line for line in lines if line]


def run_command(command: str, folder: Path) -> None:
    for words in split_commands(shlex.split(command)):
        if words[0] in HOSTS:
            inner = (
                words[words.index("python") :]
                if "python" in words
                else shlex.split(words[-1].split("=", 1)[1])
            )
            words = split_commands(inner)[-1]
        if words[:2] == ["python", "launch.py"]:
            launch(words[1:])
        elif words[0] == "cp":
            shutil.copy(words[1], words[2])
        elif words[:2] == ["pip", "install"]:
            check_extras(words[2:], folder)
        elif words[:3] == ["python", "-m", "pytest"]:
            assert all((ROOT / word).exists() for word in words[3:] if "/" in word)
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), words
        else:
            assert words[:3] == ["python", "-m", "venv"] or words[0] in (".", "cd"), words


def split_commands(words: list[str]) -> list[list[str]]:
    """`a && b` -> those of a, those of b."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def launch(words: list[str]) -> None:
    """Runs a command line of ours, small; one of several hosts is read and no more."""
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    experiment = given.get("--experiment")
    if "--prepare" in given:  # it downloads
        check_names(given["--prepare"].split(","))
        return
    devices = int(given.get("--run.cpu_devices", 1))
    if "--distributed" in given or devices > jax.device_count():
        assert read(words)[0].runs and find(experiment)
        return
    words = [word for word in words if not word.startswith("--run.cpu_devices")]
    if experiment and experiment != "iris":
        fields = set(config_fields(find(experiment))).intersection(STEPS)
        words += [f"--config.{field}=2" for field in fields]
        words += ["--seeds=2", f"--arms=scratch,{SECOND_ARM.get(experiment, 'full')}", "--sweep="]
    assert cli.main(words) == 0, words


def check_extras(words: list[str], folder: Path) -> None:
    extras = tomllib.loads((folder / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for word in words:
        for name in re.findall(r"\.\[(\w+)\]", word):
            assert name in extras, word


def run_fork(code: str) -> None:
    """The experiment to be copied with functions of its own in place of the first ones."""
    template = Path("experiments/wine.py").read_text()
    Path("experiments/mine.py").write_text(f"{template}\n\n{code}")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree("runs/mine")
    SECOND_ARM["mine"] = "sparse" if '"sparse"' in code else "full"
    launch(["launch.py", "--experiment=mine"])


@pytest.mark.parametrize(
    "room",
    [
        "transfer",
        "adapt",
        "generalize",
        "pretrain",
        "semi",
        "fewshot",
        "multitask",
        "private",
        "adapters",
    ],
)
def test_the_list_of_methods_is_whole(room):
    package = "jaxtl.models" if room == "adapters" else "jaxtl.methods"
    public = vars(importlib.import_module(f"{package}.{room}"))
    listed = re.findall(r"`(?:\w+\.)?(\w+)[`(]", (ROOT / "jaxtl/methods/README.md").read_text())
    names = {name for name, value in public.items() if inspect.isfunction(value) and name[0] != "_"}
    assert names - set(listed) <= {
        "supervised_update",
        "apply_stacked",
        "orthogonality",
        "solve",
        "unmerge",
    }
