"""Multilayer perceptrons and linear models."""

from collections.abc import Mapping, Sequence

import flax.linen as nn

from jaxtl.form import Rate, Size, checked
from jaxtl.models.blocks import Block
from jaxtl.models.layers import Dense
from jaxtl.models.model import from_blocks
from jaxtl.plan import Head, Model


@checked
def mlp(
    heads: Mapping[str, Head],
    hidden: Sequence[Size] = (256,),
    dropout: Rate = 0.0,
) -> Model:
    """Dense layers `dense_0`, `dense_1`, ... with ReLU, on flattened inputs [n, ...].

    Args:
        hidden: widths of the layers.
        dropout: share of each layer's outputs that is dropped in training.
    """
    layers = (Dense(width, dropout=dropout) for width in hidden)
    return from_blocks([Block(f"dense_{i}", x, nn.relu) for i, x in enumerate(layers)], heads)


def linear(heads: Mapping[str, Head]) -> Model:
    """No blocks: the features are the flattened inputs, and each head is a linear model of them."""
    return mlp(heads, ())
