"""Alignments as stages of the engine: without steps, deployed, and the same when loaded."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import assert_same, blobs, train

from jaxtl import models
from jaxtl.methods import adapt
from jaxtl.plan import Stage, labelled, unlabelled
from jaxtl.train.rehearsal import rehearse
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve

METHODS = {
    "nearest": adapt.unaligned(),
    "coral": adapt.coral_map(regularization=1e-3),
    "meda": adapt.meda(dim=2, rounds=2, capacity=200),
    "tradaboost": adapt.tradaboost(rounds=4),
}
TARGET = blobs("target", 45, 6.0, seed=2)


def stage_of(name: str, method=None) -> Stage:
    domains = [labelled(blobs("source", 60), "class"), unlabelled(TARGET, "class")]
    if name == "tradaboost":
        domains.insert(1, labelled(blobs("few", 12, 6.0, seed=1), "class", role="target"))
    model = models.linear({"class": models.classes(3)})
    return Stage(name, model, method or METHODS[name], domains=domains, batch_size=8, num_steps=0)


def accuracy(stage, trained, replica):
    params, state = jax.tree.map(lambda leaf: leaf[replica], (trained.params, trained.state))
    table = TARGET.table()
    if stage.method.predict is None:
        output, _ = stage.model.apply(params, state.statistics, table.inputs)
    else:
        output = stage.method.predict(stage.model, params, state, table.inputs)
    return (np.asarray(output["logits"]["class"]).argmax(1) == table.labels["label"]).mean()


def test_alignments_are_deployed_and_loaded(tmp_path):
    found = {}
    for name in METHODS:
        stage = stage_of(name)
        first, again = (train(stage, tmp_path / name) for _ in range(2))
        assert_same(first.params, again.params)
        assert_same(first.state, again.state)
        found[name] = [accuracy(stage, again, replica) for replica in (0, 1)]
        assert found[name][0] == found[name][1]  # nothing is drawn
    for name in METHODS.keys() - {"nearest"}:
        assert found[name][0] > found["nearest"][0] + 0.1


@pytest.mark.parametrize("name", METHODS)
def test_a_stage_without_targets_is_refused_before_any_trains(name):
    stage = stage_of(name)
    domains = [dataclasses.replace(domain, role="source") for domain in stage.domains]
    setup = resolve(dataclasses.replace(stage, domains=domains), None)
    message = rf"{len(domains)} of {len(domains)} domains are sources \(source, .*role=\"target\""
    with pytest.raises(ValueError, match=message):
        rehearse(over_seeds(setup, (0,)), "arm")


def test_a_capacity_that_is_too_small_names_itself(tmp_path):
    stage = stage_of("nearest", adapt.unaligned(adapt.nearest_neighbour(capacity=30)))
    with pytest.raises(ValueError, match="60 examples are to be kept, but capacity is 30"):
        train(stage, tmp_path)
