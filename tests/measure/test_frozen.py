"""Evaluation from the feature store: the same numbers, and the first blocks run once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from frozen_blocks import EVALUATED, Counted, chain
from test_evaluate import weights as initial
from tiny import Body, blobs

from jaxtl import data, models
from jaxtl.features import store
from jaxtl.measure.criteria import CriteriaScorer
from jaxtl.measure.evaluate import Evaluator
from jaxtl.measure.frozen import stored_features
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import adapters, classes
from jaxtl.plan import (
    Criterion,
    Experiment,
    Method,
    Stage,
    State,
    labelled,
    maximize,
    unlabelled,
)
from jaxtl.study.checks.experiments import plan_stages
from jaxtl.study.validation import block_at_end, frozen_block, make_evaluator, make_validation
from jaxtl.train.options import RunOptions

SEEDS, OPTIONS = (0, 1), RunOptions()
HEADS = {"digit": classes(3)}
RNG = np.random.default_rng(0)
PIXELS = RNG.normal(size=(50, 8, 8, 1)).astype(np.float32)
VALUES = RNG.normal(size=(50, 5)).astype(np.float32)
TOKENS = {
    "ids": RNG.integers(0, 99, (50, 6)).astype(np.int32),
    "mask": np.ones((50, 6), np.int32),
}
BERT = models.BertConfig(8, 1, 2, 16, vocabulary=100, positions=8)


def bert():
    return models.bert(BERT, HEADS, "mean", dropout=0.0)


CASES = {
    "convolutions": lambda: (models.conv_net(HEADS), PIXELS),
    "batch norm": lambda: (models.conv_net(HEADS, batch_norm=True), PIXELS),
    "transformer": lambda: (bert(), TOKENS),
    "lora": lambda: (adapters.lora(bert(), [r".*/(query|value)/kernel"], 2), TOKENS),
    "prompt": lambda: (adapters.prompt(bert(), 2), TOKENS),
    "one block": lambda: (models.from_linen(Body(), HEADS), VALUES),
}


LATE = [pytest.mark.slow]


@pytest.mark.parametrize(
    ("case", "held_once"),
    [
        ("lora", True),
        *(pytest.param(case, True, marks=LATE) for case in ("convolutions", "transformer")),
        *(pytest.param(case, False, marks=LATE) for case in CASES),
    ],
)
def test_wherever_a_model_is_cut_the_metrics_are_the_same(case, held_once):
    model, inputs = CASES[case]()
    examples = data.arrays(inputs, np.arange(50) % 3, name=case).few(10)
    row = jax.tree.map(lambda leaf: leaf[:1], inputs)
    params, statistics = jax.vmap(lambda seed: model.init(jax.random.key(seed), row))(
        jnp.array(SEEDS)
    )
    moved = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), params)
    if held_once:
        moved["backbone"] = jax.tree.map(lambda leaf: leaf[:1], moved["backbone"])
    args = model, Method(), moved, State(statistics)
    evaluator = Evaluator({"eval": classification(examples, "digit")}, SEEDS)
    scorer = CriteriaScorer({"mean": Criterion([unlabelled(examples, "digit")], mean_logit)}, SEEDS)
    expected = evaluator.measure(*args, {"digit"})["eval"]
    scores = scorer.scores(*args)["criteria/mean"]
    assert len(set(expected.metrics["loss"])) == 2
    for block in (model.blocks[0], model.blocks[-1]):
        measured = evaluator.measure(*args, {"digit"}, block)["eval"]
        for metric, values in expected.metrics.items():
            np.testing.assert_allclose(measured.metrics[metric], values, rtol=1e-4, err_msg=block)
    found = scorer.scores(*args, block)["criteria/mean"]
    np.testing.assert_allclose(found, scores, rtol=1e-4)


def mean_logit(predict, examples):
    """Of the examples, and of what the model says of their inputs, which is the same."""
    again = predict(examples["inputs"])
    return examples["logits"]["digit"].max(-1).mean() + again["features"].std()


def counted_arms():
    """Several ways on from one source model, whose block `a` they leave as it is."""
    model, adam = chain(Counted(), nn.Dense(7)), optax.adam(1e-2)
    target = [labelled(blobs("counted target", 16), "target")]
    source = [labelled(blobs("counted source", 16, seed=1), "source")]

    def stage(name, method, domains=target, steps=4, fresh=("heads/target/.*",)):
        return Stage(
            name, model, method, domains=domains, batch_size=8, num_steps=steps, fresh=fresh
        )

    pretrain = stage("pretrain", transfer.full(adam), source, fresh=())
    freeze = transfer.partial(adam, freeze=("backbone/a/.*",))
    return {
        "source_only": [pretrain],
        "probe": [pretrain, stage("probe", transfer.probe(adam))],
        "partial": [pretrain, stage("partial", freeze)],
        "ridge": [pretrain, stage("ridge", transfer.ridge(), steps=0)],
        "full": [pretrain, stage("full", transfer.full(adam))],
        "unsure": [pretrain, stage("unsure", freeze)],
    }


def test_first_blocks_are_evaluated_once_for_arms_and_validations():
    evals = {
        name: classification(blobs(f"counted {name}", 32, seed=seed), "target")
        for name, seed in {"one": 5, "two": 6}.items()
    }
    metric = maximize("one", "accuracy")
    experiment = Experiment(
        arms=counted_arms(), baseline="full", evals=evals, primary=metric, select=metric
    )
    nodes = plan_stages(experiment, tuple(experiment.arms), SEEDS)
    assert {name: block_at_end(nodes, name, OPTIONS) for name in nodes} == {
        "pretrain": "b", "probe": "b", "partial": "a", "ridge": "b", "full": None, "unsure": "a"
    }  # fmt: skip
    assert frozen_block(nodes["pretrain"].setup, OPTIONS) is None
    without = dataclasses.replace(OPTIONS, feature_cache=False)
    assert block_at_end(nodes, "probe", without) is None
    model = nodes["pretrain"].setup.stage.model
    params, state = initial(model, SEEDS)
    evaluator = make_evaluator(experiment, SEEDS, OPTIONS)
    EVALUATED.clear()

    def measure(name, params):
        stage, block = nodes[name].setup.stage, block_at_end(nodes, name, OPTIONS)
        return evaluator.measure(model, stage.method, params, state, {"target"}, block)

    measure("pretrain", params)
    jax.effects_barrier()
    assert EVALUATED["examples"] == 2 * 32 * 2  # evaluations, examples, seeds
    other_head = {**params, "heads": jax.tree.map(lambda leaf: leaf + 1.0, params["heads"])}
    measure("probe", other_head)
    measure("ridge", other_head)
    validation = make_validation(experiment, nodes, "probe", [evaluator], OPTIONS)
    looked_up = []
    for shift in range(3):
        head = jax.tree.map(lambda leaf, shift=shift: leaf + shift, params["heads"])
        validation.measure({**params, "heads": head}, state)
        looked_up.append(store().counts.from_memory)
    assert looked_up[0] == looked_up[-1]  # the same arrays are not even looked up again
    jax.effects_barrier()
    assert EVALUATED["examples"] == 2 * 32 * 2
    measure("partial", other_head)  # its features are others: those after `a`
    measure("unsure", params)
    jax.effects_barrier()
    assert EVALUATED["examples"] == 2 * (2 * 32 * 2)
    first = params["backbone"]["a"]
    changed = {**params["backbone"], "a": jax.tree.map(lambda leaf: leaf.at[1].add(0.1), first)}
    measure("probe", {**other_head, "backbone": changed})  # of one of the seeds
    jax.effects_barrier()
    assert EVALUATED["examples"] == 2 * (2 * 32 * 2) + 2 * 32


def test_an_embedding_is_looked_up_again():
    """Its rows take longer to store than to look up."""
    model = bert()
    row = jax.tree.map(lambda leaf: leaf[:1], TOKENS)
    params, statistics = jax.vmap(lambda seed: model.init(jax.random.key(seed), row))(
        jnp.array(SEEDS)
    )
    first = model.cut(model.blocks[0])[0]
    rows = dict.fromkeys(range(2), np.arange(50))
    assert stored_features(first, params, State(statistics), TOKENS, rows) is None
    second = model.cut(model.blocks[1])[0]
    assert len(stored_features(second, params, State(statistics), TOKENS, rows)) == 2
