"""Measured runs as experiments/results.json and experiments/README.md."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from finished_runs import edit, write_run

from jaxtl import cli
from jaxtl.experiment_file import code_digest, module_of, read_config
from jaxtl.fields import parse_value
from jaxtl.report import wording
from jaxtl.report.across.results import claims, first_lines, summary_of
from jaxtl.report.summary import compare, load_summary, statistics
from jaxtl.study.front.across.collect import collect
from jaxtl.train.store.identity import file_digest

EXPERIMENT = '''"""Does {name} help?

    python launch.py --experiment={name}

Result: target/accuracy: scratch 0.5, full 0.6; 3 seeds.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Config:
    learning_rate: float = 0.01


def build(config):
    return None
'''


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with three experiments, of which two are measured."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "three", "two"):
        file = tmp_path / "experiments" / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(EXPERIMENT.format(name=name))
    for name in ("one", "two"):
        measure(tmp_path, name)
    return tmp_path


def measure(root, name, workdir="runs", **changes):
    file = root / "experiments" / f"{name}.py"
    environment = {"folder": str(root), "file": f"experiments/{name}.py"}
    environment |= {"code": code_digest(file.read_bytes())} | changes.pop("environment", {})
    digest = file_digest(file)
    return write_run(root / workdir / name, file=digest, environment=environment, **changes)


def page(root):
    return (root / "experiments" / "README.md").read_text()


def data(root):
    return (root / "experiments" / "results.json").read_text()


def entries(root):
    return json.loads(data(root))["experiments"]


def test_entries_hold_what_was_measured(root):
    collect(root / "runs")
    first, second = entries(root)
    assert (first["experiment"], second["experiment"]) == ("one", "two")
    assert first["command"] == "python launch.py --experiment=one"
    assert first["data"] == ["toy"] and first["hardware"]["cores"] == 2
    full = first["arms"]["full"]
    assert full["verdict"] == "positive"
    assert full["metrics"]["target/accuracy"]["per_seed"] == [0.85, 0.895, 0.84, 0.86, 0.885]
    summary = load_summary(root / "runs" / "one" / "summary.json")
    assert claims(summary_of(first)) == claims(summary)
    text = wording.interval(summary["arms"]["full"]["gain"]["target/accuracy"], signed=True)
    assert f" | {text} | positive | 10 |" in page(root)
    assert "Training took 4.5 s on cpu, 2 cores" in page(root)


def test_links_lead_to_the_lines(root):
    collect(root / "runs")
    lines = data(root).splitlines()
    for name in ("one", "two"):
        section = page(root).split(f"## {name}\n")[1]
        number = int(section.split("results.json#L")[1].split(")")[0])
        assert lines[number - 1].startswith(f' {{"experiment": "{name}"')


def test_without_an_entry_the_docstring_stands_in(root):
    collect(root / "runs")
    section = page(root).split("## three\n")[1]
    assert "Does three help?" in section
    assert "not on file. Its docstring says: target/accuracy: scratch 0.5, full 0.6" in section


def test_collecting_twice_changes_no_byte(root):
    collect(root / "runs")
    before = page(root), data(root)
    collect(root / "runs")
    assert (page(root), data(root)) == before


def test_what_is_not_there_stays(root):
    collect(root / "runs")
    measure(root, "three", workdir="elsewhere", shift=0.01)
    measure(root, "two", workdir="elsewhere", shift=0.02)
    collect(root / "elsewhere")
    assert [entry["experiment"] for entry in entries(root)] == ["one", "three", "two"]
    two = entries(root)[2]["arms"]["scratch"]["metrics"]["target/accuracy"]["per_seed"]
    assert two[0] == 0.82  # that of the new run


def test_numbers_are_rounded_as_far_as_nothing_is_lost(root):
    run = root / "runs" / "one"
    accuracy = [0.9123456789, 0.9123456781, 0.9123956785, 0.9123456782, 0.9123456789]
    summary = json.loads((run / "summary.json").read_text())
    summary["arms"]["full"]["metrics"]["target/accuracy"] = statistics(accuracy, std=True)
    edit(run / "summary.json", **summary)
    collect(root / "runs")
    entry = entries(root)[0]
    values = entry["arms"]["full"]["metrics"]["target/accuracy"]["per_seed"]
    assert values == [0.912346, 0.912346, 0.912396, 0.912346, 0.912346]
    assert claims(summary_of(entry)) == claims(compare(summary))


def test_another_config_is_an_entry_and_a_flag(root):
    measure(root, "one", workdir="runs/more", config={"learning_rate": 0.1}, seeds=(1, 2, 3))
    collect(root / "runs")
    commands = [entry["command"] for entry in entries(root)]
    flags = "--config.learning_rate=0.1 --seeds=1,2,3"
    assert sorted(commands)[:2] == [
        "python launch.py --experiment=one",
        f"python launch.py --experiment=one {flags}",
    ]
    measure(root, "one", workdir="runs/twice")
    with pytest.raises(ValueError, match="are both of one with one config"):
        collect(root / "runs")


def test_flags_of_the_command_stay(root):
    command = (
        "launch.py --experiment one --arms=full,scratch --workdir ~/x --run.dtype=bfloat16 "
        "--run.data_dir=/d --resume=true --sweep=learning_rate=1,2 --config.learning_rate=0.01"
    )
    measure(root, "one", environment={"command": command})
    collect(root / "runs")
    flags = "--run.dtype=bfloat16 --sweep=learning_rate=1,2 --arms=scratch,full"
    assert entries(root)[0]["command"] == f"python launch.py --experiment=one {flags}"


def test_a_flag_of_a_tuple_is_read_as_it_was(root):
    change(root, "one", "float = 0.01", "float = 0.01\n    widths: tuple[int, ...] = (8, 4)")
    measure(root, "one", config={"widths": [2, 3]})
    collect(root / "runs")
    (flag,) = [word for word in shlex.split(entries(root)[0]["command"]) if "widths" in word]
    config = read_config(module_of(root / "experiments" / "one.py"))
    assert parse_value(config, "widths", flag.partition("=")[2]) == (2, 3)


def test_an_entry_that_somebody_broke_is_told(root):
    collect(root / "runs")
    file = root / "experiments" / "results.json"
    file.write_text(data(root).replace('"baseline"', '"basis"', 1))
    with pytest.raises(ValueError, match="entry 1: KeyError: 'baseline'"):
        collect(root / "runs")


def test_a_sweep_over_names_is_answered_over_all_of_them(root):
    run = root / "runs" / "one"
    summary = json.loads((run / "summary.json").read_text())
    points = []
    for index, name in enumerate(("ab", "ba", "bc", "cb")):
        arms = json.loads(json.dumps(summary["arms"]))
        for arm in ("scratch", "full"):
            seeds = arms[arm]["metrics"]["target/accuracy"]["per_seed"]
            gain = 0.01 * index * (arm == "full")
            arms[arm]["metrics"]["target/accuracy"] = statistics([x + gain for x in seeds])
        points.append({"config": {"pair": name}, "arms": arms})
    edit(run / "summary.json", **compare({**summary, "sweep": points}))
    collect(root / "runs")
    assert "Over all 4 points: Yes: full is better than scratch." in page(root)
    assert "| pair | scratch | full |" in page(root) and "| cb |" in page(root)
    assert entries(root)[0]["sweep"][0]["config"] == {"pair": "ab"}


def change(root, name, old, new):
    file = root / "experiments" / f"{name}.py"
    file.write_text(file.read_text().replace(old, new))


def test_a_docstring_or_a_default_is_no_other_experiment(root):
    change(root, "one", "scratch 0.5", "scratch 0.512")
    change(root, "one", "rate: float = 0.01", "rate: float = 0.02  # faster")
    collect(root / "runs")
    assert "another version" not in page(root)
    assert entries(root)[0]["command"].endswith("--config.learning_rate=0.01")


def test_another_file_is_marked_until_it_is_measured(root):
    change(root, "one", "return None", "return 1")
    collect(root / "runs")
    assert "**Measured with another version of its file.**" in page(root)
    measure(root, "one", config={"learning_rate": 0.5})
    lines = collect(root / "runs")
    assert "**Measured" not in page(root) and len(entries(root)) == 2
    assert "one: an entry of another version of its file is gone" in lines


def test_a_run_that_says_nothing_of_its_file_is_known_by_git(root):
    def git(*args):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *args], check=True, capture_output=True)

    git("init")
    git("add", "experiments")
    git("commit", "-m", "as it was measured")
    measure(root, "one", environment={"code": None, "folder": "/gone"})
    change(root, "one", "scratch 0.5", "scratch 0.512")
    collect(root / "runs")
    assert "its file" not in page(root)
    change(root, "one", "return None", "return 1")
    collect(root / "runs")
    assert "another version" in page(root)
    measure(root, "two", environment={"code": None, "folder": "/gone"})
    edit(root / "runs" / "two" / "stages" / "full" / "stage.json", experiment_file="who knows")
    collect(root / "runs")
    assert "Whether its file has changed since is not known" in page(root)


def test_what_is_left_out_is_said(root):
    (root / "runs" / "two" / "summary.json").unlink()
    write_run(root / "runs" / "mine")
    text = "\n".join(collect(root / "runs"))
    assert "two is left out" in text and "is not finished" in text
    assert "there is no experiments/mine.py" in text
    assert len(entries(root)) == 1


def test_nothing_is_replaced_that_was_not_made_here(root):
    readme = root / "experiments" / "README.md"
    readme.write_text("# My notes\n")
    with pytest.raises(ValueError, match="was not made by --collect"):
        collect(root / "runs")
    readme.unlink()
    (root / "experiments" / "results.json").write_text("{")
    with pytest.raises(ValueError, match="it is not JSON"):
        collect(root / "runs")
    assert data(root) == "{" and not readme.exists()


def test_the_command_line_collects(root, capsys):
    assert cli.main(["launch.py", f"--collect={root / 'runs'}"]) == 0
    assert "one: collected" in capsys.readouterr().out
    (root / "empty").mkdir()
    assert cli.main(["launch.py", "--collect=empty"]) == 1
    assert "empty holds no finished run" in capsys.readouterr().err
    assert cli.main(["launch.py", "--collect=nowhere"]) == 1


def test_the_published_files_belong_together():
    """Those of this repository: each experiment in the one is linked to its line in the other."""
    folder = Path(__file__).parents[3] / "experiments"
    published = json.loads((folder / "results.json").read_text())["experiments"]
    text = (folder / "README.md").read_text()
    for entry, line in zip(published, first_lines(published), strict=True):
        assert f"`{entry['command']}`" in text and f"results.json#L{line})" in text
        measured = next(iter(summary_of(entry)["arms"].values()))["metrics"]
        assert wording.interval(measured[entry["primary"]["metric"]]).split()[0] in text
