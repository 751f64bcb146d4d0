"""Models whose heads read features of their own, trained: what moves, and what stays."""

import dataclasses
import functools
import re

import jax
import numpy as np
import optax
import pytest
from several_tasks import dataset
from tiny import OPTIONS, train

from jaxtl import models
from jaxtl.methods import multitask, transfer
from jaxtl.models import adapters, classes, regression
from jaxtl.paths import flatten
from jaxtl.plan import Columns, Stage, State, labelled
from jaxtl.train.resolve.stage import resolve

ADAMW = optax.adamw(0.05, weight_decay=0.1)
PLAIN = models.mlp({"kind": classes(3), "size": regression()}, hidden=(6, 5))


def stage(name, model, method, heads=("kind", "size"), **more):
    domains = [labelled(dataset(), list(heads))]
    return Stage(name, model, method, domains=domains, batch_size=8, num_steps=6, **more)


def trained(stage, directory, parent=None, **more):
    """({path: leaf [seeds, ...]}, setup, what the next stage starts from)."""
    setup, source = (None, None) if parent is None else parent[1:]
    result = train(stage, directory / stage.name, source=source, parent=setup, **more)
    state = result.params, result.state
    return flatten(result.params), resolve(stage, setup), state


@pytest.mark.slow
def test_a_task_without_labels_keeps_what_it_owns(tmp_path):
    model = models.mmoe(PLAIN, "dense_1", experts=2)
    rule = multitask.joint(ADAMW, multitask.pcgrad(), shared=("backbone/(?!.*_for_).*",))
    first = trained(stage("both", model, rule), tmp_path)
    second = stage("kind", model, transfer.full(ADAMW), ["kind"])
    last, *_ = trained(second, tmp_path, first)
    for path, before in first[0].items():
        idle = path.startswith("heads/size/") or path.endswith("gate_for_size/kernel")
        assert idle == np.array_equal(before, last[path]), path


@pytest.mark.slow
def test_adapters_of_tasks_on_a_frozen_backbone(tmp_path):
    first = trained(stage("first", PLAIN, transfer.full(ADAMW)), tmp_path)
    adapt = functools.partial(adapters.lora, targets=["backbone/dense_1/kernel"], rank=2)
    model = models.per_task(PLAIN, adapt, "lora")
    method = transfer.grouped({"all": (("lora_for_.*", "heads/.*"), ADAMW)})
    lasts = [
        trained(
            stage(f"cache_{cache}", model, method, fresh=("lora_for_.*",)),
            tmp_path,
            first,
            options=dataclasses.replace(OPTIONS, feature_cache=cache),
        )[0]
        for cache in (True, False)
    ]
    for path, leaf in lasts[0].items():
        np.testing.assert_allclose(leaf, lasts[1][path], rtol=1e-5, atol=1e-6)
        if path.startswith("backbone/"):
            np.testing.assert_array_equal(leaf, first[0][path])
        elif re.match(r"lora_for_.*/b", path):
            assert np.any(leaf)


def test_ridge_solves_each_head_on_what_it_reads():
    table, model = dataset().table(), models.mmoe(PLAIN, "dense_1", experts=2)
    params, statistics = model.init(jax.random.key(0), table.inputs)
    ones = {head: np.ones(60, np.float32) for head in PLAIN.heads}
    columns = Columns(table.inputs, table.labels, ones, np.ones(60, np.float32))
    method, state = transfer.ridge((1e-6,)), State(statistics)
    solved, _ = method.prepare(model, params, state, [columns])
    output = model.apply(solved, statistics, table.inputs)[0]
    x = np.hstack([np.float64(output["features"][:, 5:]), np.ones((60, 1))])
    best = x @ np.linalg.lstsq(x, table.labels["size"], rcond=None)[0]
    np.testing.assert_allclose(output["logits"]["size"][:, 0], best, atol=0.02)  # of 4 and more


def test_a_task_without_labels_trains_nothing_of_its_own():
    model = models.cgc(PLAIN, "dense_1")
    trainable = resolve(stage("kind", model, transfer.full(ADAMW), ["kind"]), None).trainable
    assert not any("size" in path for path in trainable)
    assert {"backbone/experts/gate_for_kind/kernel", "heads/kind/bias"} <= trainable
    stitched = models.cross_stitch(PLAIN, "dense_1")
    trainable = resolve(stage("kind", stitched, transfer.full(ADAMW), ["kind"]), None).trainable
    assert "backbone/dense_1/network_for_size/kernel" in trainable
