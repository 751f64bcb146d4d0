"""Multilayer perceptrons and linear models."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from jaxtl.form import Rate, Size, checked
from jaxtl.models.blocks import Block, identity, standardize
from jaxtl.models.layers import Dense
from jaxtl.models.model import from_blocks
from jaxtl.plan import Head, Model


@checked
def mlp(
    heads: Mapping[str, Head],
    hidden: Sequence[Size] = (256,),
    dropout: Rate = 0.0,
    normalize: Any = None,
) -> Model:
    """Dense layers `dense_0`, `dense_1`, ... with ReLU, on flattened inputs [n, ...].

    Args:
        heads: {name: Head}.
        hidden: widths of the layers.
        dropout: share of each layer's outputs that is dropped in training.
        normalize: (mean, std) of the inputs, scalars or one number for each last index.
    """
    return from_blocks(
        [Block(f"dense_{i}", Dense(n, dropout=dropout), nn.relu) for i, n in enumerate(hidden)],
        heads,
        before=standardize(*normalize) if normalize else identity,
    )


def linear(heads: Mapping[str, Head], normalize: tuple | None = None) -> Model:
    """No blocks: the features are the flattened inputs, and each head is a linear model of them."""
    return mlp(heads, (), normalize=normalize)
