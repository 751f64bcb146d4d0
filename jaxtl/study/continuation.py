"""What of a stage is done already, what may go on, and what starts over."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.experimental import multihost_utils

from jaxtl.files import writing
from jaxtl.plan import Experiment, Params, State
from jaxtl.study.checks.experiments import Node
from jaxtl.study.progress import Reporter
from jaxtl.study.run import ALL, Continuation, Part, Rows, Run, numbers_settings
from jaxtl.study.source_run import SourceRun
from jaxtl.study.validation import validation_identity
from jaxtl.train.loop import train_stage
from jaxtl.train.mesh import is_primary
from jaxtl.train.resolve.replicas import Replicas, over_seeds, take
from jaxtl.train.state import Validation
from jaxtl.train.store.blocks import Block, Trained, blocks_of, join_blocks, new_block, spans
from jaxtl.train.store.identity import (
    WORDS,
    Identity,
    changes,
    differences,
    of_seeds,
    stage_identity,
    surroundings,
)


def starts_over(run: Run, nodes: Mapping[str, Node], name: str) -> bool:
    """Whether a stage, or one that it goes on from, is to start over."""
    stage: str | None = name
    while stage is not None:
        if stage in run.overwrite or ALL in run.overwrite:
            return True
        stage = nodes[stage].parent
    return False


def continuation(directory: Path, identity: Identity, run: Run, overwrite: bool) -> Continuation:
    """What a stage's folder holds of a run.

    Raises:
        ValueError: a stage.json is damaged.
    """
    seeds = run.seeds
    if overwrite:
        fresh = Part(directory, seeds, seeds, None)
        return Continuation(directory, identity, [fresh], overwrite=True)
    parts, problems, missing = [], [], list(seeds)
    for block in blocks_of(directory):
        here = tuple(seed for seed in missing if seed in block.seeds)
        missing = [seed for seed in missing if seed not in here]
        problems += _problems(block, of_seeds(identity, here), run)
        if here:
            parts.append(Part(block.directory, here, tuple(block.seeds), block.record))
    if missing:
        rest = tuple(missing)
        parts.append(Part(new_block(directory, rest), rest, rest, None))
    return Continuation(directory, identity, parts, list(dict.fromkeys(problems)))


def _problems(block: Block, identity: Identity, run: Run) -> list[str]:
    """Why a run may not go on from a block."""
    if lines := changes(block.record, identity, run.experiment_digest):
        return lines
    rest = [seed for seed in block.seeds if seed not in run.seeds]
    if identity["seeds"] and rest and not block.record["finished"]:
        return [
            f"the seeds {spans(block.seeds)} were stopped while they trained together: go on with "
            f"{spans(rest)} too"
        ]
    return []


def plan_going_on(
    experiment: Experiment, nodes: Mapping[str, Node], run: Run, source_run: SourceRun | None
) -> dict[str, Continuation]:
    """{stage: what is done of it}; parents stand before their children in `nodes`."""
    plans: dict[str, Continuation] = {}
    loaded = source_run.stages if source_run else {}
    settings = numbers_settings(run)
    for name, node in nodes.items():
        directory = run.directory / "stages" / name
        if name in loaded:
            plans[name] = Continuation(directory, source_run.identity(name), ())
            continue
        identity = stage_identity(
            over_seeds(node.setup, run.seeds),
            [plans[node.parent].identity] if node.parent else [],
            validation_identity([(experiment, nodes)], name, run.seeds),
            settings,
            run.experiment_digest,
        )
        plans[name] = continuation(directory, identity, run, starts_over(run, nodes, name))
    return plans


def refusal(run: Run, plans: Mapping[str, Continuation]) -> str:
    """Why a run may not go on from its directory, empty if it may.

    Args:
        plans: {stage, or stage at a point of a sweep: what is done of it}, parents first.
    """
    lines, roots, configs = [], [], []
    for name, plan in plans.items():
        if not plan.problems:
            continue
        lines += [f"stage {name!r}:", *(f"  {line}" for line in plan.problems)]
        if list(plan.problems) != [WORDS["parent"]]:
            roots.append(plan.identity["stage"])
        records = [part.record for part in plan.parts if part.record]
        configs += [record["config"] for record in records if "config" in record]
    if not lines:
        return ""
    now = dict(run.config)
    hints = [f"config.{line}" for config in configs for line in differences(config, now)]
    text = "\n  ".join([*dict.fromkeys(hints), *lines])
    names = ",".join(dict.fromkeys(roots))
    return (
        f"{run.directory} holds other results than this run would have:\n  {text}\n"
        f"Start over with --overwrite={names} (which takes in the stages that follow) or "
        "--overwrite=all, or name another --workdir."
    )


def start_over(plans: Iterable[Continuation]) -> None:
    """Remove what is to be trained anew, of every stage before the first one trains.

    Raises:
        NotWritten: something cannot be removed.
    """
    if is_primary():
        for plan in plans:
            if plan.overwrite and plan.directory.exists():
                with writing(plan.directory):
                    shutil.rmtree(plan.directory)
    multihost_utils.sync_global_devices("what starts over is removed")


def train_parts(
    plan: Continuation,
    make: Callable[[Rows], Replicas],
    source: tuple[Params, State] | None,
    validation: Callable[[Rows], Validation | None],
    run: Run,
    reporter: Reporter,
    title: str,
) -> Trained:
    """Train what a stage lacks; its replicas are the run's seeds, point after point.

    Args:
        make: seeds -> the replicas of a block.
        source: of the stage before, for the replicas of the run.
        validation: seeds -> what is measured while they train.
        title: what the stage is called.
    """
    about = made_with(run) | ({"swept": plan.swept} if plan.swept else {})
    points, blocks = len(make(run.seeds)) // len(run.seeds), []
    for name, part in part_titles(title, plan).items():
        replicas, given, chosen = make(part.whole), source, None
        if source is not None and part.seeds != run.seeds:
            rows = _places(part.seeds, run.seeds, points)
            given = take(source, rows)
        if part.seeds != part.whole:
            chosen = _places(part.seeds, part.whole, points)
        _say_surroundings(part, about["made_with"], name, reporter)
        with reporter.training(replicas, name) as (show, restored, notes):
            block = train_stage(
                replicas,
                given,
                part.directory,
                of_seeds(plan.identity, part.whole),
                run.options,
                show,
                validation(part.whole),
                restored,
                about,
                chosen,
            )
            notes.append(block.note)
        blocks.append(block)
    if len(blocks) == 1 and plan.parts[0].seeds == run.seeds:
        return blocks[0]
    # Block after block, and in each of them point after point: back to point after point.
    held = [(i, seed) for part in plan.parts for i in range(points) for seed in part.seeds]
    places = {pair: place for place, pair in enumerate(held)}
    order = [places[i, seed] for i in range(points) for seed in run.seeds]
    return join_blocks(blocks).part(order)


def part_titles(title: str, plan: Continuation) -> dict[str, Part]:
    """{what it is called: a part}, in their order."""
    if len(plan.parts) == 1:
        return {title: plan.parts[0]}
    return {f"{title}, {_seeds(part.seeds)}": part for part in plan.parts}


def work_ahead(
    plans: Mapping[str, Continuation], nodes: Mapping[str, Node]
) -> dict[str, int | None]:
    """{what it is called: examples that its replicas see; None if it is finished} of each part.

    Args:
        plans: {title: what is done of a stage}.
        nodes: {stage: Node}, of the experiment as it is.
    """
    work: dict[str, int | None] = {}
    for title, plan in plans.items():
        stage = nodes[plan.directory.name].setup.stage
        for name, part in part_titles(title, plan).items():
            replicas = len(part.whole) * len(plan.swept or (1,))
            steps = stage.num_steps * stage.batch_size
            work[name] = None if part.finished else steps * replicas
    return work


def _seeds(seeds: Rows) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {spans(seeds)}"


def _say_surroundings(part: Part, now: Mapping[str, Any], name: str, reporter: Reporter) -> None:
    """Say what may change the last bits of a stage that goes on."""
    if part.record is None or part.finished:
        return
    if lines := differences(part.record["made_with"], now):
        reporter.say(
            ("warning: ", "yellow"),
            f"stage {name} goes on in other surroundings, so that its last bits may differ: "
            + "; ".join(lines),
        )


def _places(seeds: Rows, of: Rows, points: int) -> np.ndarray:
    """Where the replicas of some seeds stand among those of others, point after point."""
    return np.array([i * len(of) + of.index(seed) for i in range(points) for seed in seeds])


def made_with(run: Run) -> dict[str, Any]:
    """What else than its identity stage.json says of a block."""
    options = {"mesh": run.options.mesh, "micro_batch": run.options.micro_batch}
    return {
        "made_with": surroundings(options),
        "experiment_file": run.experiment_digest,
        "config": dict(run.config),
        "source_run": run.options.source_run or None,
    }
