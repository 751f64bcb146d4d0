"""Functions of other libraries as backbones: Equinox, Haiku, and states of either."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl import models, paths
from jaxtl.models import adapters, classes

HEADS = {"target": classes(3)}
X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def below(tree):
    return {p.removeprefix("backbone/body/"): x.shape for p, x in paths.flatten(tree).items()}


def test_equinox():
    eqx = pytest.importorskip("equinox")

    def make(rng):
        return eqx.nn.MLP(5, 4, 6, 1, key=rng)

    _, static = eqx.partition(make(jax.random.key(0)), eqx.is_array)

    def init(rng, inputs):
        return eqx.filter(make(rng), eqx.is_array)

    def apply(params, inputs):
        return jax.vmap(eqx.combine(params, static))(inputs)

    model = models.from_functions(init, apply, HEADS)
    params, state = model.init(jax.random.key(0), X)
    assert below(params)["layers/0/weight"] == (6, 5) and state == {}
    layers = params["backbone"]["body"]["layers"]
    module = eqx.tree_at(
        lambda mlp: [getattr(layer, leaf) for layer in mlp.layers for leaf in ("weight", "bias")],
        make(jax.random.key(1)),
        [layers[number][leaf] for number in "01" for leaf in ("weight", "bias")],
    )
    features = jax.jit(model.apply)(params, state, X)[0]["features"]
    np.testing.assert_allclose(features, jax.vmap(module)(X), rtol=1e-5, atol=1e-6)
    tuned = adapters.lora(model, ["backbone/body/layers/.*/weight"], 2)
    added = tuned.init(jax.random.key(0), X)[0]["lora"]
    assert below(added)["layers/0/weight/a"] == (6, 2)
    added = jax.tree.map(lambda x: x + 0.5, added)
    base, merged = tuned.merge({**params, "lora": added})
    whole = tuned.apply({**params, "lora": added}, state, X)[0]["features"]
    np.testing.assert_allclose(base.apply(merged, state, X)[0]["features"], whole, rtol=1e-5)
    assert np.any(np.abs(whole - features) > 0.1)


def test_haiku_with_a_state():
    hk = pytest.importorskip("haiku")

    def forward(x, train, follow):
        x = hk.nets.MLP([6, 4])(x)
        x = hk.BatchNorm(True, True, 0.5)(x, is_training=follow, test_local_stats=False)
        return hk.dropout(hk.next_rng_key(), 0.5, x) if train else x

    network = hk.transform_with_state(forward)

    def init(rng, inputs):
        return network.init(rng, inputs, False, True)

    def apply(params, state, inputs, *, rng, train, live):
        return network.apply(params, state, rng, inputs, train, live)

    model = models.from_functions(init, apply, HEADS, has_state=True)
    params, state = model.init(jax.random.key(0), X)
    assert below(params)["mlp/~/linear_0/w"] == (5, 6)
    assert "batch_norm/~/mean_ema/average" in below(state)
    run = jax.jit(model.apply, static_argnames="train")
    given = params["backbone"]["body"]["mlp"]["~"]
    hidden = np.maximum(X @ given["linear_0"]["w"] + given["linear_0"]["b"][None], 0)
    hidden = hidden @ given["linear_1"]["w"]
    _, moved = run(params, state, X, rng=jax.random.key(1), train=True)
    average = moved["backbone"]["body"]["batch_norm"]["~"]["mean_ema"]["average"]
    np.testing.assert_allclose(average[0], hidden.mean(0), rtol=1e-4, atol=1e-5)
    constant = dataclasses.replace(model, live=())
    _, same = constant.apply(params, moved, X, rng=jax.random.key(1), train=True)
    jax.tree.map(np.testing.assert_array_equal, same, moved)
    doubled = jax.tree.map(lambda x: 2 * x, moved)
    outputs = [run(params, each, X)[0]["features"] for each in (moved, doubled)]
    assert np.any(outputs[0] != outputs[1])
    some = dataclasses.replace(model, live=(".*/var_ema/.*",))
    with pytest.raises(ValueError, match="train all layers with statistics, or none"):
        some.apply(params, moved, X, rng=jax.random.key(1), train=True)


def centred(params, state, inputs, *, train):
    mean = jnp.where(train, inputs.mean(0), state["mean"])
    return (inputs - mean[None]) @ params["w"], {"mean": mean}


def start(rng, inputs):
    return {"w": jax.random.normal(rng, (5, 4))}, {"mean": jnp.zeros(5)}


def test_a_state_that_cannot_be_kept_constant_is_refused():
    model = models.from_functions(start, centred, HEADS, has_state=True)
    params, state = model.init(jax.random.key(0), X)
    _, moved = model.apply(params, state, X, train=True)
    np.testing.assert_allclose(moved["backbone"]["body"]["mean"], X.mean(0), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"body/?.*mean do not train.*let `apply` take `live`"):
        dataclasses.replace(model, live=()).apply(params, state, X, train=True)


def weights(rng, inputs):
    return {"w": jnp.ones((5, 4))}


@pytest.mark.parametrize(
    "init, apply, options, said",
    [
        (weights, lambda params: 0, {}, r"called as \(params, inputs, \*, rng, train\): too many"),
        (weights, 3, {}, "it is a int"),
        (weights, lambda p, s, x: x, {"has_state": True}, r"gives \(params, state\); this is a d"),
        (start, lambda p, s, x: x, {"has_state": True}, r"gives \(outputs, state\)"),
        (start, lambda p, s, x: (x, {}), {"has_state": True}, "a state of another form"),
        (lambda rng, x: {"w": 3}, lambda p, x: x, {}, "w is a int, no array"),
        (lambda rng, x: jnp.ones(3), lambda p, x: x, {}, "one array alone has no path"),
        (
            lambda rng, x: {"a": {"b": jnp.ones(3)}, "a/b": jnp.ones(3)},
            lambda p, x: x,
            {},
            "two leaves have the path 'a/b'",
        ),
    ],
)
def test_what_does_not_fit(init, apply, options, said):
    with pytest.raises(ValueError, match=said):
        models.from_functions(init, apply, HEADS, **options).init(jax.random.key(0), X)


class Several(nn.Module):
    """A linen network with its own classifier that gives a tuple."""

    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(4, name="inner")(x))
        return nn.Dense(7, name="head")(hidden), {"hidden": hidden}


def test_outputs_and_classifiers_of_linen_modules():
    logits = models.from_linen(Several(), HEADS, output=0)
    params, _ = logits.init(jax.random.key(0), X)
    assert params["heads"]["target"]["kernel"].shape == (7, 3)
    choose = functools.partial(models.from_linen, Several(), HEADS)
    bare = choose(output=0, without="head")
    new, _ = bare.init(jax.random.key(0), X)
    assert "head" not in new["backbone"]["body"]
    hidden = choose(output=lambda out: out[1]["hidden"])
    expected = hidden.apply(hidden.init(jax.random.key(0), X)[0], {}, X)[0]["features"]
    np.testing.assert_array_equal(bare.apply(new, {}, X)[0]["features"], expected)
    with pytest.raises(ValueError, match=r"`without`: unknown layer 'haed'. Did you mean 'head'"):
        choose(output=0, without="haed").init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"`output=0` ... `output=1` chooses one"):
        choose().init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"`output`: unknown output 2. Known: 0, 1"):
        choose(output=2).init(jax.random.key(0), X)
