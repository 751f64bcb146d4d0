"""The outputs of a model over rows: any number of them, wherever they lie, compiled once."""

import dataclasses
import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl import models
from jaxtl.data.streamed import Streamed
from jaxtl.models import classes, forward, in_batches, outputs, to_float
from jaxtl.plan import State

HEADS = {"class": classes(3), "other": classes(2)}
ROWS = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)


class Traced(nn.Module):
    """Writes down the shapes that it is traced for."""

    @nn.compact
    def __call__(self, inputs):
        LOG.traces.append(inputs.shape)
        return jnp.tanh(nn.Dense(4, name="dense")(inputs))


LOG = logging.getLogger(__name__)  # what it holds is no part of what a model that reads it computes
LOG.traces = TRACES = []


@pytest.fixture
def model(request):
    """One that no other test has traced."""
    return models.from_linen(Traced(), HEADS, name=str(abs(hash(request.node.name))))


@pytest.fixture
def weights(model):
    params, statistics = model.init(jax.random.key(0), ROWS[:1])
    TRACES.clear()
    return params, State(statistics)


def echo(model, params, state, inputs):
    """A method's own prediction that gives its inputs back."""
    return {"features": inputs, "logits": {"all": params["scale"] * inputs}}


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 23])
@pytest.mark.parametrize("part", [None, "features", "logits"])
def test_rows_of_any_number_have_the_outputs_of_the_model(model, weights, count, part):
    params, state = weights
    found = outputs(model, params, state, ROWS[:count], part, batch_size=8)
    expected = jax.device_get(model.apply(params, state.statistics, ROWS[:count])[0])
    expected = expected if part is None else expected[part]
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for leaf, wanted in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert isinstance(leaf, np.ndarray) and leaf.dtype == np.float32
        np.testing.assert_allclose(leaf, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 5, 8, 9, 23])
def test_every_row_is_there_once_in_its_place(model, count):
    found = outputs(model, {"scale": 2.0}, {}, ROWS[:count], predict=echo, batch_size=4)
    np.testing.assert_array_equal(found["features"], ROWS[:count])
    np.testing.assert_array_equal(found["logits"]["all"], 2 * ROWS[:count])


def test_batches_have_one_size_and_are_no_larger_than_the_rows(model, weights):
    outputs(model, *weights, ROWS, batch_size=8)
    outputs(model, *weights, ROWS[:3], batch_size=8)
    outputs(model, *weights, ROWS[:1], batch_size=8)
    assert TRACES == [(8, 5), (3, 5), (1, 5)]


def test_no_rows_have_no_outputs(model, weights):
    found = outputs(model, *weights, ROWS[:0])
    assert found["features"].shape == (0, 4) and found["features"].dtype == np.float32
    assert {name: leaf.shape for name, leaf in found["logits"].items()} == {
        "class": (0, 3),
        "other": (0, 2),
    }


def test_streamed_rows_are_read_a_batch_at_a_time(model, weights):
    reads = []

    def read(rows):
        reads.append(rows.tolist())
        return ROWS[rows]

    streamed = Streamed(ROWS.shape, ROWS.dtype, read)
    found = outputs(model, *weights, streamed, batch_size=10)
    assert reads == [[*range(10)], [*range(10, 20)], [20, 21, 22]]
    jax.tree.map(
        np.testing.assert_array_equal, found, outputs(model, *weights, ROWS, batch_size=10)
    )


def test_a_model_is_compiled_once_for_a_shape_whoever_asks(model, weights):
    params, state = weights
    outputs(model, params, state, ROWS, "features", batch_size=8)
    outputs(
        model,
        jax.tree.map(lambda leaf: leaf + 1, params),
        state,
        ROWS[:9],
        "features",
        batch_size=8,
    )
    assert len(TRACES) == 1
    outputs(model, params, state, ROWS, "logits", batch_size=8)
    assert len(TRACES) == 2
    block = model.backbone[0]
    equal = models.from_linen(Traced(), {"class": classes(3), "other": classes(2)}, name=block.name)
    outputs(equal, params, state, ROWS, "logits", batch_size=8)
    still = dataclasses.replace(equal, live=())  # says nothing of a model that does not train
    outputs(still, params, state, ROWS, "logits", batch_size=8)
    assert len(TRACES) == 2
    outputs(dataclasses.replace(model, before=jnp.negative), *weights, ROWS, batch_size=8)
    assert len(TRACES) == 3


def test_a_method_that_predicts_is_asked_instead_and_compiled_once(model, weights):
    calls = []

    def predict(model, params, state, inputs):
        calls.append(inputs.shape)
        output = model.apply(params, state.statistics, inputs)[0]
        return {**output, "logits": {"class": -output["logits"]["class"]}}

    found = [outputs(model, *weights, ROWS, predict=predict, batch_size=8) for _ in range(2)]
    assert calls == [(8, 5)]
    plain = outputs(model, *weights, ROWS, batch_size=8)
    assert found[0]["logits"].keys() == {"class"}
    for each in found:
        np.testing.assert_allclose(each["logits"]["class"], -plain["logits"]["class"], rtol=1e-5)


def test_leaves_of_several_kinds_arrive_as_a_model_reads_them():
    rng = np.random.default_rng(1)
    inputs = {
        "image": rng.integers(0, 256, (7, 2, 2, 1), np.uint8),
        "ids": rng.integers(0, 9, (7, 3), np.int32),
        "length": Streamed((7,), np.float32, lambda rows: rows.astype(np.float32)),
    }

    def predict(model, params, state, inputs):
        assert inputs["image"].dtype == jnp.float32 and inputs["ids"].dtype == jnp.int32
        return {"features": inputs, "logits": {}}

    found = outputs(None, {}, {}, inputs, "features", predict=predict, batch_size=3)
    np.testing.assert_allclose(found["image"], inputs["image"] / 255, rtol=1e-6)
    np.testing.assert_array_equal(found["ids"], inputs["ids"])
    np.testing.assert_array_equal(found["length"], np.arange(7))


def test_the_pure_function_is_what_is_batched(model, weights):
    found = jax.jit(forward(model))(*weights, ROWS)
    expected = outputs(model, *weights, ROWS, batch_size=len(ROWS))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), expected)


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_in_batches(size):
    rows = jnp.arange(7.0)
    found = in_batches(lambda x: {"twice": 2 * x["a"]}, {"a": rows}, size)
    np.testing.assert_array_equal(found["twice"], 2 * rows)


def test_to_float_scales_bytes_only():
    inputs = {"image": np.array([[0, 51, 255]], np.uint8), "mask": np.array([3], np.int32)}
    floats = jax.jit(to_float)(inputs)
    np.testing.assert_allclose(floats["image"], [[0, 0.2, 1]], rtol=1e-6)
    assert floats["image"].dtype == np.float32 and floats["mask"].dtype == np.int32


def test_only_what_is_read_is_put_on_the_device(model, weights):
    params, state = jax.tree.map(np.asarray, weights)
    wide = {**params, "unused": np.zeros((1000, 7), np.float32)}
    sizes = []

    def predict(model, params, state, inputs):
        jax.debug.callback(lambda: sizes.extend(leaf.shape for leaf in jax.live_arrays()))
        return model.apply(params, state.statistics, inputs)[0]

    found = outputs(model, wide, state, ROWS, "features", predict=predict, batch_size=8)
    np.testing.assert_allclose(found, outputs(model, params, state, ROWS, "features"), rtol=1e-6)
    assert (5, 4) in sizes and (1000, 7) not in sizes
