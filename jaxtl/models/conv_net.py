"""Small convolutional networks: the seed ConvNet, and a wider one for 32 x 32 colour images."""

import functools
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax

from jaxtl.form import Rate, checked
from jaxtl.models.blocks import Block
from jaxtl.models.convolution import max_pool
from jaxtl.models.layers import Conv, Dense
from jaxtl.models.model import from_blocks
from jaxtl.plan import Head, Model


@checked
def conv_net(
    heads: Mapping[str, Head],
    padding: Literal["SAME", "VALID"] = "SAME",
    batch_norm: bool = False,
) -> Model:
    """`conv_0` (32, pooled), `conv_1` (64, pooled), `conv_2` (64) and `dense_0` (64), 3 x 3, ReLU.

    Args:
        padding: "SAME" for images of at least 4 x 4; "VALID" (at least 18 x 18) gives 93,322
            parameters at 28 x 28 x 1 with ten classes.
        batch_norm: normalise after each convolution, which then has no bias.
    """
    conv = functools.partial(
        Conv, kernel_size=(3, 3), padding=padding, use_bias=not batch_norm, batch_norm=batch_norm
    )
    blocks = [
        Block("conv_0", conv(32), relu_max_pool),
        Block("conv_1", conv(64), relu_max_pool),
        Block("conv_2", conv(64), nn.relu),
        Block("dense_0", Dense(64), nn.relu),
    ]
    return from_blocks(blocks, heads)


@checked
def cifar_conv_net(heads: Mapping[str, Head], dropout: Rate = 0.0) -> Model:
    """`conv_0` (32), `conv_1` (64), both 3 x 3 and pooled, and `dense_0` (512), with ReLU.

    Args:
        dropout: share of the outputs of `dense_0` that is dropped in training.
    """
    blocks = [
        Block("conv_0", Conv(32, (3, 3)), relu_max_pool),
        Block("conv_1", Conv(64, (3, 3)), relu_max_pool),
        Block("dense_0", Dense(512, dropout=dropout), nn.relu),
    ]
    return from_blocks(blocks, heads)


def relu_max_pool(inputs: jax.Array) -> jax.Array:
    """[batch, height, width, channels] -> [batch, height // 2, width // 2, channels]."""
    return max_pool(nn.relu(inputs))
