"""The encoder layer, and what a BERT and a ViT do with it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_facts import is_random
from scipy.special import softmax

from jaxtl import models
from jaxtl.models import BertConfig, ViTConfig
from jaxtl.models.transformer import AttentionCore
from jaxtl.models.vit import PatchEmbedding
from jaxtl.paths import flatten

HEADS = {"target": models.classes(3)}
TINY_BERT = BertConfig(8, 1, 2, 12, vocabulary=20, positions=6)
TINY_VIT = ViTConfig(4, 8, 1, 2, 12)
RNG = np.random.default_rng(0)
IDS = RNG.integers(1, 20, (3, 5)).astype(np.int32)
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], np.int32)
TEXT = {"ids": IDS, "mask": MASK}
RANDOM = jax.random.key(3, impl="rbg")  # compiles faster
IMAGES = RNG.uniform(size=(3, 8, 8, 3)).astype(np.float32)


def bert(pooling="mean", **options):
    return models.bert(TINY_BERT, HEADS, pooling, **options), TEXT


def vit(pooling="cls", **options):
    return models.vit(TINY_VIT, HEADS, 8, pooling=pooling, **options), IMAGES


MODELS = [bert, vit]


def random(model, inputs):
    """Parameters that are all away from their initial values."""
    abstract = jax.eval_shape(model.init, jax.random.key(0), inputs)[0]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) / 2, abstract)


def features(model, params, inputs, **options):
    return jax.jit(lambda p, x: model.apply(p, {}, x, **options)[0]["features"])(params, inputs)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_a_weighted_mean(masked):
    query, key, value = (RNG.normal(size=(2, n, 3, 4)).astype(np.float32) for n in (5, 6, 6))
    mask = np.array([[1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]], bool) if masked else None
    got = AttentionCore().apply({}, query, key, value, mask)
    for n in range(2):
        allowed = mask[n] if masked else np.ones(6, bool)
        for head in range(3):
            scores = query[n, :, head] @ key[n, allowed, head].T / np.sqrt(4)
            expected = softmax(scores, -1) @ value[n, allowed, head]
            np.testing.assert_allclose(got[n, :, head], expected, atol=1e-6)


def test_attention_where_nothing_may_be_attended_to_is_finite():
    query, key, value = (RNG.normal(size=(1, 4, 2, 3)).astype(np.float32) for _ in range(3))
    got = AttentionCore().apply({}, query, key, value, np.zeros((1, 4), bool))
    np.testing.assert_allclose(got, np.broadcast_to(value.mean(1, keepdims=True), got.shape), 1e-5)


def test_dropout_is_of_the_attention_weights():
    ones = jnp.ones((1, 1, 1, 1))
    value = jnp.ones((1, 1000, 1, 1))
    core = AttentionCore(dropout=0.25)
    args = (ones, jnp.zeros_like(value), value)
    got = core.apply({}, *args, train=True, rngs={"dropout": jax.random.key(0)})
    kept = float(got.squeeze()) * 0.75  # the weights are 1 / 1000, those that are kept 4 / 3000
    assert kept != 1 and abs(kept - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 1000)


@pytest.mark.parametrize(
    ("make", "dropout"), [pytest.param(bert, 0.0, marks=pytest.mark.slow), (vit, 0.3)]
)
def test_recomputing_layers_changes_nothing(make, dropout):
    gradients = []
    for remat in (False, True):
        model, inputs = make(dropout=dropout, remat=remat)
        params = random(model, inputs)

        def loss(params, model=model, inputs=inputs):
            output, _ = model.apply(params, {}, inputs, rng=RANDOM, train=True)
            return (output["logits"]["target"] ** 2).sum()

        program = jax.make_jaxpr(loss)(params)
        assert sum("policy" in equation.params for equation in program.eqns) == remat
        gradients.append(flatten(jax.jit(jax.grad(loss))(params)))
    for path, leaf in gradients[0].items():
        assert np.any(leaf != 0) or path.endswith("key/bias"), path
        np.testing.assert_allclose(gradients[1][path], leaf, rtol=1e-4, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
def test_block_after_block_is_the_whole(make, pooling):
    if make is vit and pooling == "pooler":
        return
    model, inputs = make(pooling)
    params = random(model, inputs)
    whole, rest = features(model, params, inputs), model
    for block in model.blocks:
        first, rest = rest.cut(block)
        inputs = features(first, params, inputs)
    np.testing.assert_allclose(inputs, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("remat", [False, True])
def test_functions_around_the_layers_see_their_paths(make, remat):
    seen = []

    def around(path, layer, call, *inputs, **options):
        seen.append((path, type(layer).__name__))
        return call(*inputs, **options)

    model, inputs = make(remat=remat)
    params = random(model, inputs)
    jax.eval_shape(dataclasses.replace(model, around=(around,)).apply, params, {}, inputs)
    layer = "backbone/layer_0"
    for name in ("query", "key", "value", "out"):
        assert (f"{layer}/attention/{name}", "Dense") in seen
    assert {(f"{layer}/attention/core", "AttentionCore"), (f"{layer}/mlp/up", "Dense")} <= {*seen}
    assert (layer, "TransformerLayer") in seen
    once = [path for path, kind in seen if kind != "Dropout"]
    assert len({*once}) == len(once)


def prepended(count, visible):
    """An adapter that puts keys and values before those of the core."""

    def around(path, layer, call, *inputs, **options):
        if not path.endswith("attention/core"):
            return call(*inputs, **options)
        query, key, value, mask = inputs
        more = jnp.full((len(key), count, *key.shape[2:]), 0.7)
        key, value = (jnp.concatenate([more, x], axis=1) for x in (key, value))
        if mask is None:
            mask = jnp.ones((len(key), key.shape[1] - count), bool)
        mask = jnp.concatenate([jnp.full((len(key), count), visible), mask], axis=1)
        return call(query, key, value, mask, **options)

    return around


@pytest.mark.parametrize("make", MODELS)
def test_the_core_takes_more_keys_than_queries(make):
    model, inputs = make()
    params = random(model, inputs)
    plain = features(model, params, inputs)
    hidden = features(dataclasses.replace(model, around=(prepended(2, False),)), params, inputs)
    np.testing.assert_allclose(hidden, plain, rtol=1e-5, atol=1e-6)
    seen = features(dataclasses.replace(model, around=(prepended(2, True),)), params, inputs)
    assert np.abs(seen - plain).max() > 0.01


@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
def test_padding_is_not_read(pooling):
    model, _ = bert(pooling)
    params = random(model, TEXT)
    noise = np.where(MASK, IDS, RNG.integers(1, 20, IDS.shape)).astype(np.int32)
    expected = features(model, params, TEXT)
    got = features(model, params, {"ids": noise, "mask": MASK})
    np.testing.assert_allclose(got, expected, atol=1e-6)
    shorter = {name: values[2:, :2] for name, values in TEXT.items()}
    np.testing.assert_allclose(features(model, params, shorter), expected[2:], atol=1e-5)


def test_the_pooler_is_a_dense_layer_with_tanh_on_the_first_token():
    model, _ = bert("pooler")
    params = random(model, TEXT)
    first = features(models.bert(TINY_BERT, HEADS, "cls"), params, TEXT)
    dense = params["backbone"]["pool"]["dense"]
    expected = np.tanh(first @ dense["kernel"] + dense["bias"][None])
    np.testing.assert_allclose(features(model, params, TEXT), expected, rtol=1e-5)


@pytest.mark.parametrize("make", MODELS)
def test_training_drops_out_and_evaluation_does_not(make):
    model, inputs = make(dropout=0.5)
    params = random(model, inputs)
    assert is_random(model, params, {}, inputs)
    still, _ = make(dropout=0.0)
    assert not is_random(still, params, {}, inputs)
    expected = features(still, params, inputs, train=True)
    np.testing.assert_array_equal(features(model, params, inputs), expected)
    dropped = features(model, params, inputs, rng=RANDOM, train=True)
    assert np.abs(dropped - expected).max() > 0.01


@pytest.mark.parametrize("make", MODELS)
def test_bfloat16(make):
    model, inputs = make()
    params = random(model, inputs)
    narrow = dataclasses.replace(model, dtype=jnp.bfloat16)
    expected, got = features(model, params, inputs), features(narrow, params, inputs)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, atol=0.1 * np.abs(expected).max())
    first, rest = narrow.cut("layer_0")
    inputs = features(first, params, inputs)
    np.testing.assert_allclose(features(rest, params, inputs), got, atol=0.02)


def test_patches_are_a_convolution():
    embed = PatchEmbedding(4, 8, 8, False, 0.0)
    kernel, bias = RNG.normal(size=(4, 4, 3, 8)).astype(np.float32), np.arange(8.0)
    positions = np.zeros((1, 4, 8))
    variables = {"patch": {"kernel": kernel, "bias": bias}, "positions": positions}
    got = embed.apply({"params": variables}, IMAGES)
    layout = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(
        IMAGES, kernel, (4, 4), "VALID", dimension_numbers=layout
    )
    expected = expected.reshape(3, 4, 8) + bias[None, None]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def init(model, inputs):
    jax.eval_shape(model.init, jax.random.key(0), inputs)


def test_errors():
    with pytest.raises(ValueError, match=r"unknown ViT 'B16'. Did you mean 'B/16'\? Known: B/16, "):
        models.vit("B16", HEADS)
    with pytest.raises(ValueError, match=r"unknown BERT 'minilm'. Did you mean 'minilm-l6'\?"):
        models.bert("minilm", HEADS)
    for build in (models.vit, models.bert):
        with pytest.raises(ValueError, match=r"unknown pooling 'max'\. .* Known: cls, mean"):
            build(TINY_BERT if build is models.bert else TINY_VIT, HEADS, pooling="max")
    with pytest.raises(ValueError, match=r"patches of 16 pixels do not fill .* 100; .* as 96"):
        models.vit("S/16", HEADS, 100)
    with pytest.raises(ValueError, match=r"images of 8 x 8 pixels, got \[2, 12, 12, 3\]"):
        init(vit()[0], jnp.ones((2, 12, 12, 3)))
    with pytest.raises(ValueError, match=r"texts of 7 tokens are longer than the 6 positions"):
        init(bert()[0], {"ids": jnp.ones((1, 7), int), "mask": jnp.ones((1, 7), int)})
    with pytest.raises(ValueError, match=r"a BERT reads \{ids, mask\}.*got an array"):
        init(bert()[0], jnp.ones((2, 5)))
    with pytest.raises(ValueError, match=r"got \{ids\}"):
        init(bert()[0], {"ids": IDS})
