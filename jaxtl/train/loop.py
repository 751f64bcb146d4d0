"""The loop: dispatch, log, validation, save; the same for every method.

Batches are a function of (seed, step), keys of (seed, step, update), and all that changes is in
the checkpoint, so a stage that was stopped anywhere ends with the bits of one that was not.
"""

import logging
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtl.files import write_json
from jaxtl.plan import Params, State
from jaxtl.train.dispatch.programs import Program, make_program
from jaxtl.train.dispatch.running import running
from jaxtl.train.feed.cache import cache_features
from jaxtl.train.feed.examples import on_device, pages
from jaxtl.train.feed.pace import Pace, dispatches
from jaxtl.train.mesh import is_primary, to_host
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import Replicas, take
from jaxtl.train.signals import Interrupted, Watch, watch
from jaxtl.train.state import (
    TrainState,
    Validation,
    abstract_state,
    evaluated_params,
    prepare_again,
    start,
    validate,
    with_best,
    with_constants,
    without_constants,
)
from jaxtl.train.store.blocks import Trained
from jaxtl.train.store.checkpoints import Checkpoints
from jaxtl.train.store.events import complete_events
from jaxtl.train.store.identity import Identity, outputs_fingerprint
from jaxtl.train.store.interface import interface
from jaxtl.train.store.log import Log, check_validations, read_curves, read_log
from jaxtl.train.store.record import read_stage
from jaxtl.train.store.recorder import Progress, Recorder

logger = logging.getLogger(__name__)


def train_stage(
    replicas: Replicas,
    source: tuple[Params, State] | None,
    directory: Path,
    identity: Identity,
    options: RunOptions,
    progress: Progress = lambda step, metrics: None,
    validation: Validation | None = None,
    restored: Callable[[int], None] = lambda step: None,
    about: Mapping[str, Any] | None = None,
    chosen: Sequence[int] | None = None,
) -> Trained:
    """Train a stage, go on with an interrupted one, or load a finished one.

    Whether what the directory holds is this very stage is the caller's to know.

    Args:
        replicas: the resolved stage for each seed (and point of a sweep).
        source: (params, state) of the stage before, None for a first stage.
        directory: holds stage.json, metrics.jsonl and checkpoints/.
        identity: what the weights depend on.
        options: how to run.
        progress: called with the number of finished steps and the last metrics {name: [replicas]}.
        validation: by which the best parameters of each replica are kept; None: the last.
        restored: called with the number of steps that were found done, if some were.
        about: what else stage.json says of what the stage is made with.
        chosen: of a finished stage only these replicas, and `source` has no others; None for all.

    Raises:
        ValueError: no replica is left whose loss is finite, or the stage is not finished though
            only some of its replicas are chosen.
        Interrupted: a signal came; the state is saved.
        NotWritten: a file cannot be; the next launch goes on from the last whole checkpoint.
    """
    stage = replicas.setup.stage
    validation = validation if stage.num_steps else None
    record = read_stage(directory) or {"finished": False}
    abstract = jax.eval_shape(
        lambda: without_constants(replicas, abstract_state(replicas, validation))
    )
    with watch() as signals, Checkpoints(directory / "checkpoints") as checkpoints:
        step, train = checkpoints.restore_latest(abstract) or (0, None)
        check_validations(directory, step, stage.num_steps, validation)
        finished = record["finished"] and train is not None and step == stage.num_steps
        if record["finished"] and not finished:
            logger.warning("stage %s was finished; its last checkpoint is gone", stage.name)
        if finished and options.tensorboard and is_primary():
            complete_events(directory, replicas, read_log(directory))
        if chosen is not None:
            if not finished:
                raise ValueError(
                    f"{directory} is not finished for all of its seeds {identity['seeds']}; run "
                    "all of them first"
                )
            train, replicas = take(train, chosen), replicas[chosen]
        if train is not None:
            train = with_constants(replicas, train, source)
            restored(step)
        if not finished:
            record |= {"identity": identity, "finished": False, **(about or {})}
            record |= interface(replicas.setup)
            record["outputs"] = outputs_fingerprint(replicas.setup).digest
            if stage.weights is not None:
                report = replicas.setup.weights_report
                record["weights"] = {"name": stage.weights.name, "report": report.splitlines()}
                logger.info("stage %s starts from %s", stage.name, report)
            write_json(directory / "stage.json", record)
            train = with_best(start(replicas, source), validation) if train is None else train
            record["train_seconds"] = record.get("train_seconds", 0.0) if step else 0.0
            record.setdefault("steps_per_second", None)
            log = Log(directory, options, stage.num_steps, replicas, step)
            recorder = Recorder(replicas, directory, record, checkpoints, log, progress)
            if step < stage.num_steps:
                cache = cache_features(replicas, train, options, directory)
                record["feature_cache"] = cache.note if cache else None
                program = make_program(replicas, train, options, cache)
                train = advance(
                    replicas, program, train, step, options, recorder, validation, signals
                )
            failed = enumerate(failed_steps(train).tolist())
            record["failed_seeds"] = {replicas.describe(i): at for i, at in failed if at}
            recorder.save(stage.num_steps, train, finished=True)
    if signals.received is not None:
        raise Interrupted(signals.received)
    curves = read_curves(directory, stage.num_steps)
    if chosen is not None:
        curves = {k: v if k == "step" else v[:, chosen] for k, v in curves.items()}
    return Trained(
        replicas,
        *evaluated_params(train),
        curves,
        record["train_seconds"],
        record["steps_per_second"] or math.nan,
        record.get("memory_mb") or math.nan,
        failed_steps(train),
        record.get("feature_cache") or "",
    )


def failed_steps(train: TrainState) -> np.ndarray:
    """[replicas], the number of the step that failed, or 0."""
    return to_host(train.failed) + 1


def advance(
    replicas: Replicas,
    program: Program,
    train: TrainState,
    step: int,
    options: RunOptions,
    recorder: Recorder,
    validation: Validation | None,
    signals: Watch,
) -> TrainState:
    """Train from `step` to the end of the stage, or to a signal.

    Args:
        replicas: of the whole stage, which the program may be the rest of.
    """
    stage, latest, begun = replicas.setup.stage, None, False
    schedule, feed = program.schedule, program.feed
    validates_every = validation.every if validation else 0
    periods = (validates_every, stage.method.prepare_every, options.checkpoint_every)
    adapts = on_device(feed) and schedule.steps > 1 and not options.steps_per_dispatch
    pace = Pace(schedule.steps, options, adapts)
    bounds = dispatches(step, stage.num_steps, periods, lambda: pace.steps)
    read = pages(feed, program.streams, bounds, schedule.steps, stage.batch_size)
    with running(program, train) as calls:
        for (first, step), rows, block in read:
            if not begun:
                calls.compile(rows, block)
                signals.begin()
                recorder.record["memory_mb"] = calls.memory_mb()
                begun = True
            metrics = calls.advance(rows, block, first, step - first)
            before, latest = latest, pace.launch(first, step - first, metrics)
            if before:  # the device works on this dispatch while the last one is written
                pace.wait(before)
                recorder.write(before)
            last = step == stage.num_steps
            validates, prepares, saves = (period and step % period == 0 for period in periods)
            saves = pace.agree() or saves
            stops = recorder.checkpoints.preempted() or signals.received is not None
            if not (last or validates or prepares or saves or stops):
                continue
            pace.wait(latest)  # how long it took is not how long what follows takes
            measured = None
            if validation and (validates or last):
                best, measured = validate(calls.train, validation)
                calls.keep(best)
            if prepares and not last:
                calls.train = prepare_again(replicas, calls.train)
            # The log never lags behind a checkpoint.
            if stops and not last:
                recorder.log.write(*latest[:3], measured)
                recorder.save(step, calls.train, finished=False)
                raise Interrupted(signals.received or signal.SIGTERM)
            recorder.write(latest, measured)
            latest = None
            if saves and not last:
                pace.saved(recorder.save(step, calls.train, finished=False))
        return calls.train
