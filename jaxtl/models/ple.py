"""Customised gate control and progressive layered extraction: shared experts and a task's own.

Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for
Personalized Recommendations", RecSys 2020. doi:10.1145/3383313.3412236, Sections 4.1 and 4.2.
"""

import dataclasses

import flax.linen as nn

from jaxtl.form import Size, checked
from jaxtl.models.blocks import Block
from jaxtl.models.by_task import ByTask, for_each
from jaxtl.models.copies import Chain, blocks_from, mixed
from jaxtl.plan import Model, PyTree


@checked
def cgc(model: Model, start: str, shared: Size = 2, own: Size = 1) -> Model:
    """The model with its last blocks as experts, some for all heads and some for one alone.

    A head t reads sum_e softmax(W_t x)_e f_e(x) over its own experts and the shared ones.
    Parameters are `backbone/experts/expert_<number>/<block>/...` and, the task's own,
    `.../expert_<number>_for_<head>/<block>/...` and `.../gate_for_<head>/kernel`.

    Args:
        start: the first block that an expert has; it has all that follow.
        shared, own: how many experts there are for all heads, and for each.

    Raises:
        ValueError: as `mmoe`.
    """
    before, blocks = blocks_from(model, start)
    level = _level(model, "experts", blocks, shared, own, last=True)
    return dataclasses.replace(model, backbone=(*before, level))


@checked
def ple(model: Model, start: str, shared: Size = 2, own: Size = 1) -> Model:
    """Levels of `cgc` on top of each other, one for each block from `start` on.

    An expert of a task reads what the task's gate chose on the level before; the shared experts
    read what a gate over all experts chose, `gate_shared`. Each level keeps its block's name, and
    the last one has no such gate.

    Args:
        start: the first block that is a level; all that follow are levels too.
        shared, own: as in `cgc`, on every level.

    Raises:
        ValueError: as `mmoe`.
    """
    before, blocks = blocks_from(model, start)
    levels = (
        _level(model, block.name, (block,), shared, own, last=block is blocks[-1])
        for block in blocks
    )
    return dataclasses.replace(model, backbone=(*before, *levels))


def _level(
    model: Model, name: str, blocks: tuple[Block, ...], shared: int, own: int, last: bool
) -> Block:
    tasks = tuple(model.heads)
    return Block(name, _Level(tasks, blocks, shared, own, last), tasks=tasks, crosses=not last)


class _Level(nn.Module):
    tasks: tuple[str, ...]
    blocks: tuple[Block, ...]
    shared: int
    own: int
    last: bool

    @nn.compact
    def __call__(self, inputs: PyTree, train: bool = False) -> ByTask:
        common = inputs.shared if isinstance(inputs, ByTask) else inputs
        by_task = for_each(self.tasks, inputs)
        shared = [Chain(self.blocks, name=f"expert_{i}")(common, train) for i in range(self.shared)]
        task_experts, outputs = [], []
        for task, value in zip(self.tasks, by_task.values, strict=True):
            experts = [
                Chain(self.blocks, name=f"expert_{i}_for_{task}")(value, train)
                for i in range(self.own)
            ]
            outputs.append(mixed(f"gate_for_{task}", value, [*experts, *shared]))
            task_experts += experts
        onwards = None if self.last else mixed("gate_shared", common, [*task_experts, *shared])
        return ByTask(self.tasks, tuple(outputs), onwards)
