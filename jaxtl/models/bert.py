"""BERT and its smaller kin: encoders of token ids.

Devlin et al., "BERT", 2019, arXiv:1810.04805; Turc et al., 2019, arXiv:1908.08962 (BERT-small);
Wang et al., "MiniLM", 2020, arXiv:2002.10957; Sanh et al., "DistilBERT", 2019, arXiv:1910.01108.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl.models.blocks import Block
from jaxtl.models.model import from_blocks
from jaxtl.models.transformer import TransformerLayer, layer_norm
from jaxtl.paths import unknown
from jaxtl.plan import Head, Model, PyTree

EPSILON = 1e-12
KERNEL_INIT = nn.initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The size of a BERT.

    Attributes:
        width: of the hidden states.
        depth: number of layers.
        num_heads: of the attention.
        mlp_width: of the hidden layers.
        vocabulary: number of token ids.
        positions: length of the longest text.
        segments: number of token types, 0 for none. All tokens are of the first.
    """

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    vocabulary: int = 30522
    positions: int = 512
    segments: int = 2


VARIANTS: Mapping[str, BertConfig] = {
    "bert-base": BertConfig(768, 12, 12, 3072),
    "bert-small": BertConfig(512, 4, 8, 2048),
    "minilm-l6": BertConfig(384, 6, 12, 1536),
    "distilbert": BertConfig(768, 6, 12, 3072, segments=0),
}


def bert(
    config: str | BertConfig,
    heads: Mapping[str, Head],
    pooling: Literal["cls", "pooler", "mean"] = "cls",
    *,
    dropout: float = 0.1,
    remat: bool = False,
) -> Model:
    """`embed`, `layer_0`, `layer_1`, ... and `pool`.

    Inputs are {"ids": [n, length] int, "mask": [n, length] int, 1 for a token and 0 for padding};
    see `Dataset.tokenize`. Between the blocks travels {"hidden": [n, length, width], "mask": [n,
    length]}; the features are [n, width].

    Args:
        config: a name in `VARIANTS`, or a size of one's own.
        pooling: "cls" takes the last hidden state of the first token; "pooler" puts BERT's dense
            layer with a tanh on top of it, `pool/dense`; "mean" takes the mean over the tokens,
            without padding, as sentence transformers do (arXiv:1908.10084).
        dropout: share of the embeddings, of the attention weights and of the outputs of attention
            and dense networks that is dropped in training. Frozen layers drop too; with 0, what
            frozen first blocks put out can be computed once for each text.

    Raises:
        ValueError: an unknown config or pooling; from `init` and `apply`, inputs of another kind
            or longer texts than there are positions.
    """
    if isinstance(config, str):
        if config not in VARIANTS:
            raise ValueError(unknown("BERT", config, VARIANTS))
        config = VARIANTS[config]
    pools = {"cls": First(), "pooler": Pooler(), "mean": Mean()}
    if pooling not in pools:
        raise ValueError(unknown("pooling", pooling, pools))
    layer = TransformerLayer(
        config.num_heads, config.mlp_width, EPSILON, False, dropout, KERNEL_INIT
    )

    def call(layer: nn.Module, text: PyTree, train: bool) -> PyTree:
        return {**text, "hidden": layer(text["hidden"], text["mask"] > 0, train=train)}

    call = nn.remat(call, static_argnums=(2,)) if remat else call
    return from_blocks(
        [
            Block("embed", TextEmbedding(config, dropout)),
            *(Block(f"layer_{i}", layer, call=call) for i in range(config.depth)),
            Block("pool", pools[pooling]),
        ],
        heads,
    )


class TextEmbedding(nn.Module):
    """{"ids", "mask"} [n, length] -> {"hidden": [n, length, width], "mask": as it was}.

    Attributes:
        config: sizes.
        dropout: share of the outputs that is dropped in training.
    """

    config: BertConfig
    dropout: float

    @nn.compact
    def __call__(self, text: PyTree, train: bool = False) -> PyTree:
        if not isinstance(text, Mapping) or {"ids", "mask"} - text.keys():
            got = f"{{{', '.join(text)}}}" if isinstance(text, Mapping) else "an array"
            raise ValueError(f"a BERT reads {{ids, mask}}, as `Dataset.tokenize` has it; got {got}")
        ids, config = text["ids"], self.config
        if ids.shape[1] > config.positions:
            raise ValueError(
                f"texts of {ids.shape[1]} tokens are longer than the {config.positions} positions "
                "of this BERT"
            )

        def embed(count: int, name: str) -> nn.Embed:
            return nn.Embed(count, config.width, embedding_init=KERNEL_INIT, name=name)

        hidden = embed(config.vocabulary, "tokens")(ids)
        hidden += embed(config.positions, "positions")(jnp.arange(ids.shape[1])[None])
        if config.segments:
            hidden += embed(config.segments, "segments")(jnp.zeros((1, 1), int))
        hidden = layer_norm(EPSILON, name="norm")(hidden)
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        return {"hidden": hidden, "mask": text["mask"]}


class First(nn.Module):
    """The hidden state of the first token: {"hidden", "mask"} -> [n, width]."""

    def __call__(self, text: PyTree) -> jax.Array:
        return text["hidden"][:, 0]


class Pooler(nn.Module):
    """A dense layer and tanh on the first token: {"hidden", "mask"} -> [n, width]."""

    @nn.compact
    def __call__(self, text: PyTree) -> jax.Array:
        first = text["hidden"][:, 0]
        return jnp.tanh(nn.Dense(first.shape[-1], kernel_init=KERNEL_INIT, name="dense")(first))


class Mean(nn.Module):
    """The mean over the tokens without padding, 0 of none: {"hidden", "mask"} -> [n, width]."""

    def __call__(self, text: PyTree) -> jax.Array:
        weights = (text["mask"] > 0).astype(text["hidden"].dtype)[..., None]
        total = (text["hidden"] * weights).sum(axis=1)
        return total / jnp.maximum(weights.sum(axis=1), 1)
