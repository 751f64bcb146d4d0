"""Models of inputs in a context, and networks that make one."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.form import Size, checked
from jaxtl.models.layers import Conv
from jaxtl.models.model import Network
from jaxtl.plan import Module, Params, StageShape


class InContext(NamedTuple):
    """Inputs of a `context_model`, with the context in which it sees them.

    Attributes:
        inputs: [n, ..., channels] float.
        context: [n, ..., context channels].
    """

    inputs: jax.Array
    context: jax.Array


@dataclasses.dataclass(frozen=True)
class ContextBeside:
    """`Network.before` of a model with more input channels, zeros where it is told no context."""

    before: Callable[[jax.Array], jax.Array]
    channels: int

    def __call__(self, values: jax.Array | InContext) -> jax.Array:
        if isinstance(values, InContext):
            inputs, context = self.before(values.inputs), values.context
        else:
            inputs = self.before(values)
            context = jnp.zeros((*inputs.shape[:-1], self.channels), inputs.dtype)
        return jnp.concatenate([inputs, context.astype(inputs.dtype)], -1)


@checked
def context_model(model: Network, channels: Size = 1) -> Network:
    """The same model with further input channels, for the context that `generalize.arm` tells it.

    Args:
        model: of inputs that are one array [n, ..., channels].
        channels: that are put after those of the inputs; as many as the context network has.
    """
    return dataclasses.replace(model, before=ContextBeside(model.before, channels))


@checked
def context_network(hidden: Sequence[Size] = (64, 64), channels: Size = 1) -> Module:
    """Convolutions of 5 x 5 with ReLU between them, or dense layers on inputs that are no maps.

    That of public code, without its BatchNorm.

    Args:
        hidden: channels of the hidden layers.
        channels: of the context.
    """

    def module(rank: int) -> nn.Module:
        if rank > 2:
            layers = [Conv(width, (5,) * (rank - 2)) for width in (*hidden, channels)]
        else:
            layers = [nn.Dense(width) for width in (*hidden, channels)]
        return nn.Sequential([x for layer in layers[:-1] for x in (layer, nn.relu)] + layers[-1:])

    def init(rng: jax.Array, output: dict, shape: StageShape) -> Params:
        inputs = output["inputs"]
        return module(inputs.ndim).init(rng, inputs)["params"]

    def apply(params: Params, inputs: jax.Array) -> jax.Array:
        return module(inputs.ndim).apply({"params": params}, inputs)

    return Module(init, apply)
