"""A vector for each task that scales and shifts the channels of one shared network.

Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI 2018.
arXiv:1709.07871, Eq. 1 and 2, conditioned on a learned vector of the task.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.form import Size, checked
from jaxtl.models.blocks import Block
from jaxtl.models.by_task import ByTask, is_array
from jaxtl.models.copies import blocks_from
from jaxtl.plan import Model


@checked
def task_embedding(model: Model, after: str, size: Size = 16) -> Model:
    """The model with x * (1 + z_t S) + z_t B in the place of x, what a block gives, for each head.

    All blocks after it are shared and called for each task. S and B start as 0, so that the model
    starts as it was. Parameters of the block `<after>_tasks` are `embedding_for_<head>` [size], the
    task's own, `scale/kernel` and `shift/kernel` [size, channels].

    Args:
        after: the block after which the tasks part.
        size: of the vector z_t, which starts as N(0, 1).

    Raises:
        ValueError: as `mmoe`.
    """
    blocks_from(model, after)
    tasks, place = tuple(model.heads), model.blocks.index(after) + 1
    block = Block(f"{after}_tasks", _Embedding(tasks, size), tasks=tasks)
    backbone = (*model.backbone[:place], block, *model.backbone[place:])
    return dataclasses.replace(model, backbone=backbone)


class _Embedding(nn.Module):
    tasks: tuple[str, ...]
    size: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> ByTask:
        if not is_array(inputs):
            raise ValueError("a task's vector scales one array; several travel between the blocks.")
        start, zeros = nn.initializers.normal(1.0), nn.initializers.zeros
        vectors = [self.param(f"embedding_for_{task}", start, (self.size,)) for task in self.tasks]
        vectors = jnp.stack(vectors).astype(inputs.dtype)
        scales, shifts = (
            nn.Dense(inputs.shape[-1], use_bias=False, kernel_init=zeros, name=name)(vectors)
            for name in ("scale", "shift")
        )
        lead = (1,) * (inputs.ndim - 1)
        conditioned = (
            inputs * (1 + scale.reshape(*lead, -1)) + shift.reshape(*lead, -1)
            for scale, shift in zip(scales, shifts, strict=True)
        )
        return ByTask(self.tasks, tuple(conditioned))
