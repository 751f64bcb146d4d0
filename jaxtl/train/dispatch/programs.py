"""The compiled call that advances a stage: many steps of one replica, or of all of them."""

import dataclasses
import logging
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxtl.plan import PyTree
from jaxtl.train.dispatch.shared import compiled
from jaxtl.train.feed.cache import Cache
from jaxtl.train.feed.examples import (
    Feed,
    first_page,
    make_feed,
    make_streams,
    on_device,
    page_steps,
    shared_by_points,
)
from jaxtl.train.feed.order import Stream
from jaxtl.train.feed.pace import room
from jaxtl.train.mesh import current_mesh, on_all_devices, shard_batch, shard_state
from jaxtl.train.options import RunOptions
from jaxtl.train.rehearsal import abstract_values
from jaxtl.train.resolve.replicas import Replicas, axes, map_replicas, replica
from jaxtl.train.resolve.schedule import Schedule, apart, choose, convolves
from jaxtl.train.resolve.stage import lead_of
from jaxtl.train.resolve.traced import Traced
from jaxtl.train.state import TrainState
from jaxtl.train.step import draw, traced_draw, traced_step

logger = logging.getLogger(__name__)


class Program(NamedTuple):
    """A stage, or what its feature cache leaves of it, ready to be compiled.

    Attributes:
        replicas: the trainings that it advances.
        schedule: how they share the program.
        dispatch: what is compiled, see `make_dispatch`.
        made_of: what it draws a batch by, and its step.
        feed, streams: what the steps gather from, and in which order.
    """

    replicas: Replicas
    schedule: Schedule
    dispatch: Callable
    made_of: tuple[Traced, Traced]
    feed: Feed
    streams: list[list[Stream]]

    def compile(self, *args: PyTree) -> jax.stages.Compiled:
        """The call for these arguments of the dispatch."""
        how = (self.schedule, len(self.replicas), self.replicas.points)
        return compiled(self.made_of, how, self.dispatch, *args)


def make_program(
    replicas: Replicas, train: TrainState, options: RunOptions, cache: Cache | None = None
) -> Program:
    """What trains a stage, or what its feature cache leaves of it.

    Args:
        train: the state of the stage, or its shapes.
    """
    whole = replicas.setup
    if cache is None:
        feed, streams = make_feed(replicas, options), make_streams(replicas)
    else:
        replicas, feed, streams = cache.replicas, cache.feed, cache.streams
    stage, (_, step) = replicas.setup.stage, first_step(replicas, train, feed)
    schedule = choose(replicas.setup, step, options)
    if schedule.steps > 1 and not options.steps_per_dispatch:
        if on_device(feed):
            steps = room(stage, len(replicas))
        else:
            steps = page_steps(feed, replicas, schedule.steps)
        schedule = dataclasses.replace(schedule, steps=steps)
    if cache is not None:
        logger.info("stage %s: %s", stage.name, cache.note)
        if schedule.seeds == "vmap" and convolves(whole):
            # The seeds as without the cache: batching them would round other sums.
            schedule = dataclasses.replace(schedule, seeds=apart(step))
    if schedule.seeds == "vmap":
        feed = shared_by_points(feed, replicas)
    logger.info("stage %s: %s", stage.name, schedule)
    dispatch = make_dispatch(replicas, schedule, shard_state(train.carry), feed)
    made_of = first_step(replicas, train, feed, schedule.micro_batches)
    return Program(replicas, schedule, dispatch, made_of, feed, streams)


def first_step(
    replicas: Replicas, train: TrainState, feed: Feed, micro_batches: int = 1
) -> tuple[Traced, Traced]:
    """How one replica draws a batch from this feed, and its step."""
    rows = first_page(feed, replicas)
    one_replica = shapes_of_one((train.carry._replace(frozen=train.frozen), rows.per_replica))
    shapes = lead_of(replicas.setup.stage), ()
    index, number = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in shapes)
    state, columns = one_replica
    values, feed = abstract_values(replicas), Feed(rows.shared, columns)
    drawn = traced_draw(replicas, values, feed, index, number, number)
    return drawn, traced_step(replicas, micro_batches, values, state, *drawn.results, number)


def shapes_of_one(tree: PyTree) -> PyTree:
    """The shapes of one replica's leaves, of leaves [replicas or 1, ...]."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree)


def make_dispatch(replicas: Replicas, schedule: Schedule, carried: PyTree, feed: Feed) -> Callable:
    """The compiled call that advances all replicas by up to `schedule.steps` steps.

    Args:
        replicas, schedule: what to compile.
        carried: shardings of the carry.
        feed: what will be gathered from, or its shapes.

    Returns:
        (carry, frozen, feed, seeds [L], values {field: [L]}, block [L, steps, batch, domains],
        first step, count) -> (carry, {metric: [L, steps]}); the leaves of carry lead with the axis
        of replicas, those of frozen with it or with one of size 1, carry is donated, metrics
        beyond `count` are 0. Where each replica has a thread, nothing of this has the axis.
    """
    mesh = current_mesh()

    def one_replica(carry, frozen, feed, seed, values, block, first, count):
        stage = replicas.at(values).stage

        def take_step(i, carry):
            step = first + i
            batch, rng = draw(stage, feed, block[i], seed, step)
            train = carry._replace(frozen=frozen)
            args = values, train, shard_batch(mesh, batch), rng, step
            train, logged = traced_step(replicas, schedule.micro_batches, *args)(*args)
            return train.carry, logged

        def body(i, loop):
            carry, logged = take_step(i, loop[0])
            return carry, jax.tree.map(lambda all_, x: all_.at[i].set(x), loop[1], logged)

        shapes = jax.eval_shape(lambda: take_step(0, carry)[1])
        empty = jax.tree.map(lambda s: jnp.zeros((schedule.steps, *s.shape), s.dtype), shapes)
        if schedule.steps == 1:
            return body(0, (carry, empty))
        return jax.lax.fori_loop(0, count, body, (carry, empty))

    def at_once(carry, frozen, feed, seeds, values, block, *numbers):
        frozen, held = axes(frozen, len(replicas))
        in_axes = (0, held, Feed(None, 0), 0, 0, 0, None, None)
        return jax.vmap(one_replica, in_axes)(carry, frozen, feed, seeds, values, block, *numbers)

    def one_after_the_other(carry, frozen, feed, seeds, values, block, *numbers):
        def run(carry, frozen, rows, *rest):
            return one_replica(carry, frozen, Feed(feed.shared, rows), *rest, *numbers)

        trees = (carry, frozen, feed.per_replica, seeds, values, block)
        if schedule.seeds == "map":
            return map_replicas(run, trees, len(replicas))
        results = [run(*replica(trees, i)) for i in range(len(replicas))]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    def by_seeds_and_points(carry, frozen, feed, seeds, values, block, *numbers):
        """The points of a seed share its batch: a layer that reads it is one product for all."""
        points, count = replicas.points, len(replicas) // replicas.points
        frozen, held = axes(frozen, len(replicas))

        def by_point(leaf, axis=0):
            return leaf if axis is None else leaf.reshape(points, count, *leaf.shape[1:])

        carry, values = jax.tree.map(by_point, (carry, values))
        frozen = jax.tree.map(by_point, frozen, held)
        # Points are mapped inside of seeds: within a seed its rows and its batch are constants.
        one_seed = jax.vmap(one_replica, (0, held, None, None, 0, None, None, None))
        outer = jax.tree.map(lambda _: 1, held)
        in_axes = (1, outer, Feed(None, 0), 0, 1, 0, None, None)
        all_seeds = jax.vmap(one_seed, in_axes, out_axes=1)
        results = all_seeds(carry, frozen, feed, seeds[:count], values, block[:count], *numbers)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), results)

    if schedule.seeds == "threads":
        return jax.jit(one_replica, donate_argnums=0, out_shardings=on_all_devices())
    rows = jax.tree.leaves(feed.per_replica)
    if schedule.seeds != "vmap":
        all_replicas = one_after_the_other
    elif rows and len(rows[0]) < len(replicas):
        all_replicas = by_seeds_and_points
    else:
        all_replicas = at_once
    return jax.jit(all_replicas, donate_argnums=0, out_shardings=(carried, on_all_devices()))
