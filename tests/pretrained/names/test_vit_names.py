"""A ViT against a NumPy one that reads timm's names, and the other names against timm's."""

import jax
import numpy as np
import pytest
from scipy.special import erf, softmax
from weight_files import leaves, read, titled, written

from jaxtl import models
from jaxtl.models import ViTConfig
from jaxtl.paths import flatten
from jaxtl.pretrained.names.vit import VIT, big_vision, resize_positions, vision_transformer

WIDTH, DEPTH, HEADS, PATCH, SIZE = 8, 2, 2, 4, 8
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(2, SIZE, SIZE, 3)).astype(np.float32)
TIMM = titled(VIT, "timm")


def vit(size=SIZE, pooling="cls"):
    model = models.vit(ViTConfig(PATCH, WIDTH, DEPTH, HEADS, 12), {}, size, pooling=pooling)
    return model, leaves(model, np.zeros((1, size, size, 3), np.float32))


MODEL, WANTED = vit()


def timm_file():
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 5, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for i in range(DEPTH):
        shapes |= {
            f"blocks.{i}.norm1.weight": (WIDTH,),
            f"blocks.{i}.norm1.bias": (WIDTH,),
            f"blocks.{i}.attn.qkv.weight": (3 * WIDTH, WIDTH),
            f"blocks.{i}.attn.qkv.bias": (3 * WIDTH,),
            f"blocks.{i}.attn.proj.weight": (WIDTH, WIDTH),
            f"blocks.{i}.attn.proj.bias": (WIDTH,),
            f"blocks.{i}.norm2.weight": (WIDTH,),
            f"blocks.{i}.norm2.bias": (WIDTH,),
            f"blocks.{i}.mlp.fc1.weight": (12, WIDTH),
            f"blocks.{i}.mlp.fc1.bias": (12,),
            f"blocks.{i}.mlp.fc2.weight": (WIDTH, 12),
            f"blocks.{i}.mlp.fc2.bias": (WIDTH,),
        }
    return {name: RNG.normal(size=shape).astype(np.float32) / 2 for name, shape in shapes.items()}


FILE = timm_file()


def numpy_vit(file, images):
    """Hidden states [n, tokens, width] after the last layer norm."""

    def linear(x, name):
        return x @ file[f"{name}.weight"].T + file[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * file[f"{name}.weight"] + file[f"{name}.bias"]

    file = {name: array.astype(np.float64) for name, array in file.items()}
    states = []
    for image in (images.astype(np.float64) - 0.5) / 0.5:
        tokens = [file["cls_token"][0, 0]]
        for row in range(0, SIZE, PATCH):
            for column in range(0, SIZE, PATCH):
                patch = image[row : row + PATCH, column : column + PATCH].transpose(2, 0, 1)
                weight = file["patch_embed.proj.weight"]
                tokens.append((weight * patch).sum((1, 2, 3)) + file["patch_embed.proj.bias"])
        x = np.stack(tokens) + file["pos_embed"][0]
        for i in range(DEPTH):
            h = norm(x, f"blocks.{i}.norm1")
            query, key, value = np.split(linear(h, f"blocks.{i}.attn.qkv"), 3, axis=-1)
            heads = []
            for head in np.split(np.arange(WIDTH), HEADS):
                scores = query[:, head] @ key[:, head].T / np.sqrt(WIDTH / HEADS)
                heads.append(softmax(scores, -1) @ value[:, head])
            x = x + linear(np.concatenate(heads, -1), f"blocks.{i}.attn.proj")
            h = linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")
            x = x + linear(h * (1 + erf(h / np.sqrt(2))) / 2, f"blocks.{i}.mlp.fc2")
        states.append(norm(x, "norm"))
    return np.stack(states)


def hugging_face(file):
    """The same weights under the names of Hugging Face."""
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    }
    for i in range(DEPTH):
        names |= {
            f"blocks.{i}.norm1": f"encoder.layer.{i}.layernorm_before",
            f"blocks.{i}.attn.proj": f"encoder.layer.{i}.attention.output.dense",
            f"blocks.{i}.norm2": f"encoder.layer.{i}.layernorm_after",
            f"blocks.{i}.mlp.fc1": f"encoder.layer.{i}.intermediate.dense",
            f"blocks.{i}.mlp.fc2": f"encoder.layer.{i}.output.dense",
        }
    result = {}
    for name, array in file.items():
        module, _, leaf = name.rpartition(".")
        if name in names:
            result[names[name]] = array
        elif module in names:
            result[f"{names[module]}.{leaf}"] = array
        else:
            layer = module.split(".")[1]
            for part, third in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                result[f"encoder.layer.{layer}.attention.attention.{part}.{leaf}"] = third
    return result


def jax_file(file, attention, norm, mlp, positions):
    """The same weights under the names of the JAX codes, with an axis of heads."""
    into, out = (WIDTH, HEADS, WIDTH // HEADS), (HEADS, WIDTH // HEADS, WIDTH)
    result = {
        "cls": file["cls_token"],
        positions: file["pos_embed"],
        "embedding/kernel": file["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": file["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": file["norm.weight"],
        "Transformer/encoder_norm/bias": file["norm.bias"],
    }
    for i in range(DEPTH):
        theirs, ours = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        for part, name in enumerate(("query", "key", "value")):
            weight, bias = (
                np.split(file[f"{theirs}.attn.qkv.{leaf}"], 3)[part] for leaf in ("weight", "bias")
            )
            result[f"{ours}/{attention}/{name}/kernel"] = weight.T.reshape(into)
            result[f"{ours}/{attention}/{name}/bias"] = bias.reshape(into[1:])
        out_kernel = file[f"{theirs}.attn.proj.weight"].T.reshape(out)
        result[f"{ours}/{attention}/out/kernel"] = out_kernel
        result[f"{ours}/{attention}/out/bias"] = file[f"{theirs}.attn.proj.bias"]
        for name, module in (("LayerNorm_0", "norm1"), (norm, "norm2")):
            result[f"{ours}/{name}/scale"] = file[f"{theirs}.{module}.weight"]
            result[f"{ours}/{name}/bias"] = file[f"{theirs}.{module}.bias"]
        for name, module in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
            result[f"{ours}/{mlp}/{name}/kernel"] = file[f"{theirs}.mlp.{module}.weight"].T
            result[f"{ours}/{mlp}/{name}/bias"] = file[f"{theirs}.mlp.{module}.bias"]
    return result


AUGREG = jax_file(
    FILE,
    "MultiHeadDotProductAttention_1",
    "LayerNorm_2",
    "MlpBlock_3",
    "Transformer/posembed_input/pos_embedding",
)
BIG_VISION = jax_file(
    FILE, "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0", "pos_embedding"
)
FILES = [
    (TIMM, FILE),
    (titled(VIT, "Hugging Face"), hugging_face(FILE)),
    (
        titled(VIT, "Hugging Face with the prefix vit."),
        {f"vit.{name}": array for name, array in hugging_face(FILE).items()},
    ),
    (vision_transformer(WIDTH // HEADS), AUGREG),
    (big_vision(head_width=WIDTH // HEADS), BIG_VISION),
    (
        big_vision("params/", WIDTH // HEADS),
        {f"params/{name}": array for name, array in BIG_VISION.items()},
    ),
]


def features(model, params, images=IMAGES):
    return jax.jit(model.apply)(params, {}, images)[0]["features"]


def test_against_numpy():
    states = numpy_vit(FILE, IMAGES)
    got = features(MODEL, read(TIMM, WANTED, FILE))
    np.testing.assert_allclose(got, states[:, 0], rtol=1e-4, atol=1e-5)


def test_the_mean_is_of_all_tokens_and_there_is_no_class_token():
    model, wanted = vit(pooling="mean")
    params = read(TIMM, wanted, FILE)
    assert "cls" not in params["backbone"]["embed"]
    hidden = features(model.cut("layer_1")[0], params)
    centred = hidden - hidden.mean(-1, keepdims=True)
    norm = params["backbone"]["norm"]
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    expected = scaled.mean(1) * norm["scale"][None] + norm["bias"][None]
    np.testing.assert_allclose(features(model, params), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("scheme", "file"), FILES, ids=[scheme.name for scheme, _ in FILES])
def test_every_file_holds_the_same_model(scheme, file):
    params, expected = read(scheme, WANTED, file), flatten(read(TIMM, WANTED, FILE))
    for path, leaf in flatten(params).items():
        np.testing.assert_array_equal(leaf, expected[path], err_msg=path)
    again = written(scheme, params)
    assert again.keys() == file.keys()
    for name, array in file.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_the_published_sizes_have_the_names_of_timm():
    model = models.vit("S/16", {})
    entries = TIMM.entries(leaves(model, np.zeros((1, 224, 224, 3), np.float32)))
    assert len({entry.name for entry in entries.values()}) == 150  # and a head's two


def test_classifiers_and_what_has_no_name():
    names = ("head.weight", *["classifier.weight"] * 4, *["head/kernel"] * 2)
    for scheme, name in zip(VIT, (*names, "params/head/kernel"), strict=True):
        paths = ("heads/imagenet/kernel", "backbone/layer_0/attention/query/lora_a")
        entries = scheme.entries(paths)
        assert {path: entry.name for path, entry in entries.items()} == {paths[0]: name}


def positions(*grid, token=None):
    grid = np.array(grid, np.float32)[None, :, None]
    return grid if token is None else np.concatenate([np.full((1, 1, 1), token), grid], 1)


@pytest.mark.parametrize("token", [None, 7.0])
def test_positions_of_the_same_size_stay(token):
    given = positions(1, 2, 4, 8, token=token)
    np.testing.assert_array_equal(resize_positions(given, given.shape), given)


def test_positions_between_the_corners():
    got = resize_positions(positions(0, 2, 4, 10, token=7), (1, 10, 1))
    expected = positions(0, 1, 2, 2, 4, 6, 4, 7, 10, token=7)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_positions_of_a_class_token():
    given = positions(1, 2, 4, 8, token=7)
    np.testing.assert_array_equal(resize_positions(given, (1, 4, 1)), positions(1, 2, 4, 8))
    without = positions(1, 2, 4, 8)
    np.testing.assert_array_equal(
        resize_positions(without, (1, 5, 1)), positions(1, 2, 4, 8, token=0)
    )


def test_positions_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\[1, 3, 1\] cannot become \[1, 5, 1\]"):
        resize_positions(positions(1, 2, 4), (1, 5, 1))
    with pytest.raises(ValueError, match=r"\[1, 4, 1\] cannot become \[1, 4, 2\]"):
        resize_positions(positions(1, 2, 4, 8), (1, 4, 2))


def test_another_image_size():
    model, wanted = vit(size=12)
    params = read(TIMM, wanted, FILE)
    got = params["backbone"]["embed"]["positions"]
    np.testing.assert_array_equal(got[0, 0], FILE["pos_embed"][0, 0])
    np.testing.assert_allclose(got[0, 5], FILE["pos_embed"][0, 1:].mean(0), rtol=1e-5)
    features(model, params, np.ones((1, 12, 12, 3), np.float32))
