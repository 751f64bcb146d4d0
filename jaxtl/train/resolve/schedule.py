"""How a stage is compiled: how its seeds share the program, how many steps a call has.

How the seeds share the program depends on what the step holds. Dense steps are batched by `vmap`.
With convolutions a CPU is faster without: batching the kernels of patches + dot (see
`jaxtl.models.convolution`) multiplies the patches in memory, and what small layers leave idle of
the other cores only another seed can use. So a program of one seed is called for each of them, in
threads. On a mesh of several devices, or where the program calls the host, whose calls then stay in
order, seeds follow each other inside one program: by `lax.map`, or unrolled with ordinary
convolutions, whose gradient inside any XLA loop on a CPU is an order of magnitude slower (jax issue
12868); those steps are also dispatched one by one.
"""

import dataclasses
import logging
from typing import Literal

import jax

from jaxtl.train.mesh import current_mesh
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.convolutions import convolutions
from jaxtl.train.resolve.stage import Setup
from jaxtl.train.resolve.traced import Traced, traced_outputs

logger = logging.getLogger(__name__)

PATCH_BYTES = 9 * 2**18
"""Size of the largest patches of a micro-batch, about a CPU core's second-level cache."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How a stage is compiled.

    Attributes:
        seeds: how the axis of replicas (seeds, and points of a sweep) is run.
        steps: at most so many steps per dispatch.
        micro_batches: parts that the batch of a `per_example` update is cut into.
    """

    seeds: Literal["vmap", "threads", "map", "unroll"]
    steps: int
    micro_batches: int

    def __str__(self) -> str:
        """`up to 16 steps a call, each seed by itself (threads), batches in 4 parts`."""
        seeds = {"vmap": "all seeds at once", "threads": "each seed by itself"}.get(
            self.seeds, "seed after seed"
        )
        parts = f"batches in {self.micro_batches} parts" if self.micro_batches > 1 else ""
        steps = f"up to {self.steps} steps a call" if self.steps > 1 else "a step a call"
        return ", ".join(filter(None, (steps, f"{seeds} ({self.seeds})", parts)))


def convolves(setup: Setup) -> bool:
    """Whether this is a CPU, and the stage's model has convolutions of ours and no others."""
    layers = convolutions(traced_outputs(setup).jaxpr.jaxpr)
    return jax.default_backend() == "cpu" and layers.forward and not layers.native


def apart(step: Traced, native: bool = False) -> Literal["threads", "map", "unroll"]:
    """How the seeds of a step are run that are not to be batched.

    Args:
        native: it holds ordinary convolutions.
    """
    if current_mesh().size == jax.process_count() == 1 and not step.calls_host:
        return "threads"
    return "unroll" if native else "map"


def choose(setup: Setup, step: Traced, options: RunOptions) -> Schedule:
    """Pick the schedule from the step's convolutions and the device; options override numbers.

    Args:
        step: of one replica, its batch in one part.
    """
    layers = convolutions(step.closed.jaxpr)
    cpu = jax.default_backend() == "cpu"
    batch_size, parts = setup.stage.batch_size, 1
    if setup.model.live:
        logger.info(
            "stage %s: its batches stay whole, as it has live batch statistics", setup.stage.name
        )
    elif options.micro_batch > 0:
        parts = -(-batch_size // options.micro_batch)
    elif options.micro_batch == 0 and cpu:
        on_one = layers.patch_bytes // current_mesh().shape["data"]
        parts = min(batch_size, -(-on_one // PATCH_BYTES) or 1)
    while batch_size % parts:
        parts += 1
    if not any(update.per_example for update in setup.stage.method.updates):
        parts = 1
    if cpu and layers.native:
        return Schedule(apart(step, native=True), 1, parts)
    steps = options.steps_per_dispatch or 16
    convolved = layers.patch_bytes or layers.forward
    return Schedule(apart(step) if cpu and convolved else "vmap", steps, parts)
