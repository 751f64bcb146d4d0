"""Real runs of the command line, to be stopped from outside, and what they leave on disk."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

ROOT = Path(__file__).parents[2]


def session(workdir: Path) -> Path:
    """What the workers of a test session share."""
    return next(path for path in workdir.parents if path.name.startswith("pytest-"))


def command(workdir: Path, *more: str, steps: int = 24, arms: str = "scratch,partial") -> list[str]:
    """Three stages with many checkpoints; programs are compiled once a session."""
    return [
        *(sys.executable, "launch.py", "--experiment=digits_halves", f"--workdir={workdir}"),
        *(f"--config.source_steps={steps}", "--config.target_steps=24", "--seeds=2"),
        *(f"--arms={arms}", "--run.checkpoint_every=3"),
        *(f"--run.compilation_cache={session(workdir) / 'compiled'}", "--run.feature_folder="),
        *more,
    ]


RESTLESS = Path(__file__).with_name("restless.py")


def restless(workdir: Path, *more: str, seeds: int = 2) -> list[str]:
    """A small experiment that begins and ends fast; programs are compiled once a session.

    It saves every three steps, unless `more` says when.
    """
    says_when = any(flag.startswith("--run.checkpoint_") for flag in more)
    return [
        *(sys.executable, "launch.py", f"--experiment={RESTLESS}", f"--workdir={workdir}"),
        *(f"--seeds={seeds}", *([] if says_when else ["--run.checkpoint_every=3"])),
        *(f"--run.compilation_cache={session(workdir) / 'compiled'}", "--run.feature_folder="),
        *more,
    ]


def environment() -> dict[str, str]:
    """On the one device of a CPU; XLA compiles as fast as in the tests' own process."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}


def start(args: list[str]) -> subprocess.Popen:
    """A process that does it."""
    return subprocess.Popen(
        args,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    """(status, stdout, stderr) of a process that ends by itself."""
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, out, errors


def run(args: list[str]) -> None:
    """A run that must end well, without a word on stderr."""
    status, out, errors = ended(start(args))
    assert (status, errors) == (0, ""), out + errors


def wait_for(process: subprocess.Popen, event: Callable[[], object]) -> bool:
    """Return once the event is true; False if the process ended before."""
    deadline = time.monotonic() + 120
    while process.poll() is None:
        if event():
            return True
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.001)
    return False


def folder(workdir: Path) -> Path:
    """The run's directory, of either experiment."""
    return next((path for path in workdir.glob("restless")), workdir / "digits_halves")


def stages(workdir: Path) -> Path:
    return folder(workdir) / "stages"


def all_stages(workdir: Path) -> list[Path]:
    """The folders of the experiment's stages and of those of a sweep's points."""
    run = folder(workdir)
    return [*run.glob("stages/*"), *run.glob("sweep/*/stages/*")]


def saved(workdir: Path, stage: str) -> int:
    """The last whole checkpoint of a stage, 0 if there is none."""
    checkpoints = stages(workdir) / stage / "checkpoints"
    return max((int(p.name) for p in checkpoints.glob("*") if p.name.isdigit()), default=0)


def logged(workdir: Path) -> int:
    """Bytes of all metrics.jsonl."""
    files = [path / "metrics.jsonl" for path in all_stages(workdir)]
    return sum(file.stat().st_size for file in files if file.exists())


def finished_stages(workdir: Path) -> int:
    """How many stages are, those of the points of a sweep too."""
    files = [path / "stage.json" for path in all_stages(workdir)]
    return sum(file.exists() and '"finished": true' in file.read_text() for file in files)


def reported(workdir: Path, since: float) -> bool:
    """Whether a process that started at a `time.time()` has begun to write the report."""
    for path in [*folder(workdir).glob("*summary.json*"), *folder(workdir).glob("figures/.*")]:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime >= since:
                return True
    return False


def half_written(workdir: Path, since: float) -> set[str]:
    """Checkpoints that a process which started at a `time.time()` is writing, or died over."""
    found = set()
    pattern = "checkpoints/*.orbax-checkpoint-tmp/_CHECKPOINT_METADATA"
    for path in [path for stage in all_stages(workdir) for path in stage.glob(pattern)]:
        with contextlib.suppress(FileNotFoundError):  # whole in between
            if path.stat().st_mtime >= since:
                found.add(str(path.parent))
    return found


def record(workdir: Path, stage: str) -> dict:
    return json.loads((stages(workdir) / stage / "stage.json").read_text())


def checkpoint(folder: Path) -> dict[str, np.ndarray]:
    """{path: leaf} of the last checkpoint of a stage."""
    import orbax.checkpoint as ocp

    last = max((p for p in folder.glob("*") if p.name.isdigit()), key=lambda p: int(p.name))
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(last / "state").item_metadata.tree
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        args = ocp.args.PyTreeRestore(item=tree, restore_args=how)
        restored = checkpointer.restore(last / "state", args=args)
    leaves = jax.tree_util.tree_leaves_with_path(restored)
    return {f"{last.name}{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}


def metrics(workdir: Path) -> dict[str, list[float]]:
    return {
        f"{arm}/{name}": values["per_seed"]
        for arm, entry in summary(workdir)["arms"].items()
        for name, values in entry["metrics"].items()
    }


CLOCK = ("train_seconds", "steps_per_second", "memory_mb", "seconds", "features")


def numbers(value: Any) -> Any:
    """A summary without what depends on the clock."""
    if isinstance(value, dict):
        return {key: numbers(each) for key, each in value.items() if key not in CLOCK}
    return [numbers(each) for each in value] if isinstance(value, list) else value


def summary(workdir: Path) -> dict:
    return json.loads((folder(workdir) / "summary.json").read_text())


def assert_same_run(workdir: Path, whole: Path) -> None:
    """Every leaf of every stage, every line logged and every number measured; and no litter."""
    places = [{path.relative_to(folder(w)) for path in all_stages(w)} for w in (workdir, whole)]
    assert places[0] == places[1] and places[0]
    for place in sorted(places[0]):
        here, there = folder(workdir) / place, folder(whole) / place
        log = "metrics.jsonl"
        assert (here / log).read_bytes() == (there / log).read_bytes(), place
        leaves, expected = checkpoint(here / "checkpoints"), checkpoint(there / "checkpoints")
        assert leaves.keys() == expected.keys() and len(leaves) > 10
        for path, leaf in leaves.items():
            np.testing.assert_array_equal(leaf, expected[path], err_msg=path, strict=True)
        assert json.loads((here / "stage.json").read_text())["finished"]
    assert numbers(summary(workdir)) == numbers(summary(whole)) and metrics(whole)
    for pattern in ("figures/*", "**/.*", "report.html"):
        names = [
            {path.relative_to(folder(w)) for path in folder(w).glob(pattern)}
            for w in (workdir, whole)
        ]
        assert names[0] == names[1], pattern
    assert not list(folder(workdir).glob("**/checkpoints/damaged-*"))


def assert_close_run(workdir: Path, whole: Path) -> None:
    """Every loss that it measured, as close as sums in another order are."""
    found, expected = metrics(workdir), metrics(whole)
    losses = [name for name in found if name.endswith("/loss")]
    assert losses
    for name in losses:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, err_msg=name)


def undisturbed(workdir: Path, steps: int = 24) -> Path:
    """The workdir of a run that nothing stops, one for all workers."""
    whole = session(workdir) / f"undisturbed-{steps}"
    with (session(workdir) / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (whole / "digits_halves" / "report.html").exists():
            run(command(whole, steps=steps))
    return whole
