"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation, with ReLU6.

Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, 2020; Tan & Le,
"EfficientNet", 2019, arXiv:1905.11946. As in the official TensorFlow code, strided convolutions pad
as "SAME", BatchNorm has epsilon 1e-3, and stem, top and the number of blocks of the first and last
stage are the same in all variants.
"""

import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxtl.models.blocks import Block, identity, standardize
from jaxtl.models.layers import Conv
from jaxtl.models.model import from_blocks
from jaxtl.paths import unknown
from jaxtl.plan import Head, Model


class Variant(NamedTuple):
    """How a variant is scaled.

    Attributes:
        width, depth: factors of the channels and of the blocks of a stage.
        size: side of the images that the published weights were trained on.
        dropout: share of the features that is dropped in the published training.
    """

    width: float
    depth: float
    size: int
    dropout: float


VARIANTS = {
    "lite0": Variant(1.0, 1.0, 224, 0.2),
    "lite1": Variant(1.0, 1.1, 240, 0.2),
    "lite2": Variant(1.1, 1.2, 260, 0.3),
    "lite3": Variant(1.2, 1.4, 280, 0.3),
    "lite4": Variant(1.4, 1.8, 300, 0.3),
}

# (blocks, window, stride, expansion, channels) of stage_1, stage_2, ... of lite0
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite(
    variant: str,
    heads: Mapping[str, Head],
    *,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    normalize: tuple | None = (0.5, 0.5),
) -> Model:
    """Blocks `stem`, `stage_1` .. `stage_7`, and `top` with global pooling: [n, 1280] features.

    Images are [n, height, width, 3] float in [0, 1]; published weights saw `VARIANTS[variant].size`
    pixels a side.

    Args:
        variant: "lite0" to "lite4".
        dropout: share of the features that is dropped in training (published: see `VARIANTS`).
        drop_path: chance, in training, that an example skips a block; it grows linearly from 0 in
            the first one to this at the end (Huang et al., 2016, arXiv:1603.09382; published: 0.2).
        normalize: the default scales the pixels to [-1, 1].

    Raises:
        ValueError: unknown variant.
    """
    depths = stage_depths(variant)
    rates = iter(np.linspace(0, drop_path, sum(depths), endpoint=False).tolist())
    blocks = [Block("stem", _Conv(32, (3, 3), strides=2), nn.relu6)]
    for i, depth in enumerate(depths):
        _, window, stride, expansion, channels = _STAGES[i]
        features = _round_channels(channels * VARIANTS[variant].width)
        stage = _Stage(features, window, stride, expansion, tuple(itertools.islice(rates, depth)))
        blocks.append(Block(f"stage_{i + 1}", stage))
    blocks.append(Block("top", _Top(1280, (1, 1), dropout=dropout)))
    return from_blocks(blocks, heads, before=standardize(*normalize) if normalize else identity)


def stage_depths(variant: str) -> list[int]:
    """How many blocks `stage_1`, `stage_2`, ... have; ValueError for an unknown variant."""
    if variant not in VARIANTS:
        raise ValueError(unknown("variant", variant, VARIANTS))
    depths = [math.ceil(VARIANTS[variant].depth * depth) for depth, *_ in _STAGES]
    depths[0], depths[-1] = _STAGES[0][0], _STAGES[-1][0]
    return depths


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8, but never more than a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class _Conv(Conv):
    use_bias: bool = False
    batch_norm: bool = True
    momentum: float = 0.99
    epsilon: float = 1e-3


class _Stage(nn.Module):
    """`block_0`, `block_1`, ...: the first with the stride, the others with an identity around."""

    features: int
    window: int
    stride: int
    expansion: int
    drop_path: tuple[float, ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for i, rate in enumerate(self.drop_path):
            stride = self.stride if i == 0 else 1
            x = InvertedResidual(
                self.features, self.window, stride, self.expansion, rate, name=f"block_{i}"
            )(x, train)
        return x


class InvertedResidual(nn.Module):
    """`expand`, `depthwise`, `project`: 1 x 1, k x k, 1 x 1 (Sandler et al., arXiv:1801.04381)."""

    features: int
    window: int
    stride: int
    expansion: int
    drop_path: float

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        x, channels = inputs, self.expansion * inputs.shape[-1]
        if self.expansion > 1:
            x = nn.relu6(_Conv(channels, (1, 1), name="expand")(x, train))
        window = (self.window, self.window)
        depthwise = _Conv(
            channels, window, self.stride, feature_group_count=channels, name="depthwise"
        )
        x = nn.relu6(depthwise(x, train))
        x = _Conv(self.features, (1, 1), name="project")(x, train)
        if x.shape != inputs.shape:
            return x
        drop = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)
        return inputs + drop(x)


class _Top(_Conv):
    """1 x 1 convolution, ReLU6 and the mean over the image: [n, height, width, c] -> [n, 1280]."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        features = nn.relu6(super().__call__(inputs, train)).mean((1, 2))
        return nn.Dropout(self.dropout, deterministic=not train)(features)
