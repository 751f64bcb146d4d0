"""One invocation: what is asked for, what was found to be right with it, what is done of it."""

import dataclasses
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxtl
from jaxtl.measure.evaluate import Evaluator, Measured
from jaxtl.measure.results import ArmResult
from jaxtl.models.programs import cores
from jaxtl.plan import Experiment
from jaxtl.study.checks.experiments import Node
from jaxtl.study.source_run import SourceRun
from jaxtl.train.options import RunOptions
from jaxtl.train.store.blocks import Trained
from jaxtl.train.store.identity import Identity

NUMERIC = {
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_numpy_dtype_promotion": "standard",
    "jax_disable_jit": False,
}
"""JAX's settings that change numbers, as JAX sets them."""

ALL = "all"
Rows = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Run:
    """One invocation.

    Attributes:
        name: the experiment's.
        config: its `Config` as a dict of JSON values.
        experiment_digest: of the experiment file.
        seeds: at least one.
        arms: names to run; empty for all.
        directory: <workdir>/<experiment>.
        options: how to run.
        resume: False refuses a directory that holds a run.
        overwrite: stages that start over, with those that follow them; `ALL` for all.
        headline: first line of the experiment's docstring.
        oracle: show what selection by the test data would have given, beside the honest numbers.
        file: the experiment's, as it was named; None where it has none.
        call: how a program asked for it, as Python; empty for a command line.
    """

    name: str
    config: Mapping[str, Any]
    experiment_digest: str
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    directory: Path
    options: RunOptions
    resume: bool = True
    overwrite: tuple[str, ...] = ()
    headline: str = ""
    oracle: bool = False
    file: Path | None = None
    call: str = ""


def numbers_settings(run: Run) -> dict[str, Any]:
    """What changes the numbers of every stage of a run."""
    settings = numeric_settings()
    return {"dtype": run.options.dtype, **({"jax": settings} if settings else {})}


def run_record(run: Run) -> dict[str, Any]:
    """config.json: what the last launch was of."""
    return {
        "experiment": run.name,
        "config": dict(run.config),
        "seeds": list(run.seeds),
        **numbers_settings(run),
    }


def numeric_settings() -> dict[str, Any]:
    """{name: value} of JAX's settings that change numbers and are not as JAX sets them."""
    values = {name: getattr(jax.config, name) for name in NUMERIC}
    return {name: value for name, value in values.items() if value != NUMERIC[name]}


def environment(run: Run) -> dict[str, Any]:
    """Versions, devices, git commit, the command or call and where it was given."""
    import flax
    import optax

    def git(*args: str) -> str | None:
        done = subprocess.run(
            ["git", *args], capture_output=True, text=True, errors="replace", check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except OSError:
        commit, changed = None, None
    return {
        "command": run.call or shlex.join(sys.argv),
        "folder": str(Path.cwd()),
        "variables": {k: v for k, v in os.environ.items() if k.startswith(("JAX_", "XLA_"))},
        "jaxtl": jaxtl.__version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cores": cores(),
        "devices": [str(device.device_kind) for device in jax.devices()],
        "git_commit": commit and commit + (" with local changes" if changed else ""),
    }


class Part(NamedTuple):
    """A block of a stage that is to be found, gone on with or trained.

    Attributes:
        directory: as for any block.
        seeds: those of the run that it holds.
        whole: all seeds that it holds.
        record: its stage.json, None where nothing is done yet.
    """

    directory: Path
    seeds: Rows
    whole: Rows
    record: Mapping[str, Any] | None

    @property
    def finished(self) -> bool:
        return self.record is not None and self.record["finished"]


class Continuation(NamedTuple):
    """How the seeds of a run come to their results in one stage.

    Attributes:
        directory: the stage's folder.
        identity: for all seeds of the run.
        parts: blocks, which hold each seed once.
        problems: why it may not go on from what the folder holds, a line each.
        overwrite: what the folder holds is to be removed first.
        swept: the values of the points of a sweep that train together; None outside of one.
    """

    directory: Path
    identity: Identity
    parts: Sequence[Part]
    problems: Sequence[str] = ()
    overwrite: bool = False
    swept: Sequence[Mapping[str, Any]] | None = None

    @property
    def finished(self) -> bool:
        return all(part.finished for part in self.parts)


@dataclasses.dataclass(frozen=True)
class Checked:
    """A run that nothing is wrong with.

    Attributes:
        nodes: {stage: Node}, parents first.
        plans: {stage: what is done of it}; one that another run trained has no parts.
        source_run: where source stages are loaded from, if not trained.
        warnings: what is legitimate but should be known.
        evaluations: {evaluation: digests of what is measured and of its data}.
        unwritable: why the run's directory cannot be written, None if it can.
    """

    experiment: Experiment
    run: Run
    arms: tuple[str, ...]
    nodes: Mapping[str, Node]
    plans: Mapping[str, Continuation]
    source_run: SourceRun | None
    warnings: list[str]
    evaluations: Mapping[str, Any]
    unwritable: str | None = None


class Done(NamedTuple):
    """What has been trained and measured so far, by stage, and what it makes of the arms.

    Attributes:
        evaluator: measures; has the evaluations' examples on the device.
        trained: {stage: Trained}, on the host; without weights once nothing asks for them.
        measured: {stage: {evaluation: Measured}}.
        results: {arm: ArmResult}.
        cuts: {stage: block or None}, as in `TrainedArm`.
    """

    evaluator: Evaluator
    trained: dict[str, Trained]
    measured: dict[str, dict[str, Measured]]
    results: dict[str, ArmResult]
    cuts: dict[str, str | None]
