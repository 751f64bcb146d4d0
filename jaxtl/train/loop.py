"""The loop: dispatch, log, save; the same for every method.

Batches are a function of (seed, step), keys of (seed, step, update), and all that changes is in
the checkpoint, so a stage that was stopped anywhere ends with the bits of one that was not.
"""

import dataclasses
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxtl.data.batches import index_block
from jaxtl.paths import flatten, join, split
from jaxtl.plan import Params, PyTree, State
from jaxtl.train.cache import Cached, cached, flops
from jaxtl.train.checkpoint import Checkpoints
from jaxtl.train.curves import Log, read_curves
from jaxtl.train.dispatch import choose, make_dispatch, runs_patches
from jaxtl.train.feed import columns, gather, make_feed, make_streams, page
from jaxtl.train.identity import Identity, differences, read_json, write_json
from jaxtl.train.interrupt import Interrupted, Watch, watch
from jaxtl.train.options import RunOptions
from jaxtl.train.setup import METHOD_STATE, Setup, initialise, load
from jaxtl.train.sharding import shard_state, to_host
from jaxtl.train.step import CARRIED, init_optimizers, make_step

logger = logging.getLogger(__name__)

Progress = Callable[[int, dict[str, np.ndarray]], None]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished stage.

    Attributes:
        params, state: leaves with the leading axis of seeds.
        curves: {"step": [t], metric: [t, seeds]}, the logged steps.
        seconds: training time, compilation included.
        steps_per_second: without the first dispatch, all seeds counting as one step; NaN if there
            was no second dispatch.
        failed: {seed: the first step whose loss or parameters were not finite}.
        note: what made its steps cheaper, if anything.
    """

    setup: Setup
    params: Params
    state: State
    curves: dict[str, np.ndarray]
    seconds: float
    steps_per_second: float
    failed: dict[int, int] = dataclasses.field(default_factory=dict)
    note: str = ""


def start(setup: Setup, seeds: tuple[int, ...], source: tuple[Params, State] | None) -> PyTree:
    """The full state of a stage before its first step, leaves with the leading axis of seeds."""
    stage, method = setup.stage, setup.stage.method
    init = jax.jit(jax.vmap(lambda seed: initialise(stage, setup.inputs, seed)))
    params, state = load(setup, *init(jnp.asarray(seeds)), source)
    if method.state is not None:
        extra = jax.jit(jax.vmap(lambda params: method.state(setup.model, params)))(params)
        state = {**state, METHOD_STATE: extra}
    if method.prepare is not None:
        params, state = prepare(setup, seeds, params, state)
    full = assemble(setup, params, state)
    return jax.device_put(full, shard_state(full))


def assemble(setup: Setup, params: Params, state: State) -> PyTree:
    """Split the parameters and start the optimizers."""
    trainable, frozen = split(params, lambda path: path in setup.trainable)
    seeds = len(jax.tree.leaves(params)[0])
    init = jax.vmap(lambda tree: init_optimizers(setup, tree), axis_size=seeds)
    opt_state = jax.jit(init)(trainable)
    copied = jax.tree.map(jnp.copy, {"trainable": trainable, "state": state})
    failed = jnp.full(seeds, -1, jnp.int32)
    return {**copied, "frozen": frozen, "opt_state": opt_state, "failed": failed}


def prepare(setup: Setup, seeds: tuple[int, ...], params: Params, state: State):
    """Run the method's pass over the data on the host, seed after seed."""
    stage, results = setup.stage, []
    params, state = to_host((params, state))
    for i, seed in enumerate(seeds):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], (params, state))
        domains = [columns(domain, stage.model.heads, seed) for domain in stage.domains]
        results.append(stage.method.prepare(setup.model, *one, domains))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
    before, after = flatten(params), flatten(stacked[0])
    allowed = {*setup.trainable, *setup.fresh, *setup.solved}
    for path, leaf in after.items():
        if path not in allowed and not np.array_equal(leaf, before[path]):
            raise AssertionError(f"{path} is frozen, but the method's prepare changed it")
    return jax.tree.map(lambda new, old: new.astype(old.dtype), stacked, (params, state))


def train_stage(
    setup: Setup,
    seeds: tuple[int, ...],
    source: tuple[Params, State] | None,
    directory: Path,
    identity: Identity,
    options: RunOptions,
    progress: Progress = lambda step, metrics: None,
) -> Trained:
    """Train a stage, go on with an interrupted one, or load a finished one.

    Args:
        setup: the resolved stage.
        seeds: the leading axis of every array.
        source: (params, state) of the stage before, None for a first stage.
        directory: holds stage.json, metrics.jsonl and checkpoints/.
        identity: what the weights depend on; must equal that of what the directory holds.
        options: how to run.
        progress: called with the number of finished steps and their last metrics {name: [seeds]}.

    Raises:
        ValueError: the directory holds another stage, or no seed is left whose loss is finite.
        Interrupted: a signal came; the state is saved.
    """
    record = check_directory(directory, identity) or {"identity": identity, "finished": False}
    abstract = jax.eval_shape(lambda: abstract_state(setup, seeds))
    with Checkpoints(directory / "checkpoints") as checkpoints, watch() as signals:
        step, full = checkpoints.restore_latest(abstract) or (0, None)
        if full is None or step < setup.stage.num_steps:
            record["finished"] = False
        if not record["finished"]:
            write_json(directory / "stage.json", record)
            full = start(setup, seeds, source) if full is None else full
            saver = Saver(directory, record, checkpoints, since=step)
            log = Log(directory, options, setup.stage.num_steps, seeds, step)
            if step < setup.stage.num_steps:
                cache = cached(setup, seeds, full, options, directory)
                record["feature_cache"] = cache.note if cache else None
                program = compile_stage(setup, seeds, full, options, cache)
                full = advance(
                    setup, seeds, program, full, step, options, saver, log, progress, signals
                )
            record["failed_seeds"] = failed_seeds(seeds, full)
            saver.save(setup.stage.num_steps, full, finished=True)
        if signals.received is not None:
            raise Interrupted(signals.received)
    return Trained(
        setup,
        join(full["trainable"], full["frozen"]),
        full["state"],
        read_curves(directory),
        record["train_seconds"],
        record["steps_per_second"] or float("nan"),
        failed_seeds(seeds, full),
        record.get("feature_cache") or "",
    )


def failed_seeds(seeds: tuple[int, ...], full: PyTree) -> dict[int, int]:
    """{seed: number of the step that failed}."""
    steps = to_host(full["failed"]).tolist()
    return {seed: step + 1 for seed, step in zip(seeds, steps, strict=True) if step >= 0}


def advance(
    setup: Setup,
    seeds: tuple[int, ...],
    program: tuple,
    full: PyTree,
    step: int,
    options: RunOptions,
    saver: "Saver",
    log: "Log",
    progress: Progress,
    signals: Watch,
) -> PyTree:
    """Train from `step` to the end of the stage, or to a signal; returns the full state.

    Args:
        program: as `compile_stage` returns it.
    """
    schedule, dispatch, feed, streams = program
    stage, frozen, pending = setup.stage, full["frozen"], None
    while step < stage.num_steps:
        end = next_stop(step, schedule.steps, stage, options)
        block = index_block(streams, step, schedule.steps, stage.batch_size)
        rows, block = page(feed, block)
        carry = {name: full[name] for name in CARRIED}
        carry, metrics = dispatch(
            carry, frozen, rows, np.int32(seeds), block, np.int32(step), np.int32(end - step)
        )
        full = {**carry, "frozen": frozen}
        if pending:  # the device works on this dispatch while the last one is written
            progress(*log.write(*pending))
            saver.tick(step)
        pending, step = (step, end - step, metrics), end
        every = stage.method.prepare_every
        if every and step % every == 0 and step < stage.num_steps:
            full = prepare_again(setup, seeds, full)
            frozen = full["frozen"]
        preempted = saver.preempted()
        if (preempted or signals.received is not None) and step < stage.num_steps:
            log.write(*pending)
            saver.save(step, full, finished=False)
            raise Interrupted(signals.received or signal.SIGTERM)
        due = step % options.checkpoint_every == 0
        if due or step == stage.num_steps:  # the log never lags behind a checkpoint
            progress(*log.write(*pending))
            saver.tick(step)
            pending = None
        if due and step < stage.num_steps:
            saver.save(step, full, finished=False)
    return full


class Saver:
    """Checkpoints with their entry in stage.json, and the clock of a stage.

    Args:
        record: the content of stage.json; its times go on from earlier processes.
        since: the step at which this process starts.
    """

    def __init__(self, directory: Path, record: dict, checkpoints: Checkpoints, since: int):
        self._path, self._record, self._checkpoints = directory / "stage.json", record, checkpoints
        self._before = record.get("train_seconds", 0.0) if since else 0.0
        self._began = time.perf_counter()
        self._steady: tuple[int, float] | None = None
        record.setdefault("steps_per_second", None)

    def tick(self, step: int) -> None:
        """Dispatches up to `step` are done; the first one, which compiles, starts the clock."""
        now = time.perf_counter()
        if self._steady is None:
            self._steady = (step, now)
        elif step > self._steady[0]:
            self._record["steps_per_second"] = (step - self._steady[0]) / (now - self._steady[1])

    def preempted(self) -> bool:
        """Whether several processes agreed to stop now."""
        return self._checkpoints.preempted()

    def save(self, step: int, full: PyTree, finished: bool) -> None:
        """Save asynchronously, or to the end if `finished` or asked to stop after this."""
        self._record["train_seconds"] = self._before + time.perf_counter() - self._began
        self._checkpoints.save(step, full)
        if finished:
            self._checkpoints.wait()
        self._record["finished"] = finished
        write_json(self._path, self._record)


def check_directory(directory: Path, identity: Identity) -> dict | None:
    """The stage.json of a directory, None if it holds no stage.

    Raises:
        ValueError: it holds another stage; the differences are listed.
    """
    record = read_json(directory / "stage.json")
    if record is not None and (lines := differences(record["identity"], identity)):
        raise ValueError(
            f"{directory} holds a stage of another run; it differs in\n  "
            + "\n  ".join(lines)
            + "\nName another --workdir, or remove that one."
        )
    return record


def abstract_state(setup: Setup, seeds: tuple[int, ...]) -> PyTree:
    """What `start` returns, without its values; for `jax.eval_shape`."""
    params, state = jax.tree.map(
        lambda leaf: jnp.zeros((len(seeds), *leaf.shape), leaf.dtype), (setup.params, setup.state)
    )
    return assemble(setup, params, state)


def prepare_again(setup: Setup, seeds: tuple[int, ...], full: PyTree) -> PyTree:
    """The method's periodic pass; the optimizers keep their state."""
    params = join(full["trainable"], full["frozen"])
    params, state = prepare(setup, seeds, params, full["state"])
    trainable, frozen = split(params, lambda path: path in setup.trainable)
    full = {**full, "trainable": trainable, "frozen": frozen, "state": state}
    return jax.device_put(full, shard_state(full))


def compile_stage(
    setup: Setup,
    seeds: tuple[int, ...],
    full: PyTree,
    options: RunOptions,
    cache: Cached | None = None,
):
    """(schedule, dispatch, feed, streams) of a stage, or of what its feature cache leaves of it."""
    whole = setup
    if cache is None:
        feed, streams = make_feed(setup.stage, seeds), make_streams(setup.stage, seeds)
    else:
        setup, feed, streams = cache.setup, cache.feed, cache.streams
    stage = setup.stage
    first = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (full, feed.own)
    )
    probe = make_step(setup)

    def one_step(full, own, shared, index):
        batch = gather(stage, shared, own, index, jax.random.key(0))
        return probe(full, full["frozen"], batch, jax.random.key(0), jnp.int32(0))

    index = jax.ShapeDtypeStruct((stage.batch_size, len(stage.domains)), jnp.int32)
    args = (*first, feed.shared, index)
    schedule = choose(setup, one_step, args, options)
    if cache is not None:
        if schedule.seeds == "vmap" and runs_patches(whole):
            # The seeds as without the cache: batching them would round other sums.
            schedule = dataclasses.replace(schedule, seeds="map")
        rest = flops(one_step, *args)
        before, after = (rest + cache.flops) / 1e6, rest / 1e6
        numbers = (stage.name, cache.note, before, after)
        logger.info("stage %s: %s; %.4g MFLOP a step and seed become %.4g", *numbers)
    logger.info("stage %s: %s", stage.name, schedule)
    carry = {name: full[name] for name in CARRIED}
    return schedule, make_dispatch(setup, schedule, shard_state(carry)), feed, streams


def next_stop(step: int, steps: int, stage, options: RunOptions) -> int:
    """The step at which the dispatch that starts at `step` ends."""
    stops = [step + steps, stage.num_steps]
    for every in (options.checkpoint_every, stage.method.prepare_every):
        if every:
            stops.append((step // every + 1) * every)
    return min(stops)
