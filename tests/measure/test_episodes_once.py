"""Evaluation on episodes applies what a learner leaves alone once to each example."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtl import data, models
from jaxtl.measure.episodes import adapts_convolutions, fixed_in_evaluation
from jaxtl.measure.evaluate import Evaluator
from jaxtl.methods import fewshot
from jaxtl.metrics import few_shot
from jaxtl.models import adapters
from jaxtl.plan import Method, State

CLASSES, PER_CLASS, SEEDS = 6, 8, (0, 1)
SGD = optax.sgd(0.3)


def dataset():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    inputs = rng.normal(size=(CLASSES, 5))[labels] + rng.normal(size=(len(labels), 5))
    return data.arrays(inputs.astype(np.float32), labels, name="blobs")


ROWS_SEEN = []


class Counted(nn.Module):
    """Counts the rows that it is applied to, when it runs."""

    @nn.compact
    def __call__(self, inputs):
        jax.debug.callback(lambda x: ROWS_SEEN.append(len(x.reshape(-1, 5))), inputs)
        return nn.tanh(nn.Dense(4, name="dense")(inputs))


def model(first=Counted, size=3):
    blocks = [models.Block("first", first()), models.Block("second", nn.Dense(4), nn.tanh)]
    return models.from_blocks(blocks, {"way": models.classes(size)})


def weights(network):
    init = jax.vmap(lambda seed: network.init(jax.random.key(seed), jnp.zeros((1, 5))))
    params, statistics = init(jnp.array(SEEDS))
    return params, State(statistics)


def measured(network, learner, ways=3):
    form = {"ways": ways, "shots": (1, 2), "queries": 4, "tasks": 50}
    evaluator = Evaluator({"new": few_shot(dataset(), "way", learner=learner, **form)}, SEEDS)
    return evaluator.measure(network, Method(), *weights(network), ())["new"].metrics


@pytest.mark.parametrize(
    "learner",
    [
        fewshot.prototypical(),
        fewshot.maml(SGD, num_steps=2, patterns=("backbone/second/.*", "heads/.*")),
    ],
    ids=lambda learner: learner.name,
)
def test_each_example_once_and_the_same_answers(learner):
    network = model()
    params = jax.tree.map(lambda leaf: leaf[0], weights(network)[0])
    assert fixed_in_evaluation(learner, network, params) == (
        "first" if learner.changes else "second"
    )
    ROWS_SEEN.clear()
    once = measured(network, learner)
    jax.effects_barrier()
    # Whole batches, of which the last may be filled up; 50 episodes have 900 rows.
    assert sum(ROWS_SEEN) <= len(SEEDS) * 2 * CLASSES * PER_CLASS
    each_time = measured(network, dataclasses.replace(learner, changes=(".*",)))
    for metric in ("accuracy", "loss", "accuracy_margin"):
        np.testing.assert_allclose(once[metric], each_time[metric], rtol=1e-5)
    assert len(set(once["loss"])) == len(SEEDS)


def test_a_head_may_have_more_classes_than_an_episode():
    few, many = (
        measured(model(lambda: nn.Dense(5), size), fewshot.prototypical(), ways=2)
        for size in (2, 5)
    )
    for metric in ("accuracy", "loss"):
        np.testing.assert_allclose(few[metric], many[metric], rtol=1e-6)


def test_what_may_not_be_computed_once():
    plain = model(lambda: nn.Dense(5))
    params = plain.init(jax.random.key(0), jnp.zeros((1, 5)))[0]
    asked = {
        "all changes": (fewshot.maml(SGD), None),
        "the queries decide": (fewshot.prototypical(transductive=True), None),
        "the head": (fewshot.anil(SGD), "second"),
        "features": (fewshot.ridge_head(learned=False), "second"),
    }
    for learner, block in asked.values():
        assert fixed_in_evaluation(learner, plain, params) == block
    adapted = adapters.lora(plain, ["backbone/first/kernel"], rank=1)
    params = adapted.init(jax.random.key(0), jnp.zeros((1, 5)))[0]
    assert fixed_in_evaluation(fewshot.anil(SGD), adapted, params) is None
    assert fixed_in_evaluation(fewshot.prototypical(), adapted, params) == "second"


@pytest.mark.parametrize(
    ("learner", "adapts"),
    [
        (fewshot.maml(SGD), True),
        (fewshot.maml(SGD, patterns=("backbone/conv_0/.*",)), True),
        (fewshot.prototypical(transductive=True), False),
    ],
)
def test_kernels_of_several_episodes_are_no_grouped_convolution(learner, adapts):
    network = models.conv_4({"way": models.classes(3)}, width=3, downsampling="stride")
    params, statistics = jax.eval_shape(
        jax.vmap(lambda key: network.init(key, jnp.zeros((1, 8, 8, 1)))),
        jax.random.split(jax.random.key(0), 2),
    )
    inputs = np.zeros((4, 8, 8, 1), np.uint8)
    assert adapts_convolutions(learner, network, params, State(statistics), inputs) == adapts
    dense = model(lambda: nn.Dense(5))
    inputs = np.zeros((4, 5), np.float32)
    assert not adapts_convolutions(learner, dense, *weights(dense), inputs)
