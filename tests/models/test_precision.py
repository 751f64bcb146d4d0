import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl import models

HEADS = {"y": models.classes(3)}


@pytest.mark.slow
def test_blocks_compute_in_bfloat16_and_parameters_stay_float32():
    model = models.conv_net(HEADS, batch_norm=True)
    inputs = jax.random.uniform(jax.random.key(0), (16, 8, 8, 1))
    params, state = model.init(jax.random.key(1), inputs)
    half = dataclasses.replace(model, dtype=jnp.bfloat16)
    exact, exact_state = model.apply(params, state, inputs, train=True)
    rough, rough_state = half.apply(params, state, inputs, train=True)
    assert {leaf.dtype for leaf in jax.tree.leaves((rough, rough_state))} == {jnp.dtype("float32")}
    error = np.abs(rough["logits"]["y"] - exact["logits"]["y"]).max()
    scale = np.abs(exact["logits"]["y"]).max()
    assert 1e-5 * scale < error < 0.1 * scale  # eight bits of mantissa: not exact, not wrong
    mean = ("backbone", "conv_1", "norm", "mean")
    for name in mean:
        exact_state, rough_state = exact_state[name], rough_state[name]
    np.testing.assert_allclose(rough_state, exact_state, atol=0.02)


def test_gradients_are_float32_and_close():
    model = models.mlp(HEADS, hidden=(32,))
    inputs = jax.random.normal(jax.random.key(0), (16, 5))
    params, state = model.init(jax.random.key(1), inputs)

    def loss(model, params):
        return jnp.mean(model.apply(params, state, inputs)[0]["logits"]["y"] ** 2)

    exact = jax.grad(lambda p: loss(model, p))(params)
    rough = jax.grad(lambda p: loss(dataclasses.replace(model, dtype=jnp.bfloat16), p))(params)
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(rough), strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(b, a, atol=0.05 * np.abs(a).max())


def test_the_rest_after_a_block_computes_in_the_same_type():
    model = dataclasses.replace(models.mlp(HEADS, hidden=(8, 8)), dtype=jnp.bfloat16)
    inputs = jax.random.normal(jax.random.key(0), (4, 5))
    params, state = model.init(jax.random.key(1), inputs)
    first, rest = model.cut("dense_0")
    features = first.apply(params, state, inputs)[0]["features"]
    whole = model.apply(params, state, inputs)[0]["logits"]["y"]
    np.testing.assert_array_equal(rest.apply(params, state, features)[0]["logits"]["y"], whole)
