"""Small convolutional networks: the seed ConvNet, that of few-shot learning, and a wider one."""

import functools
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax

from jaxtl.form import Rate, Size, checked
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
def conv_4(
    heads: Mapping[str, Head],
    width: Size = 64,
    downsampling: Literal["pool", "stride"] = "pool",
) -> Model:
    """`conv_0` to `conv_3`, 3 x 3, each with batch normalisation and ReLU, at half the size.

    The network of few-shot learning (Vinyals et al., 2016, arXiv:1606.04080, Section 4.1.2): 64
    features at 28 x 28.

    Args:
        width: channels of each convolution.
        downsampling: "pool" takes the maximum of 2 x 2 outputs and needs at least 16 x 16 pixels;
            "stride" computes one of four, about a quarter of the work, as Finn et al. do for
            Omniglot (2017, arXiv:1703.03400, Section 5.2).
    """
    stride = 2 if downsampling == "stride" else 1
    then = nn.relu if downsampling == "stride" else relu_max_pool
    layer = Conv(width, (3, 3), strides=stride, use_bias=False, batch_norm=True)
    return from_blocks([Block(f"conv_{i}", layer, then) for i in range(4)], heads)


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
