import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from model_facts import is_random

from jaxtl.models import Block, classes, from_blocks, stoch_norm
from jaxtl.models.layers import Conv

X = np.random.default_rng(0).normal(1.0, 2.0, (16, 6, 6, 2)).astype(np.float32)
MODEL = from_blocks(
    [Block("conv", Conv(6, (1, 1), use_bias=False, batch_norm=True)), Block("dense", nn.Dense(3))],
    {"target": classes(2)},
)


def initial():
    """Parameters and statistics away from those of linen."""
    params, state = MODEL.init(jax.random.key(0), X)
    norm, rng = params["backbone"]["conv"]["norm"], np.random.default_rng(1)
    norm |= {"scale": rng.uniform(0.5, 2, 6), "bias": rng.normal(size=6)}
    statistics = {"mean": rng.normal(size=6), "var": rng.uniform(0.5, 2, 6)}
    state["backbone"]["conv"]["norm"] = statistics
    return jax.tree.map(np.float32, (params, state))


def outputs(model, rng=None, train=True):
    first, _ = model.cut("conv")
    output, state = first.apply(*initial(), X, rng=rng, train=train)
    return np.asarray(output["features"]), state


def by_hand():
    """Both normalisations, in float64."""
    params, state = jax.tree.map(np.float64, initial())
    layer, running = params["backbone"]["conv"], state["backbone"]["conv"]["norm"]
    z = X.astype(float) @ layer["kernel"][0, 0]
    batch = {"mean": z.mean((0, 1, 2)), "var": z.var((0, 1, 2))}
    return [
        (z - s["mean"]) / np.sqrt(s["var"] + 1e-5) * layer["norm"]["scale"] + layer["norm"]["bias"]
        for s in (batch, running)
    ]


def test_each_channel_takes_one_of_the_two_statistics():
    by_batch, by_running = by_hand()
    kinds = set()
    for seed in range(3):
        actual, _ = outputs(stoch_norm(MODEL), jax.random.key(seed))
        for channel in range(6):
            near = [
                np.allclose(actual[..., channel], z[..., channel], rtol=1e-3, atol=1e-4)
                for z in (by_batch, by_running)
            ]
            assert sum(near) == 1
            kinds.add((seed, near[0]))
    assert len(kinds) == 6  # each batch has both


@pytest.mark.parametrize(("p", "which"), [(1.0, 0), (0.0, 1)])
def test_certain_choices(p, which):
    actual, _ = outputs(stoch_norm(MODEL, p), jax.random.key(0))
    np.testing.assert_allclose(actual, by_hand()[which], rtol=1e-3, atol=1e-4)


def test_share_of_channels():
    wide = from_blocks([Block("norm", nn.BatchNorm())], {})
    wide, x = stoch_norm(wide, 0.3), np.random.default_rng(0).normal(3, 1, (8, 2000))
    params, state = wide.init(jax.random.key(0), x)
    output, _ = wide.apply(params, state, x, rng=jax.random.key(1), train=True)
    assert np.mean(np.abs(output["features"].mean(0)) < 1e-3) == pytest.approx(0.3, abs=0.04)


def test_running_statistics_follow_the_batch_as_ever():
    _, state = outputs(stoch_norm(MODEL), jax.random.key(0))
    _, expected = outputs(MODEL, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_evaluation_and_constant_statistics_are_untouched_and_draw_nothing():
    model = stoch_norm(MODEL)
    np.testing.assert_array_equal(outputs(model, train=False)[0], outputs(MODEL, train=False)[0])
    constant = dataclasses.replace(model, live=())
    np.testing.assert_array_equal(outputs(constant)[0], outputs(MODEL, train=False)[0])
    params, state = initial()
    assert is_random(model, params, state, X) and not is_random(constant, params, state, X)


def test_running_statistics_are_constants_of_the_gradient():
    params, state = initial()

    def total(params, p):
        output, _ = stoch_norm(MODEL, p).apply(params, state, X, rng=jax.random.key(0), train=True)
        return (output["logits"]["target"] ** 2).sum()

    def evaluated(params):
        return (MODEL.apply(params, state, X)[0]["logits"]["target"] ** 2).sum()

    actual, expected = jax.grad(total)(params, 0.0), jax.grad(evaluated)(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), actual, expected
    )


def test_p_is_a_probability():
    with pytest.raises(ValueError, match=r"p is a probability, got 1.5"):
        stoch_norm(MODEL, 1.5)
