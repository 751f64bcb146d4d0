"""Many steps of all seeds in one compiled call.

How the seeds share the program depends on what the step holds. Dense steps are batched by `vmap`.
Convolutions written as patches + dot (see `jaxtl.models.convolution`) run seed after seed under
`lax.map`: batching their kernels would multiply the patches in memory. An ordinary convolution
inside any XLA loop on a CPU is an order of magnitude slower (jax issue 12868), so those steps are
dispatched one by one, with the seeds unrolled.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from jaxtl.plan import PyTree
from jaxtl.train.feed import Feed, gather
from jaxtl.train.options import RunOptions
from jaxtl.train.setup import Setup, named_key
from jaxtl.train.step import make_step

PATCH_ROWS = 16
"""Rows of a micro-batch whose patches stay in a CPU's cache."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How a stage is compiled.

    Attributes:
        seeds: how the axis of seeds is run.
        steps: at most so many steps per dispatch.
        micro_batches: parts that the batch of a `per_example` update is cut into.
    """

    seeds: Literal["vmap", "map", "unroll"]
    steps: int
    micro_batches: int


def convolutions(jaxpr: jex.Jaxpr) -> set[str]:
    """The kinds of convolution in a program, as a CPU runs it.

    Returns:
        "native" for an ordinary convolution, "patches" for one that is replaced by a product on
        CPUs by `jax.lax.platform_dependent`; empty if there is none.
    """
    kinds = set()
    for eqn in jaxpr.eqns:
        inner = [convolutions(sub) for sub in jex.jaxprs_in_params(eqn.params)]
        if eqn.primitive.name == "conv_general_dilated":
            kinds.add("native")
        elif eqn.params.get("branches_platforms"):
            kinds |= inner[0] or ({"patches"} if any(inner) else set())
        else:
            kinds = kinds.union(*inner)
    return kinds


def choose(setup: Setup, one_step: Callable, args: PyTree, options: RunOptions) -> Schedule:
    """Pick the schedule from the traced step and the device; options override the numbers."""
    kinds = convolutions(jax.make_jaxpr(one_step)(*args).jaxpr)
    cpu = jax.default_backend() == "cpu"
    stage = setup.stage
    rows = stage.batch_size * len(stage.domains)
    parts = 1
    if options.micro_batch > 0:
        parts = max(1, stage.batch_size // options.micro_batch)
    elif options.micro_batch == 0 and cpu and kinds == {"patches"} and not setup.model.live:
        parts = max(1, rows // PATCH_ROWS)
    while stage.batch_size % parts:
        parts -= 1
    if cpu and "native" in kinds:
        return Schedule("unroll", 1, parts)
    steps = options.steps_per_dispatch or 16
    return Schedule("map" if cpu and kinds else "vmap", steps, parts)


def make_dispatch(setup: Setup, schedule: Schedule) -> Callable:
    """The compiled call that advances all seeds by up to `schedule.steps` steps.

    Returns:
        (carry, frozen, feed, seeds [S], block [S, steps, batch, domains], first step, count) ->
        (carry, {metric: [S, steps]}); the leaves of carry and frozen lead with the axis of seeds,
        carry is donated, metrics beyond `count` are 0.
    """
    step_fn = make_step(setup, schedule.micro_batches)

    def one_step(carry, frozen, shared, own, seed, index, step):
        rng = jax.random.fold_in(named_key(seed, "train"), step)
        data_rng, rng = jax.random.split(rng)
        batch = gather(setup.stage, shared, own, index, data_rng)
        return step_fn(carry, frozen, batch, rng, step)

    def many_steps(carry, frozen, shared, own, seed, block, first, count):
        if schedule.steps == 1:
            carry, metrics = one_step(carry, frozen, shared, own, seed, block[0], first)
            return carry, jax.tree.map(lambda value: value[None], metrics)
        shapes = jax.eval_shape(one_step, carry, frozen, shared, own, seed, block[0], first)[1]
        empty = jax.tree.map(lambda s: jnp.zeros((schedule.steps, *s.shape), s.dtype), shapes)

        def body(i, loop):
            carry, metrics = loop
            carry, logged = one_step(carry, frozen, shared, own, seed, block[i], first + i)
            return carry, jax.tree.map(lambda all_, one: all_.at[i].set(one), metrics, logged)

        return jax.lax.fori_loop(0, count, body, (carry, empty))

    def all_seeds(carry, frozen, feed: Feed, seeds, block, first, count):
        def one(carry, frozen, own, seed, block):
            return many_steps(carry, frozen, feed.shared, own, seed, block, first, count)

        args = (carry, frozen, feed.own, seeds, block)
        if schedule.seeds == "vmap":
            return jax.vmap(one)(*args)
        if schedule.seeds == "map":
            return jax.lax.map(lambda xs: one(*xs), args)
        results = [one(*jax.tree.map(lambda x, s=s: x[s], args)) for s in range(len(seeds))]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    return jax.jit(all_seeds, donate_argnums=0)
