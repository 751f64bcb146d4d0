"""Many steps of all seeds in one compiled call.

How the seeds share the program depends on what the step holds. Dense steps are batched by `vmap`.
Convolutions written as patches + dot (see `jaxtl.models.convolution`) run seed after seed under
`lax.map`: batching their kernels would multiply the patches in memory. The gradient of an ordinary
convolution inside any XLA loop on a CPU is an order of magnitude slower (jax issue 12868), so those
steps are dispatched one by one, with the seeds unrolled.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxtl.paths import key
from jaxtl.plan import PyTree
from jaxtl.train.feed.examples import Feed, gather
from jaxtl.train.mesh import current_mesh, replicated, shard_batch
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.convolutions import convolutions
from jaxtl.train.resolve.lanes import Lanes
from jaxtl.train.resolve.stage import Setup
from jaxtl.train.step import make_step

logger = logging.getLogger(__name__)

PATCH_BYTES = 9 * 2**18
"""Size of the largest patches of a micro-batch, about a CPU core's second-level cache."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How a stage is compiled.

    Attributes:
        seeds: how the axis of lanes (seeds, and points of a sweep) is run.
        steps: at most so many steps per dispatch.
        micro_batches: parts that the batch of a `per_example` update is cut into.
    """

    seeds: Literal["vmap", "map", "unroll"]
    steps: int
    micro_batches: int


def convolves(setup: Setup) -> bool:
    """Whether this is a CPU, and the stage's model has convolutions of ours and no others."""
    apply, args = setup.model.apply, (setup.params, setup.state, setup.inputs)
    found = convolutions(jax.make_jaxpr(lambda *a: apply(*a)[0])(*args).jaxpr)
    return jax.default_backend() == "cpu" and found.forward and not found.native


def choose(setup: Setup, one_step: Callable, args: PyTree, options: RunOptions) -> Schedule:
    """Pick the schedule from the traced step and the device; options override the numbers."""
    found = setup.convolutions
    if found is None:
        found = convolutions(jax.make_jaxpr(one_step)(*args).jaxpr)
    cpu = jax.default_backend() == "cpu"
    batch_size, parts = setup.stage.batch_size, 1
    if setup.model.live:
        logger.info("stage %s is not cut: it has live batch statistics", setup.stage.name)
    elif options.micro_batch > 0:
        parts = -(-batch_size // options.micro_batch)
    elif options.micro_batch == 0 and cpu:
        on_one = found.patch_bytes // current_mesh().shape["data"]
        parts = min(batch_size, -(-on_one // PATCH_BYTES) or 1)
    while batch_size % parts:
        parts += 1
    if cpu and found.native:
        return Schedule("unroll", 1, parts)
    steps = options.steps_per_dispatch or 16
    convolved = found.patch_bytes or found.forward
    return Schedule("map" if cpu and convolved else "vmap", steps, parts)


def make_dispatch(lanes: Lanes, schedule: Schedule, carried: PyTree) -> Callable:
    """The compiled call that advances all lanes by up to `schedule.steps` steps.

    Args:
        lanes, schedule: what to compile.
        carried: shardings of the carry.

    Returns:
        (carry, frozen, feed, seeds [L], values {field: [L]}, block [L, steps, batch, domains],
        first step, count) -> (carry, {metric: [L, steps]}); the leaves of carry and frozen lead
        with the axis of lanes, carry is donated, metrics beyond `count` are 0.
    """
    mesh = current_mesh()

    def many_steps(carry, frozen, shared, own, seed, values, block, first, count):
        setup = lanes.at(values)
        step_fn = make_step(setup, schedule.micro_batches)

        def one_step(carry, index, step):
            rng = jax.random.fold_in(key(jax.random.key(seed), "train"), step)
            data_rng, rng = jax.random.split(rng)
            batch = shard_batch(mesh, gather(setup.stage, shared, own, index, data_rng))
            return step_fn(carry, frozen, batch, rng, step)

        if schedule.steps == 1:
            carry, metrics = one_step(carry, block[0], first)
            return carry, jax.tree.map(lambda value: value[None], metrics)
        shapes = jax.eval_shape(one_step, carry, block[0], first)[1]
        empty = jax.tree.map(lambda s: jnp.zeros((schedule.steps, *s.shape), s.dtype), shapes)

        def body(i, loop):
            carry, metrics = loop
            carry, logged = one_step(carry, block[i], first + i)
            return carry, jax.tree.map(lambda all_, one: all_.at[i].set(one), metrics, logged)

        return jax.lax.fori_loop(0, count, body, (carry, empty))

    def all_lanes(carry, frozen, feed: Feed, seeds, values, block, first, count):
        def one(carry, frozen, own, *rest):
            return many_steps(carry, frozen, feed.shared, own, *rest, first, count)

        args = (carry, frozen, feed.own, seeds, values, block)
        own = jax.tree.leaves(feed.own)
        if schedule.seeds == "vmap" and own and len(own[0]) < len(lanes):
            return by_seeds_and_points(one, *args)
        if schedule.seeds == "vmap":
            return jax.vmap(one)(*args)
        if schedule.seeds == "map":
            return jax.lax.map(lambda xs: one(*xs), args)
        results = [one(*jax.tree.map(lambda x, i=i: x[i], args)) for i in range(len(seeds))]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    def by_seeds_and_points(one, carry, frozen, own, seeds, values, block):
        """The points of a seed share its batch: a layer that reads it is one product for all."""
        points, count = lanes.points, len(lanes) // lanes.points
        state = jax.tree.map(
            lambda leaf: leaf.reshape(points, count, *leaf.shape[1:]), (carry, frozen, values)
        )

        def one_seed(state, own, seed, block):
            return jax.vmap(lambda c, f, v: one(c, f, own, seed, v, block))(*state)

        all_seeds = jax.vmap(one_seed, in_axes=(1, 0, 0, 0), out_axes=1)
        results = all_seeds(state, own, seeds[:count], block[:count])
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), results)

    return jax.jit(all_lanes, donate_argnums=0, out_shardings=(carried, replicated()))
