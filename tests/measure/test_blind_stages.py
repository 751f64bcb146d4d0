"""Stages without labels are scored while they train, and the report says what they learned."""

import types

import jax
import numpy as np
import optax

from jaxtl import data, models
from jaxtl.measure.analyses.domain_gap import source_evaluations
from jaxtl.measure.analyses.representation import blind_stages, measure, panels
from jaxtl.methods import pretrain, transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, State, labelled, maximize, unlabelled
from jaxtl.study.checks.experiments import plan_stages
from jaxtl.study.validation import _choose
from jaxtl.transferability import feature_rank, linear_probe, nearest_neighbours

SGD = optax.sgd(0.1)
MODEL = models.mlp({"c": models.classes(2)}, hidden=(6,))


def table(name, seed, n=20):
    inputs = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return data.arrays(inputs, np.arange(n) % 2, name=name)


def experiment(select=None):
    seen, test = table("seen", 0), table("test", 1)

    def stage(name, method, domain, fresh=()):
        return Stage(name, MODEL, method, domains=[domain], batch_size=5, num_steps=3, fresh=fresh)

    blind = stage("blind", pretrain.scarf(SGD), unlabelled(seen))
    source = stage("source", transfer.full(SGD), labelled(seen, "c"))
    last = transfer.probe(SGD)
    return Experiment(
        arms={
            "source": [source, stage("after_source", last, labelled(seen, "c"))],
            "blind": [blind, stage("after_blind", last, labelled(seen, "c"), ("heads/.*",))],
        },
        baseline="source",
        evals={"test": classification(test, "c")},
        primary=maximize("test", "accuracy"),
        criteria={
            "near": nearest_neighbours(table("held", 2), "c"),
            "probe": linear_probe(table("held", 2), "c"),
            "rank": feature_rank(seen),
        },
        select=select,
    )


def test_criteria_look_at_a_stage_that_nothing_else_looks_at():
    chosen = experiment(select=maximize("rank"))
    nodes = plan_stages(chosen, chosen.arms, (0,), rehearsed=False)
    looks = {name: _choose(chosen, nodes, name) for name in nodes}
    assert looks["source"] is None  # it ends no arm, and its head has a metric
    assert looks["blind"].scored and looks["blind"].metric is None and not looks["blind"].read
    assert looks["after_blind"].metric.key == "criteria/rank"
    assert not source_evaluations(chosen)  # nothing is adapted


def test_the_features_of_a_blind_stage_are_measured():
    plan = experiment()
    params, statistics = MODEL.init(jax.random.key(0), np.zeros((1, 4), np.float32))
    trained = types.SimpleNamespace(
        params=jax.tree.map(lambda x: x[None], params),
        state=State(statistics),
    )
    arm = types.SimpleNamespace(
        stages=plan.arms["blind"], trained={"blind": trained}, experiment=plan, seeds=(0,)
    )
    assert [stage.name for stage in blind_stages(arm)] == ["blind"]
    values = measure(arm)
    what = ("effective rank", "nearest neighbours", "linear probe")
    assert values.keys() == {f"blind/test/{name}" for name in what}
    features = np.maximum(
        plan.evals["test"].dataset.table().inputs @ params["backbone"]["dense_0"]["kernel"], 0
    )
    singular = np.linalg.svd(np.float64(features), compute_uv=False)
    shares = singular / singular.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    np.testing.assert_allclose(values["blind/test/effective rank"], [expected], rtol=1e-5)


def test_collapse_is_said_in_words():
    values = {"one/test/effective rank": np.array([1.02, 6.0])}
    healthy = {"two/test/effective rank": np.array([7.0, 6.0])}
    panel = panels({"a": values, "b": healthy, "c": {}}, None)["representation"]
    assert "The features of one have collapsed" in panel.note and "two" not in panel.note
    assert list(panel.rows) == ["one", "two"]
    assert "None has collapsed" in panels({"b": healthy}, None)["representation"].note
    assert panels({"c": {}}, None) == {}
