"""Vision transformers.

Dosovitskiy et al., "An image is worth 16x16 words", 2021, arXiv:2010.11929; the sizes Ti and S are
those of Touvron et al., 2021, arXiv:2012.12877, as published by Steiner et al., 2022,
arXiv:2106.10270. Like those files and timm, and unlike the first ones, without a `pre_logits`
layer; the GELU is exact, as in timm (the JAX codes take the tanh approximation).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.models.blocks import Block, identity, standardize
from jaxtl.models.model import from_blocks
from jaxtl.models.transformer import TransformerLayer, layer_norm
from jaxtl.paths import unknown
from jaxtl.plan import Head, Model

EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """The size of a vision transformer.

    Attributes:
        patch: side of a patch in pixels.
        width: of the hidden states.
        depth: number of layers.
        num_heads: of the attention.
        mlp_width: of the hidden layers.
    """

    patch: int
    width: int
    depth: int
    num_heads: int
    mlp_width: int


VARIANTS: Mapping[str, ViTConfig] = {
    "Ti/16": ViTConfig(16, 192, 12, 3, 768),
    "S/32": ViTConfig(32, 384, 12, 6, 1536),
    "S/16": ViTConfig(16, 384, 12, 6, 1536),
    "B/32": ViTConfig(32, 768, 12, 12, 3072),
    "B/16": ViTConfig(16, 768, 12, 12, 3072),
    "B/8": ViTConfig(8, 768, 12, 12, 3072),
}


def vit(
    variant: str | ViTConfig,
    heads: Mapping[str, Head],
    image_size: int = 224,
    *,
    pooling: Literal["cls", "mean"] = "cls",
    normalize: tuple | None = (0.5, 0.5),
    dropout: float = 0.0,
    remat: bool = False,
) -> Model:
    """`embed`, `layer_0`, `layer_1`, ... and `norm`, for square images.

    Between the blocks travel tokens [n, tokens, width]; the features are [n, width].

    Args:
        variant: a name in `VARIANTS`, or a size of one's own.
        image_size: side of the images in pixels; the position embeddings depend on it.
        pooling: "cls" prepends a class token and takes its last hidden state; "mean" does without
            one and takes the mean of all tokens. Both after the last layer norm.
        normalize: the default is that of most published weights, inputs in [-1, 1].
        dropout: share of the embeddings, of the attention weights and of the outputs of attention
            and dense networks that is dropped in training.

    Raises:
        ValueError: an unknown variant or pooling, or patches that do not fill the image; from
            `init` and `apply`, images of another size.
    """
    if isinstance(variant, str):
        if variant not in VARIANTS:
            raise ValueError(unknown("ViT", variant, VARIANTS))
        variant = VARIANTS[variant]
    if pooling not in ("cls", "mean"):
        raise ValueError(unknown("pooling", pooling, ("cls", "mean")))
    if image_size % variant.patch:
        raise ValueError(
            f"patches of {variant.patch} pixels do not fill an image of {image_size}; take a "
            f"multiple, such as {max(1, round(image_size / variant.patch)) * variant.patch}"
        )
    layer = TransformerLayer(variant.num_heads, variant.mlp_width, EPSILON, True, dropout)
    embed = PatchEmbedding(variant.patch, variant.width, image_size, pooling == "cls", dropout)

    def call(layer: nn.Module, tokens: jax.Array, train: bool) -> jax.Array:
        return layer(tokens, train=train)

    call = nn.remat(call, static_argnums=(2,)) if remat else call
    return from_blocks(
        [
            Block("embed", embed),
            *(Block(f"layer_{i}", layer, call=call) for i in range(variant.depth)),
            Block("norm", layer_norm(EPSILON), _first if pooling == "cls" else _mean),
        ],
        heads,
        before=standardize(*normalize) if normalize else identity,
    )


class PatchEmbedding(nn.Module):
    """Images [n, size, size, channels] -> tokens [n, tokens, width], row by row.

    Attributes:
        patch: side of a patch.
        width: of the tokens.
        image_size: side of the images.
        class_token: put a token first that stands for no patch.
        dropout: share of the outputs that is dropped in training.
    """

    patch: int
    width: int
    image_size: int
    class_token: bool
    dropout: float

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        if images.shape[1:3] != (self.image_size, self.image_size):
            raise ValueError(
                f"this ViT is for images of {self.image_size} x {self.image_size} pixels, got "
                f"{list(images.shape)}; resize them or set image_size"
            )
        sides = (self.patch, self.patch)
        tokens = nn.Conv(
            self.width, sides, sides, padding="VALID", conv_general_dilated=_patchwise, name="patch"
        )(images)
        tokens = tokens.reshape(len(tokens), -1, self.width)
        if self.class_token:
            first = self.param("cls", nn.initializers.zeros, (1, 1, self.width))
            first = jnp.broadcast_to(first, (len(tokens), 1, self.width))
            tokens = jnp.concatenate([first.astype(tokens.dtype), tokens], axis=1)
        positions = self.param("positions", nn.initializers.normal(0.02), (1, *tokens.shape[1:]))
        return nn.Dropout(self.dropout, deterministic=not train)(tokens + positions)


def _patchwise(inputs: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """A convolution whose stride is its window, as one dot: XLA's CPU convolution has one core."""
    (n, height, width, channels), side = inputs.shape, len(kernel)
    rows, columns = height // side, width // side
    patches = inputs.reshape(n, rows, side, columns, side, channels).swapaxes(2, 3)
    return jnp.dot(patches.reshape(n, rows, columns, -1), kernel.reshape(-1, kernel.shape[-1]))


def _first(tokens: jax.Array) -> jax.Array:
    return tokens[:, 0]


def _mean(tokens: jax.Array) -> jax.Array:
    return tokens.mean(axis=1)
