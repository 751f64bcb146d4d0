"""Attention of each task over the activations of one shared network, as in MTAN.

Liu, Johns & Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019. arXiv:1803.10704,
Section 3.2.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.form import checked
from jaxtl.models.blocks import Block
from jaxtl.models.by_task import ByTask, is_array
from jaxtl.models.copies import blocks_from
from jaxtl.plan import Model, PyTree


@checked
def task_attention(model: Model, start: str) -> Model:
    """The model with a mask for each head over what each of its last blocks gives.

    Task t goes on with a * p after a block that gives p, where a = sigmoid(g(relu(h([p; q])))) is a
    number in (0, 1) for each channel and place, h and g are dense layers over the channels, and q
    is what the task had after the block before. The blocks keep their paths and compute what they
    did; block `<name>_attention` follows each of them, with the task's own
    `hidden_for_<head>/{kernel,bias}` and `mask_for_<head>/{kernel,bias}`.

    The paper reads activations from within a block beside q, brings q to the shape of p by a
    convolution and pooling, and normalises by batch; here these are p, a resized q, and nothing.

    Args:
        start: the first block that is attended to; so are all that follow.

    Raises:
        ValueError: as `mmoe`.
    """
    before, blocks = blocks_from(model, start)
    tasks, attended = tuple(model.heads), []
    for block in blocks:
        module = _Attention(tasks, last=block is blocks[-1])
        attended += [
            _on_shared(block, tasks) if attended else block,
            Block(f"{block.name}_attention", module, tasks=tasks),
        ]
    return dataclasses.replace(model, backbone=(*before, *attended))


def _on_shared(block: Block, tasks: tuple[str, ...]) -> Block:
    """A block of what all tasks share, past which they carry what they have."""

    def call(layer: nn.Module, inputs: ByTask, train: bool) -> ByTask:
        outputs = block.then(block.run(layer, inputs.shared, train=train))
        return dataclasses.replace(inputs, shared=outputs)

    return Block(block.name, block.layer, call=call, tasks=tasks)


class _Attention(nn.Module):
    tasks: tuple[str, ...]
    last: bool

    @nn.compact
    def __call__(self, inputs: PyTree) -> ByTask:
        shared = inputs.shared if isinstance(inputs, ByTask) else inputs
        if not is_array(shared):
            raise ValueError(f"{self.name or 'attention'}: several arrays travel at once, not one.")
        attended = []
        for task in self.tasks:
            read = [shared]
            if isinstance(inputs, ByTask):
                read.append(_resized(inputs[task], shared))
            channels = shared.shape[-1]
            hidden = nn.Dense(channels, name=f"hidden_for_{task}")(jnp.concatenate(read, -1))
            mask = nn.sigmoid(nn.Dense(channels, name=f"mask_for_{task}")(nn.relu(hidden)))
            attended.append(mask * shared)
        return ByTask(self.tasks, tuple(attended), None if self.last else shared)


def _resized(x: jax.Array, like: jax.Array) -> jax.Array:
    """x [n, ..., channels] at the places of another array; the mean where that has none."""
    if x.ndim != like.ndim:
        x = x.mean(tuple(range(1, x.ndim - 1)), keepdims=True)
        x = x.reshape(len(x), *(1,) * (like.ndim - 2), x.shape[-1])
    shape = (*like.shape[:-1], x.shape[-1])
    return x if x.shape == shape else jax.image.resize(x, shape, "linear")
