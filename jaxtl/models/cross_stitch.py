"""Cross-stitch networks: a network for each task, which mix their activations block by block.

Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016. arXiv:1604.03539, Eq. 1.
"""

import dataclasses
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.form import SHARE, checked
from jaxtl.models.blocks import Block
from jaxtl.models.by_task import ByTask, for_each, is_array
from jaxtl.models.copies import blocks_from, copied
from jaxtl.plan import Model, PyTree

Share = Annotated[float, SHARE]


@checked
def cross_stitch(model: Model, start: str, own: Share = 0.9) -> Model:
    """The model with its last blocks once for each head, and units that mix what they give.

    After a block, task t goes on with sum_s units[t, s] * activations of task s, channel by
    channel. Parameters are `backbone/<block>/network_for_<head>/...`, which all heads read through
    the units, and `backbone/<block>/units` [tasks, tasks, channels].

    The paper trains the units with a 100 to 1,000 times larger rate, an optimizer of their own over
    `backbone/.*/units`, and starts from networks trained for one task each.

    Args:
        start: the first block that each task has one of; so has it all that follow.
        own: what a unit starts with for the task itself; the others start with equal parts of the
            rest. With 1 the networks start as separate ones.

    Raises:
        ValueError: as `mmoe`.
    """
    before, blocks = blocks_from(model, start)
    tasks = tuple(model.heads)
    stitched = (
        Block(block.name, _Stitched(tasks, block, own), tasks=tasks, crosses=True)
        for block in blocks
    )
    return dataclasses.replace(model, backbone=(*before, *stitched))


class _Stitched(nn.Module):
    tasks: tuple[str, ...]
    block: Block
    own: float

    @nn.compact
    def __call__(self, inputs: PyTree, train: bool = False) -> ByTask:
        values = for_each(self.tasks, inputs).values
        outputs = [
            copied(self.block, f"network_for_{task}", value, train)
            for task, value in zip(self.tasks, values, strict=True)
        ]
        if not all(is_array(each) for each in outputs):
            raise ValueError(
                f"block {self.block.name!r} gives several arrays at once, which units cannot mix."
            )
        stacked = jnp.stack(outputs)  # [tasks, n, ..., channels]
        units = self.param("units", self._start, stacked.shape[-1]).astype(stacked.dtype)
        return ByTask(self.tasks, tuple(jnp.einsum("tsc,sn...c->tn...c", units, stacked)))

    def _start(self, key: jax.Array, channels: int) -> jax.Array:
        count = len(self.tasks)
        rest = (1 - self.own) / max(1, count - 1)
        own = self.own if count > 1 else 1.0
        units = jnp.full((count, count), rest).at[jnp.diag_indices(count)].set(own)
        return jnp.repeat(units[..., None], channels, axis=-1)
