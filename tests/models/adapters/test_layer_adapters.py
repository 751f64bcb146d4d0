"""Bottlenecks, prefixes and prompts against NumPy, against the base model, and against masks."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from model_facts import parameter_count
from tiny_transformers import (
    LENGTH,
    NUM_HEADS,
    WIDTH,
    Core,
    adapter_of,
    bert,
    chain,
    compiled,
    drawn,
    images,
    moved,
    stacked,
    target,
    text,
    values_and_slopes,
    vectors,
    vit,
)

from jaxtl import models, paths
from jaxtl.models import Block, adapters, from_blocks

X = vectors()


@functools.cache
def of_bert():
    return drawn(bert(1), text())[0]


@functools.cache
def of_vit():
    return drawn(vit(), images())[0]


def gelu(x):
    return x * (1 + scipy.special.erf(x / math.sqrt(2))) / 2


def dense(x, leaves):
    return x @ leaves["kernel"] + leaves["bias"]


def test_bottleneck_values():
    """In float64 NumPy, on the chain: after the first layer, and beside the second."""
    model = chain()
    exact = functools.partial(nn.gelu, approximate=False)
    within = adapters.houlsby(model, ["backbone/first"], 3, exact)
    tuned = adapters.parallel(within, ["backbone/second"], 4, scale=2.0)
    params, _ = drawn(tuned, X)
    p = jax.tree.map(np.float64, params)
    first = dense(X, p["backbone"]["first"])
    own = p["houlsby"]["backbone"]["first"]
    first = np.maximum(first + dense(gelu(dense(first, own["down"])), own["up"]), 0)
    own = p["parallel"]["backbone"]["second"]
    added = dense(np.maximum(dense(first, own["down"]), 0), own["up"])
    second = np.tanh(dense(first, p["backbone"]["second"]) + 2 * added)
    expected = dense(second, p["heads"]["target"])
    found = compiled(functools.partial(target, tuned), params, X)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (adapters.houlsby, 2 * (2 * 8 * 64 + 64 + 8)),
        (adapters.parallel, 2 * 8 * 64 + 64 + 8),
        (adapters.prefix, 2 * 20 * 8),
        (adapters.prompt, 20 * 8),
        (adapters.visual_prompt, 10 * 8),
        (adapters.deep_visual_prompt, 2 * 10 * 8),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_on_transformers(build, count):
    """Start, parts, gradients and bfloat16 of the defaults, on a BERT or a ViT."""
    visual = "visual" in build.__name__
    model, x, base = (vit(), images(), of_vit()) if visual else (bert(1), text(), of_bert())
    tuned = build(model)
    name = "vpt" if visual else build.__name__
    own = adapter_of(tuned, name, x)
    assert parameter_count(own) == count
    with pytest.raises(ValueError, match=rf"^adapter '{name}' cannot be merged: its .*\.$"):
        tuned.merge(own)
    params = {**base, name: moved(own, scale=1.0)}
    both = stacked({name: own}, {name: params[name]})

    def everything(base, both, params):
        first, rest = tuned.cut("layer_0")
        features = first.apply(params, {}, x)[0]["features"]
        narrow = dataclasses.replace(tuned, dtype=jnp.bfloat16)
        return {
            "base": target(model, base, x),
            "both": values_and_slopes(tuned, base, both, x, jnp.arange(18.0).reshape(6, 3)),
            "parts": target(rest, params, features),
            "narrow": target(narrow, params, x),
        }

    found = compiled(everything, base, both, params)
    (begin, changed), slopes = found["both"]
    near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    assert np.abs(changed - begin).max() > 0.01
    near(found["parts"], changed)
    near(found["narrow"], changed, atol=0.1 * np.abs(changed).max())
    starts_as_base = build in (adapters.houlsby, adapters.parallel)
    assert starts_as_base == np.allclose(begin, found["base"], rtol=1e-5, atol=1e-6)
    for path, slope in paths.flatten(slopes).items():
        # Behind an `up` of zeros nothing moves at first.
        assert np.any(slope[0]) == (not starts_as_base or "/up/" in path), path


class Attend(nn.Module):
    """Attention of inputs, reshaped, to themselves."""

    masked: bool

    @nn.compact
    def __call__(self, x):
        parts = x["hidden"].reshape(*x["mask"].shape, NUM_HEADS, -1)
        mask = x["mask"] > 0 if self.masked else None
        return Core(name="core")(parts, 2 * parts, parts - 1, mask)


@pytest.mark.parametrize("masked", [True, False])
def test_prefix_values(masked):
    model = from_blocks([Block("attend", Attend(masked))], {})
    tuned = adapters.prefix(model, 3, [".*/core"])
    x = {**text(), "hidden": np.random.default_rng(0).normal(size=(6, LENGTH, WIDTH))}
    x["hidden"] = x["hidden"].astype(np.float32)
    params, _ = drawn(tuned, x)
    found = compiled(lambda p: tuned.apply(p, {}, x)[0]["features"], params)
    learned = params["prefix"]["backbone"]["attend"]["core"]
    for row in range(6):
        parts = np.float64(x["hidden"][row]).reshape(LENGTH, NUM_HEADS, -1)
        seen = np.flatnonzero(x["mask"][row]) if masked else np.arange(LENGTH)
        outputs = np.empty_like(parts)
        for head in range(NUM_HEADS):
            key = np.concatenate([learned["key"][:, head], 2 * parts[seen, head]])
            value = np.concatenate([learned["value"][:, head], parts[seen, head] - 1])
            scores = parts[:, head] @ key.T / math.sqrt(WIDTH / NUM_HEADS)
            outputs[:, head] = scipy.special.softmax(scores, axis=1) @ value
        np.testing.assert_allclose(found[row], outputs.ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [adapters.prefix, adapters.prompt])
def test_padding_is_still_not_read(build):
    x, name = text(), build.__name__
    other = {**x, "ids": np.where(x["mask"] > 0, x["ids"], 10 - x["ids"]).astype(np.int32)}
    assert np.any(other["ids"] != x["ids"])
    tuned = build(bert(1), 3)
    params = {**of_bert(), name: moved(adapter_of(tuned, name, x))}
    a, b = compiled(lambda p: [target(tuned, p, inputs) for inputs in (x, other)], params)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_prompt_is_a_longer_text_whose_first_tokens_are_not_pooled():
    model, x = bert(1), text()
    tuned = adapters.prompt(model, 3)
    params = {**of_bert(), "prompt": moved(adapter_of(tuned, "prompt", x))}
    tokens = params["prompt"]["backbone"]["layer_0"]["tokens"]

    def both(params):
        embed, rest = model.cut("embed")
        layers, pool = rest.cut("layer_0")
        x_0 = embed.apply(params, {}, x)[0]["features"]
        front = jnp.broadcast_to(tokens[None], (6, 3, WIDTH))
        longer = {
            "hidden": jnp.concatenate([front, x_0["hidden"]], 1),
            "mask": jnp.concatenate([jnp.ones((6, 3), int), x_0["mask"]], 1),
        }
        x_1 = layers.apply(params, {}, longer)[0]["features"]
        shorter = jax.tree.map(lambda leaf: leaf[:, 3:], x_1)
        return target(pool, params, shorter), target(tuned, params, x)

    expected, found = compiled(both, params)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("deep", [True, False])
def test_visual_prompts_stand_after_the_class_token(deep):
    model, x = vit(), images()
    build = adapters.deep_visual_prompt if deep else adapters.visual_prompt
    tuned = build(model, 3, patch=4)
    own = adapter_of(tuned, "vpt", x)
    first = own["backbone"]["layer_0"]["tokens"]
    assert 0.25 < np.abs(first).max() <= math.sqrt(6 / (3 * 16 + WIDTH))
    params = {**of_vit(), "vpt": moved(own)}
    tokens = {block: leaf["tokens"] for block, leaf in params["vpt"]["backbone"].items()}
    assert set(tokens) == ({"layer_0", "layer_1"} if deep else {"layer_0"})

    def both(params):
        x_i, rest = x, model
        for block, insert in (("embed", None), ("layer_0", "layer_0"), ("layer_1", "layer_1")):
            part, rest = rest.cut(block)
            if insert in tokens:
                there = 0 if insert == "layer_0" else 3
                middle = jnp.broadcast_to(tokens[insert][None], (6, 3, WIDTH))
                x_i = jnp.concatenate([x_i[:, :1], middle, x_i[:, 1 + there :]], 1)
            x_i = part.apply(params, {}, x_i)[0]["features"]
        assert x_i.shape == (6, 8, WIDTH)
        return target(rest, params, x_i), target(tuned, params, x)

    expected, found = compiled(both, params)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_cuts_of_prompts():
    tuned, x = adapters.deep_visual_prompt(vit(), 3), images()
    params, _ = drawn(tuned, x)

    def run(part, x):
        return part.apply(params, {}, x)[0]["features"]

    def every():
        outputs = [target(tuned, params, x)]
        for block in ("embed", "layer_1", "norm"):
            first, rest = tuned.cut(block)
            outputs.append(target(rest, params, run(first, x)))
        one, rest = tuned.cut("embed")
        two, rest = rest.cut("layer_0")
        outputs.append(target(rest, params, run(two, run(one, x))))
        return outputs

    whole, *others = compiled(every)
    for other in others:
        np.testing.assert_allclose(other, whole, rtol=1e-4, atol=1e-5)
    part, _ = tuned.cut("embed")[1].cut("layer_0")
    abstract, _ = jax.eval_shape(part.init, jax.random.key(0), np.zeros((1, 5, WIDTH), np.float32))
    assert list(abstract["vpt"]["backbone"]) == ["layer_0"]


def test_with_other_heads_and_under_another_adapter():
    x = text()
    tuned = adapters.lora(adapters.prompt(bert(1), 3), [".*/query/kernel"], 2)
    other = dataclasses.replace(tuned, heads={"other": models.classes(2)})
    params, _ = drawn(other, x)
    merged, folded = tuned.merge(params)

    def both(params, folded):
        a = other.apply(params, {}, x)[0]["logits"]["other"]
        base = dataclasses.replace(merged, heads=other.heads)
        return a, base.apply(folded, {}, x)[0]["logits"]["other"]

    a, b = compiled(both, params, folded)
    assert a.shape == (6, 2)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_wrong_places():
    with pytest.raises(ValueError, match=r"unknown block 'layer_9'. Did you mean 'layer_"):
        adapters.prompt(bert(), first="layer_9")
    with pytest.raises(ValueError, match="unknown block 'pool'"):
        adapters.prompt(vit())
    with pytest.raises(ValueError, match=r"unknown block 'stage_\\\\d'"):
        adapters.deep_visual_prompt(vit(), layers=r"stage_\d")
    for build, what in (
        (adapters.prefix, "no layer that attends"),
        (adapters.houlsby, "no layer with an array as its output"),
    ):
        with pytest.raises(ValueError, match=what):
            jax.eval_shape(build(chain()).init, jax.random.key(0), X)
