"""What evaluations sum: the same in threads as in one program, traced once for equal models."""

import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import blobs

from jaxtl import data, models
from jaxtl.measure.evaluate import Evaluator, not_finite_lines
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.models.outputs import batch_outputs
from jaxtl.models.programs import batch_rows, form_of, rows_at_once
from jaxtl.plan import Method, State
from jaxtl.train.mesh import make_mesh
from jaxtl.train.resolve.replicas import replica

SEEDS = (0, 1, 2)
LOG = logging.getLogger(__name__)  # what it holds is no part of what a model computes that reads it
PLAIN = Method()


class Traced(nn.Module):
    """Writes down the shapes that it is traced for."""

    @nn.compact
    def __call__(self, inputs, train=False):
        LOG.shapes.append(inputs.shape)
        hidden = nn.BatchNorm(use_running_average=not train)(nn.Dense(4, name="dense")(inputs))
        return jnp.tanh(hidden)


def traced(live=(".*",)):
    """A model that was built for one arm."""
    heads = {"source": classes(3), "target": classes(3)}
    model = models.from_linen(Traced(), heads, name="counted")
    return models.Network(model.backbone, model.heads, live=live)


def weights(model, seeds=SEEDS):
    init = jax.vmap(lambda seed: model.init(jax.random.key(seed), jnp.zeros((1, 5))))
    params, statistics = init(jnp.array(seeds))
    return params, State(statistics)


def test_arms_of_one_architecture_are_traced_once():
    evals = {
        "few": classification(blobs("few", 30), "target"),
        "other": classification(blobs("other", 30, seed=1), "target"),
        "many": classification(blobs("many", 300, seed=2), "target"),
    }
    LOG.shapes = []
    arms = [weights(traced())] * 2
    LOG.shapes = []
    measured = []
    for _ in range(2):  # evaluators, as of the points of a sweep
        evaluator = Evaluator(evals, SEEDS)
        for arm, live in zip(arms * 2, [(".*",), (".*/mean",), (), (".*",)], strict=True):
            measured.append(evaluator.measure(traced(live), PLAIN, *arm, {"target"}))
    # One row says how many go into a batch, then each shape of a batch.
    assert sorted(LOG.shapes) == [(1, 5), (32, 5), (160, 5)]
    for other in measured:
        np.testing.assert_array_equal(other["many"].confusion, measured[0]["many"].confusion)


def test_other_weights_heads_and_predictions_are_not_mistaken():
    model = models.linear({"target": classes(3)})
    evals = {"eval": classification(blobs("all", 30), "target")}
    evaluator = Evaluator(evals, SEEDS)

    def accuracy(factor, offset):
        method = Method(predict=lambda m, p, s, x: scaled(m.apply(p, s.statistics, x)[0], factor))
        params, state = weights(model, tuple(seed + offset for seed in SEEDS))
        return evaluator.measure(model, method, params, state, {"target"})["eval"].metrics

    def scaled(output, factor):
        return {"logits": {"target": factor * output["logits"]["target"]}}

    first = accuracy(1.0, 0)
    np.testing.assert_array_equal(accuracy(1.0, 0)["loss"], first["loss"])
    assert not np.allclose(accuracy(-1.0, 0)["accuracy"], first["accuracy"])
    assert not np.allclose(accuracy(1.0, 5)["loss"], first["loss"])


@pytest.fixture(scope="module")
def images():
    """Of 50 images each seed has its own 32."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 8, 8, 1)).astype(np.uint8)
    return data.arrays(pixels, np.arange(50) % 4, name="images").few(8)


@pytest.fixture(scope="module")
def conv_net():
    """(model, weights of each seed); the first layer is the same for all, and held once."""
    model = models.conv_net({"digit": classes(4)})
    init = jax.vmap(lambda seed: model.init(jax.random.key(seed), jnp.zeros((1, 8, 8, 1))))
    params, statistics = init(jnp.array(SEEDS))
    first = jax.tree.map(lambda leaf: leaf[:1], params["backbone"]["conv_0"])
    params = {**params, "backbone": {**params["backbone"], "conv_0": first}}
    return model, (params, State(statistics))


@pytest.mark.parametrize("batch", [0, 7])
def test_seeds_in_threads_have_the_metrics_of_each_alone(images, conv_net, batch):
    model, (params, state) = conv_net
    evaluator = Evaluator({"eval": classification(images, "digit")}, SEEDS, batch)
    whole = evaluator.measure(model, PLAIN, params, state, {"digit"})["eval"]
    table = images.table()
    for i, seed in enumerate(SEEDS):
        rows = images.rows(seed)
        inputs, labels = table.inputs[rows] / np.float32(255), table.labels["label"][rows]
        logits = model.apply(replica(params, i), {}, inputs)[0]["logits"]["digit"]
        assert whole.metrics["accuracy"][i] == np.mean(logits.argmax(-1) == labels)
        losses = -jax.nn.log_softmax(logits)[np.arange(len(rows)), labels]
        np.testing.assert_allclose(whole.metrics["loss"][i], losses.mean(), rtol=1e-5)
    assert whole.confusion.sum((1, 2)).tolist() == [32, 32, 32]


@pytest.mark.parametrize(("limit", "block"), [(0, None), (np.inf, "conv_1")])
def test_one_program_for_all_seeds_measures_the_same(images, conv_net, limit, block):
    """As on a mesh of several devices."""
    model, weights = conv_net
    evals = {"eval": classification(images, "digit")}
    mesh = make_mesh("data=2")
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    alone = Evaluator(evals, SEEDS, 10).measure(model, PLAIN, *weights, {"digit"})["eval"]
    with jax.set_mesh(mesh):
        evaluator = Evaluator(evals, SEEDS, 10, place, limit)
        args = model, PLAIN, *jax.device_put(weights, place), {"digit"}, block
        for _ in range(2):
            together = evaluator.measure(*args)["eval"]
    np.testing.assert_array_equal(together.confusion, alone.confusion)
    for metric, values in alone.metrics.items():
        np.testing.assert_allclose(together.metrics[metric], values, rtol=1e-5)


def test_an_output_that_is_not_finite_is_counted_once(images, conv_net):
    model, (params, state) = conv_net
    bias = params["heads"]["digit"]["bias"].at[1].set(np.nan)
    params = {**params, "heads": {"digit": {**params["heads"]["digit"], "bias": bias}}}
    evaluator = Evaluator({"eval": classification(images, "digit")}, SEEDS, 7)
    measured = evaluator.measure(model, PLAIN, params, state, {"digit"})["eval"]
    assert measured.not_finite.tolist() == [0, 32, 0]
    assert np.isnan(measured.metrics["loss"]).tolist() == [False, True, False]
    assert not_finite_lines({"eval": measured}, SEEDS) == [
        "evaluation 'eval': outputs are not finite (32 of seed 1), so its metrics are null"
    ]


def test_batches_grow_until_an_array_would_leave_the_cache():
    def rows(width):
        form = form_of(
            None, lambda model, params, state, x: {"logits": jnp.tanh(x)[:, :1]}, "logits"
        )
        inputs = jax.ShapeDtypeStruct((99, width), np.float32)
        return rows_at_once(batch_outputs, form, {}, State({}), inputs)

    assert [rows(width) for width in (2**4, 2**14, 2**16, 2**24)] == [256, 128, 32, 8]


def test_rows_of_batches():
    """At most so many, little filled up, and few different sizes."""
    assert batch_rows(30, 256) == 32 and batch_rows(1, 8) == 1
    for most in (8, 32, 256):
        sizes = {batch_rows(count, most) for count in range(most, 20 * most)}
        assert max(sizes) == most and len(sizes) <= 4
        for count in range(most, 20 * most):
            size = batch_rows(count, most)
            assert -(-count // size) * size - count < size and size >= most / 2
