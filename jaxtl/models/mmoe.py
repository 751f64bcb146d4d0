"""Multi-gate mixture of experts: all tasks share the experts, each has a gate of its own.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
KDD 2018. doi:10.1145/3219819.3220007, Eq. 5 to 7.
"""

import dataclasses

import flax.linen as nn

from jaxtl.form import Size, checked
from jaxtl.models.blocks import Block
from jaxtl.models.by_task import ByTask
from jaxtl.models.copies import Chain, blocks_from, mixed
from jaxtl.plan import Model, PyTree


@checked
def mmoe(model: Model, start: str, experts: Size = 4) -> Model:
    """The model with its last blocks as experts, of which each head reads a mixture of its own.

    A head t reads sum_e softmax(W_t x)_e f_e(x), with x [n, ...] what the blocks before `start`
    give. With one expert it is the model as it was. Parameters are
    `backbone/experts/expert_<number>/<block>/...` and, the task's own,
    `backbone/experts/gate_for_<head>/kernel` [size of x, experts].

    Args:
        start: the first block that an expert has; it has all that follow.
        experts: how many there are.

    Raises:
        ValueError: there is no such block, no head, or the heads read features of their own
            already; from `init`, several arrays travel between the blocks.
    """
    before, blocks = blocks_from(model, start)
    tasks = tuple(model.heads)
    block = Block("experts", _Experts(tasks, blocks, experts), tasks=tasks)
    return dataclasses.replace(model, backbone=(*before, block))


class _Experts(nn.Module):
    tasks: tuple[str, ...]
    blocks: tuple[Block, ...]
    experts: int

    @nn.compact
    def __call__(self, inputs: PyTree, train: bool = False) -> ByTask:
        numbers = range(self.experts)
        outputs = [Chain(self.blocks, name=f"expert_{i}")(inputs, train) for i in numbers]
        mixtures = (mixed(f"gate_for_{task}", inputs, outputs) for task in self.tasks)
        return ByTask(self.tasks, tuple(mixtures))
