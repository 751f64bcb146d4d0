"""NNX modules as backbones: the module's own numbers, its state, its paths, what is refused."""

import dataclasses
import functools

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from model_facts import is_random

from jaxtl import data, models, paths
from jaxtl.methods import transfer
from jaxtl.models import adapters, classes
from jaxtl.plan import Stage, labelled
from jaxtl.train.resolve.stage import resolve

HEADS = {"target": classes(3)}
X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


class Net(nnx.Module):
    """A list, batch statistics, dropout, attention, a counter, a constant and its own classifier.

    Attributes:
        width: of the layers.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        inner = nnx.Linear(width, width, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(5, width, rngs=rngs), inner])
        self.norm = nnx.BatchNorm(width, momentum=0.5, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, width, decode=False, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.shift = jnp.arange(float(width))
        self.calls = nnx.Variable(jnp.int32(0))
        self.head = nnx.Linear(width, 7, rngs=rngs)

    def __call__(self, x):
        self.calls[...] += 1
        x = nnx.relu(self.layers[0](x))
        x = self.dropout(self.norm(self.layers[1](x)) + self.shift[None])
        return self.head(self.attention(x[:, None])[:, 0])


def build(rngs):
    return Net(4, rngs=rngs)


@functools.cache
def seeds():
    """(model, params and statistics of three seeds)."""
    model = models.from_nnx(build, HEADS, without="head")
    keys = jax.random.split(jax.random.key(0), 3)
    return model, *jax.jit(jax.vmap(lambda key: model.init(key, X)))(keys)


def drawn():
    model, *trees = seeds()
    return model, *jax.tree.map(lambda leaf: leaf[0], trees)


@functools.cache
def trained():
    """A module as somebody trained it."""
    return build(nnx.Rngs(3))


def training(model):
    return jax.jit(lambda *args, rng=None: model.apply(*args, X, rng=rng, train=True))


def test_the_module_and_the_model_compute_the_same():
    module = nnx.clone(trained())
    model = models.from_nnx(module, HEADS)
    params, state = model.init(jax.random.key(0), X)
    module.eval()
    features = jax.jit(model.apply)(params, state, X)[0]["features"]
    calls = nnx.jit(lambda module: module(X))
    np.testing.assert_allclose(features, calls(module), rtol=1e-5, atol=1e-6)
    module.train()
    calls(module)
    _, moved = training(model)(params, state, rng=jax.random.key(1))
    moved = moved["backbone"]["body"]
    np.testing.assert_allclose(moved["norm"]["mean"], module.norm.mean[...], rtol=1e-5, atol=1e-6)
    assert int(moved["calls"]) == 1 and moved["calls"].dtype == jnp.int32


def test_paths_and_seeds():
    _, params, state = drawn()
    below = {p.removeprefix("backbone/body/"): x.shape for p, x in paths.flatten(params).items()}
    assert below["layers/0/kernel"] == (5, 4) and below["attention/query/kernel"] == (4, 2, 2)
    assert not any(path.startswith(("head/", "shift", "dropout")) for path in below)
    assert set(state["backbone"]["body"]) == {"norm", "calls"}
    assert params["heads"]["target"]["kernel"].shape == (4, 3)
    kernels = seeds()[1]["backbone"]["body"]["layers"]["0"]["kernel"]
    assert len(np.unique(np.asarray(kernels)[:, 0, 0])) == 3


def test_statistics_that_are_constants_are_used_as_they_are():
    model, params, state = drawn()
    _, state = training(model)(params, state, rng=jax.random.key(1))
    for live, moves in (((), set()), ((r"backbone/body/norm/.*",), {"mean", "var"})):
        apply = training(dataclasses.replace(model, live=live))
        _, after = apply(params, state, rng=jax.random.key(1))
        pairs = paths.flatten(state), paths.flatten(after)
        changed = {p.rpartition("/")[2] for p in pairs[0] if np.any(pairs[0][p] != pairs[1][p])}
        assert changed == moves
    constant = training(dataclasses.replace(model, live=()))
    zeros = jax.tree.map(jnp.zeros_like, state)
    other = constant(params, zeros, rng=jax.random.key(1))[0]["features"]
    assert np.any(other != constant(params, state, rng=jax.random.key(1))[0]["features"])


def test_dropout_follows_the_key():
    model, params, state = drawn()
    assert is_random(model, params, state, X)
    run = training(model)
    outputs = [run(params, state, rng=jax.random.key(i))[0]["features"] for i in (1, 1, 2)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.any(outputs[0] != outputs[2])
    layers = lambda rngs: (nnx.Linear(5, 4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs))  # noqa: E731
    plain = models.from_nnx(lambda rngs: nnx.Sequential(*layers(rngs)), HEADS)
    assert is_random(plain, *jax.eval_shape(plain.init, jax.random.key(0), X), X)
    calm = models.from_nnx(lambda rngs: nnx.Linear(5, 4, rngs=rngs), HEADS)
    assert not is_random(calm, *calm.init(jax.random.key(0), X), X)


def test_a_module_keeps_its_weights_as_they_were():
    module = nnx.clone(trained())
    kernel = np.asarray(module.layers[0].kernel[...])
    model = models.from_nnx(module, HEADS, without="head")
    module.layers[0].kernel[...] = 0 * kernel
    for seed in (0, 1):
        params, _ = model.init(jax.random.key(seed), X)
        np.testing.assert_array_equal(params["backbone"]["body"]["layers"]["0"]["kernel"], kernel)
    assert isinstance(module.head, nnx.Linear) and "head" not in params["backbone"]["body"]


def test_weights_that_somebody_trained_may_be_frozen():
    domains = [labelled(data.arrays(X, np.arange(6) % 3), "target")]
    probe = transfer.probe(optax.sgd(0.1))

    def setup(module):
        model = models.from_nnx(module, HEADS, without="head")
        return resolve(Stage("s", model, probe, domains=domains, batch_size=2, num_steps=1), None)

    assert setup(trained()).trainable == {"heads/target/kernel", "heads/target/bias"}
    with pytest.raises(ValueError, match="fresh and frozen, so they would stay random"):
        setup(build)


def test_adapters_of_its_kernels_merge():
    model, params, state = drawn()
    tuned = adapters.dora(model, ["backbone/body/(layers/.*|attention/(query|out))/kernel"], 2)
    added = jax.jit(tuned.init)(jax.random.key(0), X)[0]["dora"]
    shapes = {p: x.shape for p, x in paths.flatten(added).items() if p.endswith("/b")}
    assert shapes["backbone/body/attention/query/b"] == (2, 4)  # [d, heads * width]
    assert shapes["backbone/body/attention/out/b"] == (2, 4)  # [heads * width, d]
    rng = np.random.default_rng(1)
    added = jax.tree.map(lambda x: np.float32(x + rng.normal(size=x.shape)), added)
    whole = {**params, "dora": added}
    base, merged = tuned.merge(whole)
    pairs = ((tuned, whole), (base, merged), (model, params))
    adapted, folded, plain = (jax.jit(m.apply)(p, state, X)[0]["features"] for m, p in pairs)
    np.testing.assert_allclose(adapted, folded, rtol=1e-5, atol=1e-5)
    assert np.any(np.abs(adapted - plain) > 1e-2)


class Told(nnx.Module):
    def __init__(self, rngs):
        self.linear, self.dropout = nnx.Linear(5, 4, rngs=rngs), nnx.Dropout(0.5)

    def __call__(self, x, train, *, rngs=None):
        x = self.dropout(self.linear(x), deterministic=not train, rngs=rngs)
        return {"hidden": x, "double": 2 * x}


def test_flags_and_outputs():
    outputs = [
        models.from_nnx(Told, HEADS, output=output)
        for output in ("hidden", "double", lambda given: given["hidden"] - 1)
    ]
    params, state = outputs[0].init(jax.random.key(0), X)
    hidden, double, less = (training(m)(params, state, rng=jax.random.key(1))[0] for m in outputs)
    np.testing.assert_array_equal(2 * hidden["features"], double["features"])
    np.testing.assert_array_equal(hidden["features"] - 1, less["features"])
    assert np.mean(hidden["features"] == 0) > 0.2
    with pytest.raises(ValueError, match=r"`output=` chooses one of 'hidden', 'double'"):
        models.from_nnx(Told, HEADS).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"`output`: unknown output 'hiden'. Did you mean 'hidd"):
        models.from_nnx(Told, HEADS, output="hiden").init(jax.random.key(0), X)


@pytest.mark.parametrize(
    "module, said",
    [
        (Net, r"Net is called with `rngs` alone: missing a required argument: 'width'; give"),
        (nn.Dense(3), "Dense is a linen module, which models.from_linen takes"),
        (None, "expected an nnx.Module, a class of such, or a function"),
        (lambda rngs: 3, "makes int"),
        (lambda: 3, "is called with `rngs` alone"),
    ],
)
def test_what_is_no_module(module, said):
    with pytest.raises(ValueError, match=said) as error:
        models.from_nnx(module, HEADS).init(jax.random.key(0), X)
    assert "\n" not in str(error.value) and str(error.value).startswith("block 'body'")


def test_what_cannot_be_left_out_or_drawn():
    with pytest.raises(ValueError, match=r"unknown module 'haed'. Did you mean 'head'"):
        models.from_nnx(trained(), HEADS, without="haed")
    model, params, state = drawn()
    with pytest.raises(flax.errors.InvalidRngError, match="was given no rng"):
        jax.eval_shape(functools.partial(model.apply, train=True), params, state, X)
