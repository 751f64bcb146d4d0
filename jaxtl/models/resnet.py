"""ResNet-18, -34 and -50 in the form whose weights are published.

He, Zhang, Ren & Sun, "Deep residual learning for image recognition", 2015, arXiv:1512.03385. As in
torchvision, the stride of a bottleneck is in its 3 x 3 convolution (the paper has it in the first
1 x 1), which is called v1.5.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax

from jaxtl.models.blocks import Block, identity, standardize
from jaxtl.models.convolution import max_pool
from jaxtl.models.layers import Conv
from jaxtl.models.model import from_blocks
from jaxtl.paths import unknown
from jaxtl.plan import Head, Model

VARIANTS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
"""{variant: (blocks of each stage, whether they are bottlenecks)}."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels in [0, 1], as published weights expect them."""


def resnet(variant: str, heads: Mapping[str, Head], *, normalize: tuple | None = IMAGENET) -> Model:
    """Blocks `stem` and `stage_1` .. `stage_4`, the last with global pooling.

    Images are [n, height, width, 3] float in [0, 1]; the features are [n, 512], those of
    "resnet50" [n, 2048].

    Args:
        variant: "resnet18", "resnet34" or "resnet50".

    Raises:
        ValueError: unknown variant.
    """
    if variant not in VARIANTS:
        raise ValueError(unknown("variant", variant, VARIANTS))
    depths, bottleneck = VARIANTS[variant]
    blocks = [Block("stem", _conv(64, 7, 2), _relu_max_pool)]
    for i, depth in enumerate(depths):
        stage = _Stage(depth, 64 * 2**i, 1 if i == 0 else 2, bottleneck)
        last = i == len(depths) - 1
        blocks.append(Block(f"stage_{i + 1}", stage, _global_mean if last else identity))
    return from_blocks(blocks, heads, before=standardize(*normalize) if normalize else identity)


def _conv(features: int, window: int, stride: int = 1, name: str | None = None) -> Conv:
    pads = [(window // 2, window // 2)] * 2  # "SAME" pads other sides where there is a stride
    return Conv(
        features,
        (window, window),
        stride,
        padding=pads,
        use_bias=False,
        batch_norm=True,
        name=name,
    )


def _relu_max_pool(inputs: jax.Array) -> jax.Array:
    return max_pool(nn.relu(inputs), 3, stride=2, padding=1)


def _global_mean(inputs: jax.Array) -> jax.Array:
    return inputs.mean((1, 2))


class _Stage(nn.Module):
    """`block_0`, `block_1`, ...: the first with the stride."""

    depth: int
    features: int
    stride: int
    bottleneck: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for i in range(self.depth):
            stride = self.stride if i == 0 else 1
            x = _Residual(self.features, stride, self.bottleneck, name=f"block_{i}")(x, train)
        return x


class _Residual(nn.Module):
    """`conv_1`, `conv_2` (and a bottleneck's `conv_3`); `shortcut` where the shape changes."""

    features: int
    stride: int
    bottleneck: bool

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        features, stride = self.features, self.stride
        if self.bottleneck:
            x = nn.relu(_conv(features, 1, name="conv_1")(inputs, train))
            x = nn.relu(_conv(features, 3, stride, name="conv_2")(x, train))
            x = _conv(4 * features, 1, name="conv_3")(x, train)
        else:
            x = nn.relu(_conv(features, 3, stride, name="conv_1")(inputs, train))
            x = _conv(features, 3, name="conv_2")(x, train)
        if x.shape != inputs.shape:
            inputs = _conv(x.shape[-1], 1, stride, name="shortcut")(inputs, train)
        return nn.relu(inputs + x)
