"""One finished run of a tiny experiment, the data of which are gone."""

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from leaving import EXPERIMENT, TEST, TRAIN

from jaxtl import cli


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The run's directory; the experiment's file is where it was launched."""
    root = tmp_path_factory.mktemp("leaving")
    (root / "experiments").mkdir()
    (root / "experiments" / "leaving.py").write_text(EXPERIMENT)
    parts = {"train": TRAIN, "test": TEST}
    arrays = {f"{part}_{name}": x for part, table in parts.items() for name, x in table.items()}
    np.savez(root / "rows.npz", **arrays)
    levels = {name: logging.getLogger(name).level for name in ("jaxtl", "absl")}
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "unraisablehook", sys.unraisablehook)
        args = ["--workdir=runs", "--seeds=3,1", "--config.width=(8,)", "--run.compilation_cache="]
        assert cli.main(["launch.py", "--experiment=leaving", *args]) == 0
    jax.config.update("jax_disable_most_optimizations", False)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for name in [n for n in sys.modules if n.partition(".")[0] == "experiments"]:
        del sys.modules[name]
    (root / "rows.npz").unlink()
    return root / "runs" / "leaving"


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
