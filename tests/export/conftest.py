"""Finished runs of tiny experiments, the data of which are gone."""

import io
import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import preparing
import pytest
from leaving import EXPERIMENT, TEST, TRAIN
from rich.console import Console

from jaxtl import cli
from jaxtl.export.rebuild import rebuild
from jaxtl.study.experiment import check, train_arms
from jaxtl.study.progress import Reporter
from jaxtl.study.run import Run
from jaxtl.train.mesh import make_mesh
from jaxtl.train.options import RunOptions
from jaxtl.train.store.identity import file_digest


def run(root: Path, name: str, experiment: str, rows: dict, *args: str) -> Path:
    """The directory of a finished run; the experiment's file is where it was launched."""
    (root / "experiments").mkdir()
    (root / "experiments" / f"{name}.py").write_text(experiment)
    np.savez(root / "rows.npz", **rows)
    levels = {name: logging.getLogger(name).level for name in ("jaxtl", "absl")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "unraisablehook", sys.unraisablehook)
        options = ["--workdir=runs", *args]
        assert cli.main(["launch.py", f"--experiment={name}", *options]) == 0
    for logger, level in levels.items():
        logging.getLogger(logger).setLevel(level)
    for module in [n for n in sys.modules if n.partition(".")[0] == "experiments"]:
        del sys.modules[module]
    (root / "rows.npz").unlink()
    return root / "runs" / name


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The run of `leaving.EXPERIMENT`."""
    parts = {"train": TRAIN, "test": TEST}
    rows = {f"{part}_{name}": x for part, table in parts.items() for name, x in table.items()}
    args = "--seeds=3,1", "--config.width=(8,)"
    return run(tmp_path_factory.mktemp("leaving"), "leaving", EXPERIMENT, rows, *args)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> tuple[Path, dict[str, float]]:
    """The run of `preparing.EXPERIMENT`, without a report, and {evaluation: accuracy}."""
    root = tmp_path_factory.mktemp("preparing")
    (root / "experiments").mkdir()
    file = root / "experiments" / "preparing.py"
    file.write_text(preparing.EXPERIMENT)
    np.savez(root / "rows.npz", **preparing.ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        options, seeds = RunOptions(), (1,)
        plan = Run("preparing", {}, file_digest(file), seeds, (), root / "runs", options)
        checked = check(rebuild(file, {}), plan)
        with jax.set_mesh(make_mesh("")):
            reporter = Reporter(Console(file=io.StringIO()))
            done = train_arms(checked, reporter, swept=False)
    (root / "rows.npz").unlink()
    measured = done.measured["random"].items()
    return root / "runs", {name: float(m.metrics["accuracy"][0]) for name, m in measured}


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """The run in a directory of its own, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "leaving"))


@pytest.fixture
def edited(copied) -> Callable:
    """(file of the copied run, change of its JSON content) -> the run's directory."""

    def edit(name: str, change: Callable) -> Path:
        content = json.loads((copied / name).read_text())
        change(content)
        (copied / name).write_text(json.dumps(content))
        return copied

    return edit
