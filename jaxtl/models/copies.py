"""Several copies of a model's blocks, and the weighted sums of what they give."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.models.blocks import Block, flatten
from jaxtl.models.by_task import is_array
from jaxtl.paths import unknown
from jaxtl.plan import Model, PyTree


class Chain(nn.Module):
    """Blocks in a row as one module, the parameters of each under its name."""

    blocks: tuple[Block, ...]

    @nn.compact
    def __call__(self, inputs: PyTree, train: bool = False) -> PyTree:
        for block in self.blocks:
            inputs = copied(block, block.name, inputs, train)
        return inputs


def copied(block: Block, name: str, inputs: PyTree, train: bool) -> PyTree:
    """What a copy of a block gives, whose parameters stand under a name in the calling module."""
    return block.then(block.run(block.layer.copy(name=name), inputs, train=train))


def check_tasks(model: Model) -> None:
    """Nothing, if the heads of a model can be tasks with parameters of their own.

    Raises:
        ValueError: there is none, or a path could not tell whose a parameter is.
    """
    if not model.heads:
        raise ValueError("a model without heads has no tasks: name them in `heads`.")
    for name in model.heads:
        if "_for_" in name:
            raise ValueError(
                f"head {name!r}: `..._for_<head>` names what a head owns; give it a name without "
                "`_for_`."
            )


def blocks_from(model: Model, start: str) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """(the blocks before, the blocks from `start` on), which are to be one for each task.

    Raises:
        ValueError: the model has no such block or no head, its tasks have parted already, or a
            block cannot be copied.
    """
    if start not in model.blocks:
        raise ValueError(unknown("block", start, model.blocks))
    check_tasks(model)
    if model.tasks:
        raise ValueError(
            f"the tasks {', '.join(model.tasks)} of this model have features of their own already; "
            "give one that they share."
        )
    place = model.blocks.index(start)
    before, blocks = model.backbone[:place], model.backbone[place:]
    for block in blocks:
        if block.without is not None:
            raise ValueError(
                f"block {block.name!r} leaves out a layer of its module and cannot be copied; "
                "start after it."
            )
    return before, blocks


def mixed(name: str, inputs: PyTree, experts: Sequence[jax.Array]) -> jax.Array:
    """A sum of experts by the gate of this name, softmax(W x) of the flat inputs, without bias.

    Args:
        inputs: [n, ...], of the gate.
        experts: outputs [n, ...] of each.

    Raises:
        ValueError: what travels between these blocks is not one array.
    """
    if not all(is_array(each) for each in (inputs, *experts)):
        raise ValueError(
            f"{name} weighs arrays, and these blocks take or give several at once; start at "
            "blocks between which one array travels."
        )
    logits = nn.Dense(len(experts), use_bias=False, name=name)(flatten(inputs))
    shares = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    shares = shares.astype(experts[0].dtype)
    return sum(
        shares[:, i].reshape(-1, *(1,) * (expert.ndim - 1)) * expert
        for i, expert in enumerate(experts)
    )
