"""Models of named blocks: paths, rngs, cuts, batch statistics."""

import dataclasses
import functools
import zlib

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_facts import is_random

from jaxtl import models, paths
from jaxtl.models import Block, classes, from_blocks, from_linen
from jaxtl.models.layers import Conv
from jaxtl.plan import State

HEADS = {"target": classes(3)}
X = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)


def fold(path, seed=0):
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(path.encode()))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def norm_net(heads=HEADS):
    conv = functools.partial(Conv, 2, (3, 3), strides=2, batch_norm=True)
    blocks = [Block("conv_0", conv(), nn.relu), Block("conv_1", conv(), nn.relu)]
    return from_blocks([*blocks, Block("conv_2", conv())], heads)


@functools.cache
def initial():
    return jax.jit(norm_net().init)(jax.random.key(0), X)


def training(model):
    return jax.jit(lambda *args, rng=None: model.apply(*args, rng=rng, train=True))


class Body(nn.Module):
    """Dropout and normalisation as linen's own modules spell them."""

    @nn.compact
    def __call__(self, x, *, deterministic: bool):
        x = nn.Dense(5, name="inner")(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=deterministic, momentum=0.8, name="norm")(x)
        return nn.Dropout(0.5, deterministic=deterministic)(nn.relu(x))


def test_initial_values_depend_on_rng_and_path_only():
    params, state = initial()
    more = norm_net({"other": classes(4), **HEADS})
    params_more, state_more = jax.jit(more.init)(jax.random.key(0), X)
    assert params_more["heads"].pop("other")["kernel"].shape == (2, 4)
    equal((params, state), (params_more, state_more))

    def dense_net(*names):
        return from_blocks([Block(name, nn.Dense(4)) for name in names], HEADS)

    long, _ = dense_net("a", "b", "c").init(jax.random.key(0), jnp.ones((2, 4)))
    short, _ = dense_net("c").init(jax.random.key(0), jnp.ones((2, 4)))
    equal(long["backbone"]["c"], short["backbone"]["c"])
    equal(long["heads"], short["heads"])
    assert not np.array_equal(long["backbone"]["a"]["kernel"], long["backbone"]["b"]["kernel"])


def test_a_block_is_its_linen_layer():
    model = from_linen(nn.Dense(4), HEADS, name="body")
    x = X.reshape(6, -1)
    params, state = model.init(jax.random.key(0), x)
    equal(params["backbone"]["body"], nn.Dense(4).init(fold("backbone/body"), x)["params"])
    head = nn.Dense(3).init(fold("heads/target"), jnp.ones((1, 4)))["params"]
    equal(params["heads"]["target"], head)
    output, _ = model.apply(params, state, x)
    features = x @ params["backbone"]["body"]["kernel"]
    np.testing.assert_allclose(output["features"], features, atol=1e-5)
    np.testing.assert_allclose(output["logits"]["target"], features @ head["kernel"], atol=1e-5)


def test_from_linen_with_batch_norm_and_dropout():
    body, rng = Body(), jax.random.key(7)
    model = from_linen(body, HEADS, name="trunk")
    params, state = jax.jit(model.init)(rng, X)
    assert set(paths.flatten(state)) == {f"backbone/trunk/norm/{name}" for name in ("mean", "var")}
    variables = {"params": params["backbone"]["trunk"], "batch_stats": state["backbone"]["trunk"]}

    output, same = model.apply(params, state, X)
    expected = body.apply(variables, X, deterministic=True)
    np.testing.assert_allclose(output["features"], expected, rtol=1e-6)
    equal(state, same)

    output, moved = training(model)(params, state, X, rng=rng)
    expected, changed = body.apply(
        variables,
        X,
        deterministic=False,
        rngs={"dropout": fold("trunk", 7)},
        mutable=["batch_stats"],
    )
    np.testing.assert_allclose(output["features"], expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        moved["backbone"]["trunk"],
        changed["batch_stats"],
    )
    np.testing.assert_array_equal(
        output["features"], training(model)(params, state, X, rng=rng)[0]["features"]
    )
    other = training(model)(params, state, X, rng=jax.random.key(8))[0]["features"]
    assert np.any((output["features"] == 0) != (other == 0))


def test_from_linen_takes_a_call():
    class Scale(nn.Module):
        @nn.compact
        def __call__(self, ids, mode):
            return (
                ids * self.param("scale", nn.initializers.ones, ()) * (10 if mode == "fit" else 1)
            )

    model = from_linen(
        Scale(),
        {},
        call=lambda module, x, train: module(x["ids"], "fit" if train else "eval"),
    )
    inputs = {"ids": jnp.ones((2, 3)), "mask": jnp.ones((2, 3))}
    params, state = model.init(jax.random.key(0), inputs)
    assert model.apply(params, state, inputs)[0]["features"][0, 0] == 1
    output, _ = model.apply(params, state, inputs, train=True)
    assert output["features"][0, 0] == 10 and output["logits"] == {}


def test_statistics_move_where_live_and_only_there():
    model = norm_net()
    params, state = initial()
    _, state = training(model)(params, state, X)  # off their initial values 0 and 1
    means = {p: v for p, v in paths.flatten(state).items() if p.endswith("mean")}
    assert len(means) == 3 and all(np.any(value != 0) for value in means.values())

    constant = dataclasses.replace(model, live=())
    output, same = training(constant)(params, state, X)
    equal(same, state)
    expected, _ = jax.jit(model.apply)(params, state, X)
    equal(output, expected)

    partly = dataclasses.replace(model, live=("backbone/conv_1/norm/.*",))
    _, moved = training(partly)(params, state, X)
    old, new = paths.flatten(state), paths.flatten(moved)
    changed = {path for path in old if np.any(old[path] != new[path])}
    assert changed == {"backbone/conv_1/norm/mean", "backbone/conv_1/norm/var"}
    # The layer below is constant, so the moved mean is known without any of our code for it.
    below = partly.cut("conv_0")[0].apply(params, state, X)[0]["features"]
    z = nn.Conv(2, (3, 3), strides=2).apply({"params": params["backbone"]["conv_1"]}, below)
    mean = 0.9 * old["backbone/conv_1/norm/mean"] + 0.1 * z.mean((0, 1, 2))
    np.testing.assert_allclose(new["backbone/conv_1/norm/mean"], mean, rtol=1e-4, atol=1e-6)


def test_constant_statistics_of_a_layer_that_was_told_otherwise():
    class Stubborn(nn.Module):
        def setup(self):
            self.norm = nn.BatchNorm(use_running_average=False)

        def __call__(self, x):
            return self.norm(x)

    model = from_linen(Stubborn(), {}, name="body")
    x = 3 + X.reshape(6, -1)
    params, state = model.init(jax.random.key(0), x)
    output, same = model.apply(params, state, x)
    np.testing.assert_allclose(output["features"], x / np.sqrt(1 + 1e-5), rtol=1e-6)
    equal(same, state)
    output, moved = model.apply(params, state, x, train=True)
    np.testing.assert_allclose(output["features"].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(
        moved["backbone"]["body"]["norm"]["mean"], 0.01 * x.mean(0), rtol=1e-5
    )
    frozen = dataclasses.replace(model, live=("backbone/other/.*",))
    equal(frozen.apply(params, state, x, train=True)[1], state)


def test_other_entries_pass_through():
    model = norm_net()
    params, state = initial()
    params = {**params, "discriminator": {"kernel": jnp.ones(2)}}
    backbone = {**state["backbone"], "elsewhere": {"mean": jnp.ones(1)}}
    state = {"backbone": backbone, "method": {"teacher": jnp.arange(3)}}
    for train in (False, True):
        _, after = jax.jit(functools.partial(model.apply, train=train))(params, state, X)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        equal(after["method"], state["method"])
        equal(after["backbone"]["elsewhere"], {"mean": np.ones(1)})


def test_heads_can_be_swapped_and_need_no_others():
    model = models.mlp({"source": classes(5)}, (4,))
    x = X.reshape(6, -1)
    params, state = model.init(jax.random.key(0), x)
    other = dataclasses.replace(model, heads=HEADS)
    assert other.heads == HEADS and other.blocks == model.blocks
    params_other, _ = other.init(jax.random.key(0), x)
    equal(params_other["backbone"], params["backbone"])
    assert set(params_other["heads"]) == {"target"}
    output, _ = other.apply(params_other, state, x)
    assert {k: v.shape for k, v in output["logits"].items()} == {"target": (6, 3)}
    prefix, rest = other.cut("dense_0")
    hidden = prefix.apply(params_other, state, x)[0]
    assert hidden["logits"] == {} and prefix.heads == {} and rest.heads == HEADS
    equal(rest.apply(params_other, state, hidden["features"])[0], output)
    early = norm_net().cut("conv_0")[0]
    early = dataclasses.replace(early, heads=HEADS)  # on a block's image, flattened
    assert early.init(jax.random.key(0), X)[0]["heads"]["target"]["kernel"].shape == (4 * 4 * 2, 3)
    assert dataclasses.replace(model, heads={}).apply(params_other, state, x)[0]["logits"] == {}


def test_parts_keep_their_live_patterns_and_can_be_cut_again():
    model = dataclasses.replace(norm_net(), live=("backbone/conv_1/.*",))
    params, state = initial()
    first, rest = model.cut("conv_0")
    second, last = rest.cut("conv_1")
    assert (first.blocks, second.blocks) == (("conv_0",), ("conv_1",))
    assert last.blocks == ("conv_2",) and last.heads == HEADS
    x = X
    for part, moves in ((first, False), (second, True), (last, False)):
        output, after = training(part)(params, state, x)
        x = output["features"]
        changed = jax.tree.map(lambda a, b: np.any(a != b), after, state)
        assert any(jax.tree.leaves(changed)) == moves
    assert output["logits"]["target"].shape == (6, 3)


def test_a_part_of_several_blocks_is_initialised_and_applied_as_in_the_whole():
    model = norm_net()
    params, state = initial()
    prefix, rest = model.cut("conv_1")
    first, first_state = jax.jit(prefix.init)(jax.random.key(0), X)
    features = jax.jit(prefix.apply)(first, first_state, X)[0]["features"]
    second, second_state = jax.jit(rest.init)(jax.random.key(0), features)
    equal(paths.join(first, second), params)
    equal(paths.join(first_state, second_state), state)
    output, _ = jax.jit(rest.apply)(params, state, features)
    equal(output, jax.jit(model.apply)(params, state, X)[0])


def test_seeds_are_a_leading_axis():
    model = norm_net()
    keys = jax.random.split(jax.random.key(0), 2)
    params, state = jax.jit(jax.vmap(model.init, (0, None)))(keys, X)
    output, after = jax.jit(jax.vmap(lambda p, s: model.apply(p, s, X, train=True)))(params, state)
    one, after_one = training(model)(*jax.tree.map(lambda leaf: leaf[1], (params, state)), X)
    jax.tree.map(
        lambda many, single: np.testing.assert_allclose(many[1], single, rtol=1e-4, atol=1e-5),
        (output, after),
        (one, after_one),
    )


def test_apply_flat_is_the_model_on_each_domain():
    model = models.mlp(HEADS, (4,))
    inputs = X.reshape(3, 2, 8, 8)
    params, state = model.init(jax.random.key(0), inputs[:, 0])
    output, _ = models.apply_flat(model, params, State(state), inputs)
    assert output["features"].shape == (3, 2, 4)
    for d in range(2):
        logits = model.apply(params, state, inputs[:, d])[0]["logits"]["target"]
        np.testing.assert_allclose(output["logits"]["target"][:, d], logits, rtol=1e-5, atol=1e-6)


def test_standardize():
    x = np.random.default_rng(0).uniform(size=(2, 3, 4, 2)).astype(np.float32)
    mean, std = np.float32([0.5, 0.25]), np.float32([2.0, 4.0])
    broadcast = (x - mean) / std
    np.testing.assert_allclose(models.standardize(mean, std)(x), broadcast, rtol=1e-6)
    np.testing.assert_allclose(models.standardize(0.5, 2.0)(x), (x - 0.5) / 2, rtol=1e-6)
    model = models.from_blocks([], {}, before=models.standardize(0.5, 2.0))
    np.testing.assert_allclose(
        model.apply({}, {}, x)[0]["features"], (x.reshape(2, -1) - 0.5) / 2, rtol=1e-6
    )


def test_dropout_draws_where_it_is():
    x = X.reshape(6, -1)
    for rate, random in ((0.0, False), (0.5, True)):
        model = models.mlp(HEADS, (4, 4), dropout=rate)
        abstract = jax.eval_shape(model.init, jax.random.key(0), x)
        assert is_random(model, *abstract, x) == random
    assert not is_random(model.cut("dense_0")[0].cut("dense_0")[1], *abstract, x[:, :4])


def test_two_functions_are_a_backbone():
    def init(rng, x):
        return {"scale": jax.random.normal(rng, x.shape[-1:]), "inner": {"shift": jnp.ones(())}}

    def apply(params, x, *, rng, train):
        noise = jax.random.normal(rng, x.shape) if train else 0
        return x * params["scale"][None] + params["inner"]["shift"] + noise

    model, x = models.from_functions(init, apply, HEADS, name="mine"), X.reshape(6, -1)
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    own = params["backbone"]["mine"]
    assert state == {} and set(paths.flatten(own)) == {"scale", "inner/shift"}
    output, _ = jax.jit(model.apply)(params, state, x)
    expected = x * own["scale"][None] + 1
    np.testing.assert_allclose(output["features"], expected, rtol=1e-6, atol=1e-6)
    head = params["heads"]["target"]
    logits = expected @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(output["logits"]["target"], logits, rtol=1e-4, atol=1e-5)
    noisy, _ = training(model)(params, state, x, rng=jax.random.key(1))
    assert np.std(noisy["features"] - expected) == pytest.approx(1, abs=0.1)


def test_a_model_computes_what_its_fields_say():
    model = models.mlp({"source": classes(5)}, (4,))
    x = X.reshape(6, -1)
    params, state = model.init(jax.random.key(0), x)
    doubled = dataclasses.replace(model, before=lambda x: 2 * x, finish=lambda x: x - 1)
    features = doubled.apply(params, state, x)[0]["features"]
    np.testing.assert_allclose(
        features, model.apply(params, state, 2 * x)[0]["features"] - 1, rtol=1e-6, atol=1e-6
    )
    same, merged = model.merge(params)
    assert same is model and merged is params


def test_errors():
    model = norm_net()
    with pytest.raises(ValueError, match=r"unknown block 'conv_9'\. Did you mean 'conv_"):
        model.cut("conv_9")
    with pytest.raises(ValueError, match="different names, got a, a"):
        from_blocks([Block("a", nn.Dense(1)), Block("a", nn.Dense(1))], {})

    class Cached(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x + self.variable("cache", "sum", jnp.zeros, ()).value

    with pytest.raises(ValueError, match="block 'body' has variables in cache"):
        from_linen(Cached(), {}).init(jax.random.key(0), jnp.ones((1, 2)))
    params, _ = jax.eval_shape(model.init, jax.random.key(0), X)
    for train in (False, True):  # statistics are never made up
        with pytest.raises(flax.errors.ScopeCollectionNotFound):
            jax.eval_shape(lambda p, train=train: model.apply(p, {}, X, train=train), params)
