"""How the benchmarks drive our engine; nothing else here calls it."""

import atexit
import contextlib
import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from duel import CHUNK

from jaxtl.features import FeatureStore
from jaxtl.paths import flatten
from jaxtl.plan import Experiment, Params, PyTree, Stage, State, maximize
from jaxtl.pretrained import FileWeights
from jaxtl.study.checks.experiments import Node
from jaxtl.study.traced import Point, Sweep, group_replicas
from jaxtl.train.dispatch import programs
from jaxtl.train.dispatch.running import running
from jaxtl.train.feed import cache
from jaxtl.train.feed.examples import Feed, gather, page
from jaxtl.train.feed.order import index_block
from jaxtl.train.feed.prefix import constant_prefix
from jaxtl.train.loop import Trained, train_stage
from jaxtl.train.mesh import make_mesh
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import over_seeds, replica
from jaxtl.train.resolve.stage import Setup, resolve
from jaxtl.train.state import TrainState, start
from jaxtl.train.step import make_step


class Program(NamedTuple):
    """A stage ready to train.

    Attributes:
        setup, full: the resolved stage and its state before the first step.
        made: what advances it.
    """

    setup: Setup
    full: TrainState
    made: programs.Program

    def arguments(
        self, carry: PyTree, step: int, count: int, seeds: tuple[int, ...], values: PyTree
    ) -> tuple:
        """Those of the dispatch of all seeds for `count` steps from `step` on."""
        feed, block = self.page(step, count)
        numbers = np.int32(seeds), values, block, np.int32(step), np.int32(count)
        return carry, self.full.frozen, feed, *numbers

    def page(self, step: int, count: int) -> tuple[Feed, np.ndarray]:
        """The rows and indices of a dispatch of `count` steps from `step` on."""
        sizes = self.setup.stage.batch_size, self.made.schedule.steps
        return page(self.made.feed, index_block(self.made.streams, step, count, *sizes))

    def carry(self) -> TrainState:
        return self.full.carry


def resolved(stage: Stage, seeds: tuple[int, ...], params: Params | None) -> tuple[Setup, Any]:
    """The setup of a stage and the (params, state) that it loads; None if it starts afresh."""
    setup = resolve(stage, None)
    if params is None:
        return setup, None
    assert flatten(params).keys() == flatten(setup.params).keys()
    loaded = jax.tree.map(lambda leaf: np.stack([leaf] * len(seeds)), params)
    return dataclasses.replace(setup, fresh=frozenset()), (loaded, State({}))


def build(
    stage: Stage,
    seeds: tuple[int, ...] = (0,),
    options: RunOptions | None = None,
    cached: bool = False,
    mesh: str = "",
    params: Params | None = None,
) -> Program:
    """Compile a stage as `jaxtl.train.loop` does.

    Args:
        options: how to run.
        cached: with the automatic feature cache.
        mesh: devices, as in `data=2`; the CPU is split into so many.
        params: what every seed starts from, instead of parameters of its own.
    """
    options = options or RunOptions()
    if mesh:
        sizes = (int(part.partition("=")[2]) for part in mesh.split(","))
        jax.config.update("jax_num_cpu_devices", math.prod(sizes))
        jax.set_mesh(make_mesh(mesh))
    setup, source = resolved(stage, seeds, params)
    replicas = over_seeds(setup, seeds)
    full, features = start(replicas, source), None
    if cached:
        features = cache.cache_features(replicas, full, options, Path(tempfile.gettempdir()))
        assert features is not None
    return Program(setup, full, programs.make_program(replicas, full, options, features))


def ours(
    stage: Stage,
    seeds: tuple[int, ...] = (0,),
    options: RunOptions | None = None,
    cached: bool = False,
    mesh: str = "",
    params: Params | None = None,
) -> Callable[[int], float]:
    """run(units) of training steps, dispatched as `jaxtl.train.loop` does; arguments as `build`."""
    return steps(build(stage, seeds, options, cached, mesh, params))


def features(stage: Stage) -> Callable[[np.ndarray], np.ndarray]:
    """inputs -> features of the frozen first blocks, computed as the feature cache does."""
    setup = resolve(stage, None)
    full, prefix = start(over_seeds(setup, (0,)), None), constant_prefix(setup)
    params, statistics = replica((full.params, full.state.statistics), 0)

    def compute(inputs: np.ndarray) -> np.ndarray:
        rows, empty = np.arange(len(inputs)), FeatureStore()
        return empty.features(prefix.first, params, statistics, inputs, rows, train=True)

    return compute


@dataclasses.dataclass(frozen=True)
class Published:
    """A `plan.Weights`: the backbone's from a file, all others at random, the same each time."""

    file: FileWeights

    @property
    def name(self) -> str:
        return self.file.name

    def digest(self) -> str:
        return self.file.digest()

    def read(self, wanted: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], str]:
        inner = {path: leaf for path, leaf in wanted.items() if path.startswith("backbone/")}
        leaves, report = self.file.read(inner)
        rng = np.random.default_rng(1)
        for path in sorted(wanted.keys() - inner.keys()):
            leaves[path] = rng.normal(0, 0.05, wanted[path].shape).astype(np.float32)
        return leaves, report


def published(stage: Stage) -> Mapping[str, np.ndarray]:
    """{path: array} of what a stage with published weights starts from."""
    return resolve(stage, None).published


def swept(
    build: Callable[[Mapping[str, Any]], Stage],
    field: str,
    values: Sequence[float],
    seeds: tuple[int, ...],
    params: Params,
) -> Callable[[int], float]:
    """run(units) of a stage at several values of a field, which are replicas beside the seeds."""

    def experiment(values: Mapping[str, Any]) -> Experiment:
        return Experiment({"arm": [build(values)]}, "arm", {}, primary=maximize("nothing"))

    points = []
    for value in values:
        made = experiment({field: value})
        setup, source = resolved(made.arms["arm"][0], seeds, params)
        nodes = {setup.stage.name: Node(setup, None)}
        points.append(Point({field: value}, made, nodes))
    sweep = Sweep([point.values for point in points], [{}] * len(points), experiment)
    replicas = group_replicas(setup.stage.name, points, sweep, seeds)
    source = jax.tree.map(lambda leaf: np.concatenate([leaf] * len(points)), source)
    full = start(replicas, source)
    return steps(Program(setup, full, programs.make_program(replicas, full, RunOptions())))


def steps(program: Program) -> Callable[[int], float]:
    """run(units) of a program; returns the first seed's loss at the start of the last dispatch."""
    stack, step = contextlib.ExitStack(), 0
    calls = stack.enter_context(running(program.made, program.full))
    atexit.register(stack.close)
    calls.compile(*program.page(0, 1))

    def run(units: int) -> float:
        nonlocal step
        end = step + units
        while step < end:
            count = min(program.made.schedule.steps, end - step)
            metrics = calls.advance(*program.page(step, count), step, count)
            step += count
        return float(np.asarray(metrics["loss"])[0, 0])

    return run


def train(
    stage: Stage, directory: Path, options: RunOptions | None = None, params: Params | None = None
) -> Trained:
    """The whole loop: log, progress, stage.json, checkpoints."""
    from rich.console import Console

    from jaxtl.study.progress import Reporter

    setup, source = resolved(stage, (0,), params)
    options = options or RunOptions()
    with Reporter(Console(stderr=True)).stage(stage.name, stage.num_steps) as (show, _):
        return train_stage(over_seeds(setup, (0,)), source, directory, {}, options, show)


def scanned(stage: Stage, constant: bool, params: Params) -> Callable[[int], float]:
    """run(units) of our step under a scan; its batch is gathered, or always the first one."""
    program = build(stage, params=params)
    step_fn = make_step(program.setup, program.made.schedule.micro_batches)
    own = jax.tree.map(lambda leaf: leaf[0], program.made.feed.per_replica)
    carry, frozen = jax.tree.map(lambda leaf: leaf[0], (program.carry(), program.full.frozen))
    chunk, batch_size, key = CHUNK, stage.batch_size, jax.random.key(0)
    batch_of = jax.jit(functools.partial(gather, stage))

    @functools.partial(jax.jit, donate_argnums=0)
    def steps(carry: PyTree, frozen: Params, shared: Any, own: Any, batch: PyTree, block, first):
        def one(carry: PyTree, xs: tuple):
            i, index = xs
            if constant:  # neither known when compiling nor worth computing with before the loop
                drawn, carry = jax.lax.optimization_barrier((batch, carry))
            else:
                drawn = gather(stage, shared, own, index, key)
            train, metrics = step_fn(carry._replace(frozen=frozen), drawn, key, first + i)
            return train.carry, metrics["loss"]

        return jax.lax.scan(one, carry, (jnp.arange(chunk), block))

    first_block = index_block(program.made.streams, 0, chunk, batch_size)[0]
    batch, step = batch_of(program.made.feed.shared, own, first_block[0], key), 0

    def run(units: int) -> float:
        nonlocal carry, step
        for _ in range(-(-units // chunk)):
            block = index_block(program.made.streams, step, chunk, batch_size)[0]
            carry, losses = steps(
                carry, frozen, program.made.feed.shared, own, batch, block, np.int32(step)
            )
            step += chunk
        jax.block_until_ready(carry)
        return float(losses[0])

    return run
