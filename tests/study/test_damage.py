"""Every file of a run, damaged in every way: the same bits again, or one message that names it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from contained import containing
from launched import checkpoint

from jaxtl import cli
from jaxtl.train.store.log import read_curves

EXPERIMENT = '''\
"""Which of two ways is better on three clusters?"""

import dataclasses

import numpy as np
import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize
from jaxtl.transferability import neighborhood_density


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 0.1


def blobs(shift, seed):
    labels = np.arange(24) % 3
    inputs = np.eye(3)[labels] + shift + np.random.default_rng(seed).normal(size=(24, 3)) / 4
    return data.arrays(inputs.astype(np.float32), labels, name="blobs").standardize()


def build(config):
    model = models.mlp({"y": models.classes(3)}, hidden=(4,))

    def stage(name, shift, rate):
        return Stage(
            name,
            model,
            transfer.full(optax.adam(rate)),
            domains=[labelled(blobs(shift, 0), "y")],
            batch_size=8,
            num_steps=6,
        )

    pretrain = stage("pretrain", 0.0, 0.1)
    return Experiment(
        arms={
            "scratch": [stage("scratch", 0.5, config.rate)],
            "full": [pretrain, stage("full", 0.5, config.rate)],
        },
        baseline="scratch",
        evals={"test": classification(blobs(0.5, 1), "y")},
        primary=maximize("test", "accuracy"),
        select=maximize("snd"),
        select_every=2,
        criteria={"snd": neighborhood_density(blobs(0.5, 2), "y")},
        analyses=(),
    )
'''
COMMAND = ["--seeds=2", "--run.checkpoint_every=2", "--run.steps_per_dispatch=2"]
SWEPT = [*COMMAND, "--arms=scratch,full", "--sweep=rate=0.1,0.01"]
LOST = ["truncated", "emptied", "garbled", "[]", "3", "null", '"x"', "{}", "folder", "deleted"]
FULL = "stages/full"
SWEEP = "sweep/*/stages/scratch"
FILES = [
    *("config.json", "environment.json", "preprocessing.json", "summary.json", "report.html"),
    *("preprocessing/*.npz", "report_data/full.npz", "figures/gains.png"),
    *(
        f"{stage}/{file}"
        for stage in (FULL, "stages/pretrain", SWEEP)
        for file in ("stage.json", "metrics.jsonl")
    ),
    *(f"{FULL}/checkpoints/6/{file}" for file in ("_CHECKPOINT_METADATA", "checksums.json")),
    *(f"{FULL}/checkpoints/6/state/{file}" for file in ("_METADATA", "manifest.ocdbt", "d/*")),
    f"{SWEEP}/checkpoints/6/state/d/*",
]
FOLDERS = ["checkpoints", "checkpoints/6", "checkpoints/6/state", "checkpoints/6/state/d"]
REMEDIES = ("--overwrite", "--workdir", "once that is mended", "anew", "again", "goes on")


def damage(path: Path, how: str) -> None:
    content = path.read_bytes() if path.is_file() else b""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "garbled":
        path.write_bytes(np.random.default_rng(0).bytes(len(content) or 9))
    elif how != "deleted":
        path.write_bytes(b"" if how == "emptied" else how.encode())


@pytest.fixture(scope="module", autouse=True)
def contained():
    with containing():
        yield


def launch(directory: Path, *args: str) -> int:
    file = directory.parents[1] / "tiny.py"
    return cli.main(["launch.py", f"--experiment={file}", f"--workdir={directory.parent}", *args])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(directory of a run that nothing happened to, what it measured)."""
    root = tmp_path_factory.mktemp("finished")
    (root / "tiny.py").write_text(EXPERIMENT)
    directory = root / "w" / "tiny"
    assert launch(directory, *SWEPT) == 0
    return directory, measured(directory)


def measured(directory: Path) -> dict[str, list[float]]:
    summary = json.loads((directory / "summary.json").read_text())
    arms = {"": summary["arms"]} | {str(p["config"]): p["arms"] for p in summary["sweep"]}
    return {
        f"{point} {arm} {name}": values["per_seed"]
        for point, entries in arms.items()
        for arm, entry in entries.items()
        for name, values in entry["metrics"].items()
    }


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished[0].parents[1], tmp_path / "copy")
    return tmp_path / "copy" / "w" / "tiny"


def assert_whole(directory, finished, *, curves=True):
    """The same numbers, weights and, unless they were damaged, curves."""
    assert measured(directory) == finished[1] and len(finished[1]) > 10
    for whole in sorted(finished[0].glob("**/stages/*")):
        stage = directory / whole.relative_to(finished[0])
        leaves, expected = (checkpoint(path / "checkpoints") for path in (stage, whole))
        assert leaves.keys() == expected.keys()
        for path, leaf in leaves.items():
            np.testing.assert_array_equal(leaf, expected[path], err_msg=path)
        lines, expected = read_curves(stage), read_curves(whole)
        for name, values in lines.items():  # a part of them, or all
            np.testing.assert_array_equal(values, expected[name][: len(values)], err_msg=name)
        assert not curves or len(lines["step"]) == len(expected["step"]) > 1


def assert_harmless(copied, finished, path, how, capsys, caplog):
    """Launch again; returns "same bits" or "one message"."""
    status = launch(copied, *SWEPT)
    text = capsys.readouterr().err
    assert (
        "Traceback" not in text and "never awaited" not in text and "Exception ignored" not in text
    )
    if status == 0:
        assert_whole(copied, finished, curves=path.name != "metrics.jsonl")
        if path.name == "metrics.jsonl":
            assert str(path) in caplog.text + text
        return "same bits"
    assert status == 1 and text.count("error: ") == 1, text
    (message,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert str(path) in message and any(remedy in message for remedy in REMEDIES), message
    return "one message"


@pytest.mark.parametrize(
    "name, how, expected",
    [
        ("summary.json", "[]", "same bits"),
        ("stages/pretrain/metrics.jsonl", "truncated", "same bits"),
        ("stages/full/stage.json", "emptied", "one message"),
        ("stages/full/stage.json", "deleted", "one message"),
        ("stages/full/checkpoints/6/state/d/*", "garbled", "same bits"),
    ],
)
def test_a_damaged_file_does_no_harm(copied, finished, name, how, expected, capsys, caplog):
    path = next(copied.glob(name))
    damage(path, how)
    assert assert_harmless(copied, finished, path, how, capsys, caplog) == expected


@pytest.mark.slow
@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("name", FILES)
def test_every_file_damaged_in_every_way(
    copied, finished, name, how, capsys, caplog, record_property
):
    path = next(copied.glob(name))
    damage(path, how)
    record_property("outcome", assert_harmless(copied, finished, path, how, capsys, caplog))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["deleted", "emptied"])
@pytest.mark.parametrize("name", FOLDERS)
def test_every_folder_of_checkpoints_lost_or_replaced_by_a_file(
    copied, finished, name, how, capsys, caplog, record_property
):
    path = copied / FULL / name
    damage(path, how)
    record_property("outcome", assert_harmless(copied, finished, path, how, capsys, caplog))


@pytest.mark.slow
@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("name", ["stage.json", "metrics.jsonl", "checkpoints/4/state/d/*"])
def test_every_file_of_an_interrupted_run(
    copied, finished, name, how, capsys, caplog, record_property
):
    stage = copied / FULL
    shutil.rmtree(stage / "checkpoints" / "6")
    record = json.loads((stage / "stage.json").read_text())
    (stage / "stage.json").write_text(json.dumps(record | {"finished": False}))
    lines = (stage / "metrics.jsonl").read_text().splitlines(keepends=True)
    (stage / "metrics.jsonl").write_text("".join(lines[:4]))
    path = next(stage.glob(name))
    damage(path, how)
    record_property("outcome", assert_harmless(copied, finished, path, how, capsys, caplog))


@pytest.mark.slow
@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize(
    "name",
    ["config.json", "environment.json", "preprocessing.json", "preprocessing/*.npz", "summary.json"]
    + [f"{FULL}/{file}" for file in ("stage.json", "checkpoints/6/state/d/*")],
)
def test_export_of_a_damaged_run(copied, name, how, capsys, record_property):
    path = next(copied.glob(name))
    damage(path, how)
    status = cli.main(["launch.py", f"--export={copied}", "--arm=full"])
    text = capsys.readouterr().err
    assert "Traceback" not in text
    if status:
        assert status == 1 and text.count("error: ") == 1 and path.name in text, text
    record_property("outcome", "one message" if status else "same bits")


@pytest.mark.slow
@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("name", ["stage.json", "metrics.jsonl", "checkpoints/6/state/d/*"])
def test_a_damaged_source_run(copied, tmp_path, name, how, capsys, record_property):
    path = next((copied / "stages" / "pretrain").glob(name))
    damage(path, how)
    target = copied.parents[1] / "target" / "tiny"
    status = launch(target, *COMMAND, "--arms=scratch,full", f"--run.source_run={copied}")
    text = capsys.readouterr().err
    assert "Traceback" not in text
    if status:
        assert text.count("error: ") == 1 and str(copied) in text, text
    record_property("outcome", "one message" if status else "same bits")


@pytest.mark.slow
def test_a_second_damage_of_a_step_does_not_overwrite_the_first(copied, finished):
    for _ in range(2):
        damage(next((copied / FULL / "checkpoints" / "6" / "state").glob("d/*")), "garbled")
        assert launch(copied, *SWEPT) == 0
    names = {path.name for path in (copied / FULL / "checkpoints").iterdir()}
    assert names == {"4", "6", "damaged-6", "damaged-6-2"}
    assert_whole(copied, finished)
