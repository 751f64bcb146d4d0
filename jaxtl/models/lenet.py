"""LeNet in the form that Caffe made the standard of domain adaptation.

LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", 1998.
LeNet-5 has 6 and 16 maps with partial connections, trained subsampling, tanh and 120-84-10 units;
here, as in Caffe, they are 20 and 50 full maps, max pooling and 500 units. Caffe has a ReLU after
the dense layer only; here, as in the adaptation papers, one follows each pooling too.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax

from jaxtl.models.blocks import Block
from jaxtl.models.convolution import max_pool
from jaxtl.models.layers import Conv, Dense
from jaxtl.models.model import from_blocks
from jaxtl.plan import Head, Model


def lenet(heads: Mapping[str, Head], dropout: float = 0.0) -> Model:
    """`conv_0` (20), `conv_1` (50), both 5 x 5 without padding and pooled, `dense_0` (500).

    Images are at least 16 x 16; 28 x 28 x 1 and ten classes make 431,080 parameters.

    Args:
        dropout: share of the outputs of `dense_0` that is dropped in training.
    """
    blocks = [
        Block("conv_0", Conv(20, (5, 5), padding="VALID"), max_pool_relu),
        Block("conv_1", Conv(50, (5, 5), padding="VALID"), max_pool_relu),
        Block("dense_0", Dense(500, dropout=dropout), nn.relu),
    ]
    return from_blocks(blocks, heads)


def max_pool_relu(inputs: jax.Array) -> jax.Array:
    """[batch, height, width, channels] -> [batch, height // 2, width // 2, channels]."""
    return nn.relu(max_pool(inputs))
