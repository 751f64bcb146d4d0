"""Names of `models.vit`'s parameters in published files."""

import functools
import math

import numpy as np

from jaxtl.pretrained.names.layered import layered, places, torch_names
from jaxtl.pretrained.names.scheme import CONV, DENSE, SAME, Entry, Layout, Mismatch, Scheme

_TIMM = {
    "layer_*/norm_1": "blocks.*.norm1",
    "layer_*/attention/out": "blocks.*.attn.proj",
    "layer_*/norm_2": "blocks.*.norm2",
    "layer_*/mlp/up": "blocks.*.mlp.fc1",
    "layer_*/mlp/down": "blocks.*.mlp.fc2",
    "norm": "norm",
    "heads/*": "head",
}
_HUGGING_FACE = {
    "layer_*/norm_1": "encoder.layer.*.layernorm_before",
    "layer_*/attention/query": "encoder.layer.*.attention.attention.query",
    "layer_*/attention/key": "encoder.layer.*.attention.attention.key",
    "layer_*/attention/value": "encoder.layer.*.attention.attention.value",
    "layer_*/attention/out": "encoder.layer.*.attention.output.dense",
    "layer_*/norm_2": "encoder.layer.*.layernorm_after",
    "layer_*/mlp/up": "encoder.layer.*.intermediate.dense",
    "layer_*/mlp/down": "encoder.layer.*.output.dense",
    "norm": "layernorm",
    "heads/*": "classifier",
}

# Since its version 5 in memory, and so in PEFT's adapters; files of whole models stay as above.
_HUGGING_FACE_5 = {
    "layer_*/norm_1": "layers.*.layernorm_before",
    "layer_*/attention/query": "layers.*.attention.q_proj",
    "layer_*/attention/key": "layers.*.attention.k_proj",
    "layer_*/attention/value": "layers.*.attention.v_proj",
    "layer_*/attention/out": "layers.*.attention.o_proj",
    "layer_*/norm_2": "layers.*.layernorm_after",
    "layer_*/mlp/up": "layers.*.mlp.fc1",
    "layer_*/mlp/down": "layers.*.mlp.fc2",
    "norm": "layernorm",
    "heads/*": "classifier",
}


def resize_positions(positions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Position embeddings of a square image for one of another size.

    As in big_vision and its ancestors, the grid is interpolated bilinearly with its corners fixed
    (timm: bicubic, corners moved). A class token's position is kept as it is, left out where the
    model has no class token, and 0 where the file has none, which then holds it in the token.

    Args:
        positions: [1, tokens, width], the class token first.
        shape: [1, tokens, width] that is wanted.

    Raises:
        ValueError: the tokens of either form no square, or the widths differ.
    """
    from scipy import ndimage

    problem = f"position embeddings {list(positions.shape)} cannot become {list(shape)}"
    if positions.ndim != 3 or positions.shape[0] != 1 or not positions.size:
        raise ValueError(problem)
    (before, width), (after, wanted) = positions.shape[1:], shape[1:]
    old, new = math.isqrt(before), math.isqrt(after)
    tokens = before - old**2, after - new**2
    if max(tokens) > 1 or width != wanted:
        raise ValueError(problem)
    grid = positions[0, tokens[0] :].reshape(old, old, width)
    grid = ndimage.zoom(grid, (new / old, new / old, 1), order=1).reshape(1, new**2, width)
    first = positions[:, :1] if tokens[0] else np.zeros((1, 1, width), positions.dtype)
    return np.concatenate([first, grid], axis=1) if tokens[1] else grid


_CONFIG = {"model_type": ("vit",), "hidden_act": ("gelu",)}
_RESIZED = {"backbone/embed/positions": resize_positions}


def _torch(modules: dict[str, str], patch: str, token: str, positions: str) -> dict[str, Entry]:
    return torch_names(modules) | {
        "embed/patch/kernel": Entry(f"{patch}.weight", CONV),
        "embed/patch/bias": Entry(f"{patch}.bias"),
        "embed/cls": Entry(token),
        "embed/positions": Entry(positions),
    }


def _timm() -> Scheme:
    """Queries, keys and values are one linear layer there."""
    table = _torch(_TIMM, "patch_embed.proj", "cls_token", "pos_embed")
    for part, name in enumerate(("query", "key", "value")):
        weight, bias = (f"blocks.*.attn.qkv.{leaf}" for leaf in ("weight", "bias"))
        table[f"layer_*/attention/{name}/kernel"] = Entry(weight, DENSE, part, 3)
        table[f"layer_*/attention/{name}/bias"] = Entry(bias, SAME, part, 3)
    heads = (r"head\..*",)
    entry, inverse = layered(table), places(table)
    return Scheme("timm", entry, ("mask_token",), _RESIZED, heads, places=inverse)


def _hugging_face(prefix: str = "", modules: dict[str, str] = _HUGGING_FACE) -> Scheme:
    embeddings = ("patch_embeddings.projection", "cls_token", "position_embeddings")
    table = _torch(modules, *(f"embeddings.{name}" for name in embeddings))
    name = "Hugging Face" if modules is _HUGGING_FACE else "Hugging Face 5"
    name = f"{name} with the prefix {prefix}" if prefix else name
    # Masks are for pretraining, and the pooler comes after the features.
    ignored = (rf"{prefix}embeddings\.mask_token", rf"{prefix}pooler\.dense\.(weight|bias)")
    heads = (r"classifier\..*",)
    entry, inverse = layered(table, prefix), places(table, prefix)
    return Scheme(name, entry, ignored, _RESIZED, heads, _CONFIG, inverse)


@functools.cache
def vision_transformer(head_width: int = 64) -> Scheme:
    """The `.npz` files of vision_transformer, such as those of AugReg (arXiv:2106.10270).

    Args:
        head_width: of the attention, an axis of its own in these files; 64 in all of Ti, S and B.
    """
    names = ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
    table = _jax(*names, "Transformer/posembed_input/pos_embedding", "head", head_width)
    heads = ("head/(kernel|bias)",)
    return Scheme("vision_transformer", layered(table), adapt=_RESIZED, heads=heads)


@functools.cache
def big_vision(prefix: str = "", head_width: int = 64) -> Scheme:
    """The `.npz` files of big_vision, which have positions for patches only.

    Args:
        prefix: of all names, `params/` in checkpoints with an optimizer.
        head_width: as in `vision_transformer`.
    """
    names = ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
    table = _jax(*names, "pos_embedding", f"{prefix}head", head_width)
    name = f"big_vision with the prefix {prefix}" if prefix else "big_vision"
    # What stands beside the parameters of a checkpoint is the optimizer's.
    ignored = (r"(?!params/).*",) if prefix == "params/" else ()
    heads = (f"{prefix}head/(kernel|bias)",)
    return Scheme(name, layered(table, prefix), ignored, _RESIZED, heads)


def _jax(
    attention: str, norm: str, mlp: str, positions: str, head: str, head_width: int
) -> dict[str, Entry]:
    """The table of JAX names.

    Args:
        attention, norm, mlp: what a layer calls its attention, its second layer norm and its dense
            network.
        positions, head: names of the position embeddings and of the classifier.
    """

    def heads(axis: int) -> Layout:
        """Ours has one axis for theirs of the heads and of their width, which the scheme says."""

        def read(array: np.ndarray) -> np.ndarray:
            width = array.shape[axis + 1]
            if width != head_width:
                raise Mismatch(f"heads of width {width}, by the names of the scheme {head_width}")
            return array.reshape(*array.shape[:axis], -1, *array.shape[axis + 2 :])

        def write(leaf: np.ndarray) -> np.ndarray:
            return leaf.reshape(*leaf.shape[:axis], -1, head_width, *leaf.shape[axis + 1 :])

        return Layout(read, write, "heads joined")

    layer = "Transformer/encoderblock_*"
    modules = {
        "embed/patch": "embedding",
        "layer_*/norm_1": f"{layer}/LayerNorm_0",
        "layer_*/norm_2": f"{layer}/{norm}",
        "layer_*/mlp/up": f"{layer}/{mlp}/Dense_0",
        "layer_*/mlp/down": f"{layer}/{mlp}/Dense_1",
        "norm": "Transformer/encoder_norm",
        "heads/*": head,
    }
    table = {
        f"{module}/{leaf}": Entry(f"{name}/{leaf}")
        for module, name in modules.items()
        for leaf in ("kernel", "scale", "bias")
    }
    for part in ("query", "key", "value"):
        projection = f"{layer}/{attention}/{part}"
        table[f"layer_*/attention/{part}/kernel"] = Entry(f"{projection}/kernel", heads(1))
        table[f"layer_*/attention/{part}/bias"] = Entry(f"{projection}/bias", heads(0))
    return table | {
        "layer_*/attention/out/kernel": Entry(f"{layer}/{attention}/out/kernel", heads(0)),
        "layer_*/attention/out/bias": Entry(f"{layer}/{attention}/out/bias"),
        "embed/cls": Entry("cls"),
        "embed/positions": Entry(positions),
    }


VIT = (
    _timm(),
    _hugging_face("vit.", _HUGGING_FACE_5),
    _hugging_face("", _HUGGING_FACE_5),
    _hugging_face("vit."),
    _hugging_face(),
    vision_transformer(),
    big_vision(),
    big_vision("params/"),
)
"""Published names of `models.vit`.

The number of attention heads does not show in the files of PyTorch, nor do the activation and the
range of the pixels: they are those of the model. In the files of JAX, heads must be as wide as the
scheme says."""
