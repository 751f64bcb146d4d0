"""The experiment that a run's directory comes from, and which of its models is meant."""

import logging
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtl.experiment_file import FOLDER, build_experiment, module_of, read_config, root_of
from jaxtl.export.request import check_run
from jaxtl.fields import from_json
from jaxtl.files import Damaged, read_json
from jaxtl.models import computing_in
from jaxtl.paths import unknown
from jaxtl.plan import Experiment, Stage
from jaxtl.report.summary import load_summary, primary_metric
from jaxtl.train.store.blocks import Block, blocks_of

logger = logging.getLogger(__name__)

WRITTEN_ANEW = "the command of the run writes it anew"


class SavedRun(NamedTuple):
    """What a run left, without its weights.

    Attributes:
        directory: <workdir>/<experiment>.
        experiment: rebuilt from its file and the last launch's config, or as it was given.
        file: the experiment's; None for one that was given.
        config, seeds: the last launch's.
        blocks: {stage: its blocks} of the stages that were begun.
        summary: summary.json, None before the run's end.
    """

    directory: Path
    experiment: Experiment
    file: Path | None
    config: Mapping[str, Any]
    seeds: list[int]
    blocks: Mapping[str, list[Block]]
    summary: dict[str, Any] | None

    def record(self, stage: str, seed: int) -> dict[str, Any] | None:
        """stage.json of the block that holds a seed of a stage, None if none does."""
        records = (block.record for block in self.blocks.get(stage, ()) if seed in block.seeds)
        return next(records, None)


class Choice(NamedTuple):
    """One model of a run.

    Attributes:
        arm: its name.
        stages: the arm's, up to the one that is meant.
        seed: of the model.
    """

    arm: str
    stages: tuple[Stage, ...]
    seed: int


def read_run(directory: Path, experiment: Experiment | None = None) -> SavedRun:
    """Read a run's directory and build its experiment; no dataset is read, unless by `build`.

    Args:
        experiment: None for that of its file.

    Raises:
        ValueError: it holds no run, or its experiment is not to be found or does not take the
            run's config.
    """
    check_run(directory)
    keys = {"experiment": str, "config": dict, "seeds": list, "dtype": str}
    record = read_json(directory / "config.json", keys, WRITTEN_ANEW)
    file = None
    if experiment is None:
        file = find_file(directory, record["experiment"])
        experiment = rebuild(file, record["config"])
    folders = sorted(path for path in (directory / "stages").glob("*") if path.is_dir())
    summary = directory / "summary.json"
    return SavedRun(
        directory,
        experiment,
        file,
        record["config"],
        record["seeds"],
        {folder.name: blocks for folder in folders if (blocks := blocks_of(folder))},
        load_summary(summary) if summary.exists() else None,
    )


def find_file(directory: Path, name: str) -> Path:
    """The file of a run's experiment: where it was when launched, else in the current directory.

    Raises:
        ValueError: it is in neither, or there never was one.
    """
    path, keys, hint = directory / "environment.json", {"folder": str}, ""
    try:
        record = read_json(path, keys, WRITTEN_ANEW)
        hint = "" if record is not None else f"{path} is missing; {WRITTEN_ANEW}"
    except Damaged as error:
        record, hint = None, str(error)
    record = record or {}
    if hint:
        logger.warning("%s; where its experiment lies is guessed", hint)
    file = record.get("file", FOLDER / f"{name}.py")
    if file is None:
        raise ValueError(
            f"a program made the experiment of {directory}, no file: its numbers are there, its "
            f"models need it again, as in jaxtl.open({str(directory)!r}, experiment)"
        )
    files = [Path(folder, file) for folder in (record.get("folder", ""), Path.cwd())]
    for candidate in files:
        if candidate.is_file():
            return candidate
    places = " and ".join(dict.fromkeys(map(str, files)))
    hint = f" ({hint})" if hint else ""
    raise ValueError(f"the experiment of {directory} is missing; looked for {places}{hint}")


def rebuild(file: Path, config: Mapping[str, Any]) -> Experiment:
    """The experiment of a file; what lies beside its folder can be imported, as when launched.

    Args:
        config: the JSON values of its Config.

    Raises:
        ValueError: the file is no experiment, or its Config does not take the values.
    """
    folder = str(root_of(file))
    sys.path.insert(0, folder)
    try:
        module = module_of(file)
        fields, unknown_fields = from_json(read_config(module), config)
        if unknown_fields:
            names = ", ".join(unknown_fields)
            logger.warning("%s has no field %s any more, which the run set", file, names)
        return build_experiment(module, fields)
    finally:
        sys.path.remove(folder)


def choose(run: SavedRun, arm: str | None, stage: str | None, seed: int | None) -> Choice:
    """The model that is meant; see `load`.

    Raises:
        ValueError: no such arm, stage or seed (with the closest), or the stage is not finished.
    """
    arms = {name: [s.name for s in stages] for name, stages in run.experiment.arms.items()}
    if arm is not None and arm not in arms:
        raise ValueError(unknown("arm", arm, arms))
    candidates = [arm] if arm is not None else list(arms)
    if stage is not None:
        stages = {name for candidate in candidates for name in arms[candidate]}
        if stage not in stages:
            raise ValueError(unknown("stage", stage, stages))
        candidates = [candidate for candidate in candidates if stage in arms[candidate]]
    arm = candidates[0] if len(candidates) == 1 else _best(run, candidates)
    count = arms[arm].index(stage) + 1 if stage is not None else len(arms[arm])
    stages = tuple(run.experiment.arms[arm][:count])
    seed = _seed(run, stages, _finished_seeds(run, arm, stages[-1].name), seed)
    return Choice(arm, _as_trained(run, arm, stages, seed), seed)


def _as_trained(run: SavedRun, arm: str, stages: tuple[Stage, ...], seed: int) -> tuple[Stage, ...]:
    """The stages with the config and in the dtype that the last one was trained with.

    The last launch in the directory may have had others.
    """
    record = run.record(stages[-1].name, seed)
    same = run.file is None or record["config"] == run.config
    experiment = run.experiment if same else rebuild(run.file, record["config"])
    chain = computing_in(experiment, record["identity"]["dtype"]).arms.get(arm, ())
    if [stage.name for stage in chain[: len(stages)]] != [stage.name for stage in stages]:
        raise ValueError(
            f"arm {arm!r} of {run.directory}: with the config that stage {stages[-1].name!r} was "
            "trained with, it has other stages"
        )
    return tuple(chain[: len(stages)])


def _best(run: SavedRun, arms: Iterable[str]) -> str:
    """The arm of the best mean of the primary metric."""
    if run.summary is None:
        raise ValueError(
            f"{run.directory} has no summary.json, as its run has not ended: name an arm"
        )
    metric, means = primary_metric(run.summary), {}
    for arm in run.summary["arms"].keys() & set(arms):
        mean = run.summary["arms"][arm]["metrics"].get(metric.key, {"mean": None})["mean"]
        means[arm] = -math.inf if mean is None else metric.sign * mean
    if not means or max(means.values()) == -math.inf:
        raise ValueError(f"no arm of {run.directory} has a mean {metric.key}: name an arm")
    return max(sorted(means), key=means.__getitem__)


def _finished_seeds(run: SavedRun, arm: str, stage: str) -> list[int]:
    """The seeds of a stage that are trained, those of the last launch first."""
    blocks = run.blocks.get(stage, [])
    for block in blocks:
        if "made_with" not in block.record:
            raise ValueError(f"stage {stage!r} of {run.directory} is from an older jaxtl")
    seeds = [seed for block in blocks if block.record["finished"] for seed in block.seeds]
    if seeds:
        return sorted(seeds, key=lambda seed: (seed not in run.seeds, seeds.index(seed)))
    sources = {b.record.get("source_run") for each in run.blocks.values() for b in each} - {None}
    if not blocks and sources:
        hint = f"if it was loaded from {min(sources)}, load it from there"
    else:
        hint = f"the same command with --arms={arm} goes on"
    raise ValueError(f"arm {arm!r} of {run.directory}: stage {stage!r} is not finished; {hint}")


def _seed(run: SavedRun, stages: Iterable[Stage], seeds: list[int], seed: int | None) -> int:
    """The seed that is meant of those that are trained; the first that did not fail if None."""
    records = [block.record for stage in stages for block in run.blocks.get(stage.name, ())]
    failed = {name for record in records for name in record.get("failed_seeds", {})}
    finite = [s for s in seeds if f"seed {s}" not in failed]
    if seed is None:
        if not finite:
            raise ValueError(f"all seeds of {run.directory} failed; name one to have it as it was")
        return finite[0]
    if seed not in seeds:
        raise ValueError(unknown("seed", str(seed), map(str, seeds)))
    if seed not in finite:
        logger.warning("seed %d failed: its loss was not finite at a step", seed)
    return seed
