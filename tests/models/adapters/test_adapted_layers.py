"""Adapters on kernels of every kind of layer, dropout beside them, and what cannot be adapted."""

import dataclasses
import functools

import flax
import flax.linen as nn
import jax
import numpy as np
import pytest
from model_facts import is_random
from tiny_transformers import (
    HEADS,
    adapter_of,
    attention,
    bert,
    chain,
    compiled,
    convolutions,
    drawn,
    fused,
    images,
    moved,
    sequences,
    target,
    text,
    vectors,
)

from jaxtl import paths
from jaxtl.models import Block, adapters, from_blocks, from_linen

ALL = ("backbone/.*/kernel",)
X = vectors()


@pytest.mark.parametrize(
    ("model", "inputs", "shapes"),
    [
        (attention, sequences, {"query": (8, 8), "out": (8, 8)}),
        (convolutions, images, {"full": (9, 6), "depthwise": (9, 6)}),
        (fused, sequences, {"qkv": (8, 24), "general": (8, 24)}),
    ],
)
def test_kernels_of_other_shapes(model, inputs, shapes):
    model, x = model(), inputs()
    params, _ = drawn(model, x)
    tuned = adapters.lora(model, ALL, 2, 6.0)
    own = moved(adapter_of(tuned, "lora", x))
    flat = paths.flatten(params)
    for layer, (rows, columns) in shapes.items():
        assert own["backbone"]["body"][layer]["a"].shape == (rows, 2)
        assert own["backbone"]["body"][layer]["b"].shape == (2, columns)
    for path in [path for path in flat if path.endswith("/kernel") and "body" in path]:
        pair = paths.flatten(own)
        a, b = (np.float64(pair[path.replace("kernel", leaf)]) for leaf in "ab")
        flat[path] = np.float32(flat[path] + 3 * (a @ b).reshape(flat[path].shape))

    def both(changed, params):
        merged = tuned.merge(params)[1]
        return target(model, changed, x), target(tuned, params, x), target(model, merged, x)

    expected, ours, merged = compiled(both, paths.nest(flat), {**params, "lora": own})
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(merged, expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_of_one_tap_is_a_dense_layer():
    x = np.random.default_rng(0).normal(size=(4, 1, 1, 5)).astype(np.float32)
    conv = from_blocks([Block("first", nn.Conv(7, (1, 1)))], HEADS)
    dense = from_blocks([Block("first", nn.Dense(7))], HEADS)
    outputs = []
    for model in (conv, dense):
        tuned = adapters.dora(model, ALL, 2)
        params, _ = drawn(tuned, x, seed=4)
        flat = paths.flatten(params)
        flat["backbone/first/kernel"] = flat["backbone/first/kernel"].reshape(
            (1, 1, 5, 7) if model is conv else (5, 7)
        )
        params = tuned.adapters[-1].after_loading(paths.nest(flat))
        outputs.append(compiled(functools.partial(target, tuned), params, x))
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


def test_dropout_drops_inputs_of_the_low_rank_part():
    model = from_blocks([Block("first", nn.Dense(5))], {})
    tuned = adapters.lora(model, ALL, 5, 5.0, dropout=0.5)
    params, _ = drawn(model, X)
    eye = np.eye(5, dtype=np.float32)
    params["lora"] = {"backbone": {"first": {"a": eye, "b": eye}}}

    def added(rng, train):
        run = functools.partial(tuned.apply, train=train, rng=rng)
        return run(params, {}, X)[0]["features"] - model.apply(params, {}, X)[0]["features"]

    kept, other = (np.asarray(added(jax.random.key(i), True)) for i in (0, 1))
    assert 0.2 < np.mean(np.abs(kept) < 1e-5) < 0.8
    np.testing.assert_allclose(np.where(np.abs(kept) < 1e-5, 2 * X, kept), 2 * X, atol=1e-5)
    assert np.any((np.abs(kept) < 1e-5) != (np.abs(other) < 1e-5))
    np.testing.assert_allclose(added(None, False), X, atol=1e-5)
    assert is_random(tuned, params, {}, X)
    with pytest.raises(flax.errors.InvalidRngError):
        added(None, True)


def test_batch_statistics_are_handed_on():
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Dense(4, name="dense")(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.5, name="norm")(x)

    model = from_linen(Body(), HEADS)
    tuned = adapters.lora(model, ALL, 2, 6.0)
    params, state = jax.jit(tuned.init)(jax.random.key(0), X)
    params["lora"] = moved(params["lora"])
    for live, share in (((".*",), 0.5), ((), 0.0)):
        apply = functools.partial(dataclasses.replace(tuned, live=live).apply, train=True)
        after = jax.jit(apply)(params, state, X)[1]["backbone"]["body"]["norm"]["mean"]
        kernel = tuned.merge(params)[1]["backbone"]["body"]["dense"]["kernel"]
        expected = share * (X @ np.asarray(kernel)).mean(0)
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)


def test_errors():
    def init(model, x=X):
        jax.eval_shape(model.init, jax.random.key(0), x)

    with pytest.raises(
        ValueError, match=r"matched no kernel. Closest paths: backbone/first/kernel"
    ):
        init(adapters.lora(chain(), ("backbone/frist/kernel",), 2))
    with pytest.raises(ValueError, match="matched no kernel"):
        init(adapters.lora(chain(), ("backbone/first/bias",), 2))
    with pytest.raises(ValueError, match=r"(?s)first/kernel.*ranks from 1 to 5.*second/kernel"):
        init(adapters.lora(chain(), ALL, 8))
    with pytest.raises(ValueError, match="has parameters under 'lora' already"):
        init(adapters.lora(adapters.lora(chain(), ALL, 2), ALL, 2))
    with pytest.raises(ValueError, match="no slash"):
        adapters.lora(chain(), ALL, 2, name="a/b")
    with pytest.raises(ValueError, match=r"full/kernel: inputs can be dropped beside"):
        init(adapters.lora(convolutions(), ALL, 2, dropout=0.1), images())
    with pytest.raises(ValueError, match="inputs of a convolution"):
        init(adapters.ia3(convolutions(), (), ALL), images())
    with pytest.raises(ValueError, match="cannot be taken out"):
        tuned = adapters.dora(chain(), ALL, 2)
        params, _ = drawn(tuned, X)
        adapters.unmerge(tuned, tuned.merge(params)[1], params["dora"])
    with pytest.raises(ValueError, match="cannot be taken out"):
        adapters.unmerge(chain(), drawn(chain(), X)[0], {})

    class Repeated(nn.Module):
        @nn.compact
        def __call__(self, x):
            layers = nn.scan(
                Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=2
            )
            return layers(name="layers")(x, None)[0]

    class Step(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(5, name="dense")(x), None

    with pytest.raises(ValueError, match=r"layers/dense/kernel \[2, 5, 5\] holds the kernels of"):
        init(adapters.lora(from_linen(Repeated(), HEADS), ALL, 2))


def test_a_part_need_not_have_what_an_adapter_names():
    first, rest = adapters.lora(chain(), ("backbone/second/kernel",), 2).cut("first")
    params, _ = jax.eval_shape(first.init, jax.random.key(0), X)
    assert set(params) == {"backbone"}
    params, _ = jax.eval_shape(rest.init, jax.random.key(0), np.zeros((1, 7), np.float32))
    assert set(params["lora"]["backbone"]) == {"second"}


def test_queries_and_values_of_a_bert():
    x, model = text(), bert()
    tuned = adapters.lora(model, ("backbone/.*/(query|value)/kernel",), 2)
    abstract, _ = jax.eval_shape(tuned.init, jax.random.key(0), x)
    found = paths.flatten(abstract["lora"])
    layers = [f"backbone/layer_{i}/attention/{n}" for i in range(2) for n in ("query", "value")]
    assert set(found) == {f"{layer}/{leaf}" for layer in layers for leaf in "ab"}
    own = moved(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract["lora"]))
    params = {**drawn(model, x)[0], "lora": own}

    def both(params):
        first, rest = tuned.cut("layer_0")
        hidden = first.apply(params, {}, x)[0]["features"]
        merged, folded = tuned.merge(params)
        return target(tuned, params, x), target(rest, params, hidden), target(merged, folded, x)

    whole, parts, merged = compiled(both, params)
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(merged, whole, rtol=1e-4, atol=1e-5)
