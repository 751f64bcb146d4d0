"""The best parameters by validation: each replica its own, whatever stops the stage."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import optax
import pytest
from tiny import (  # noqa: F401
    OPTIONS,
    assert_same,
    blobs,
    experiment,
    mlp_stage,
    run_tiny,
    train,
)

from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.paths import flatten
from jaxtl.plan import Experiment, Stage, labelled, maximize, minimize
from jaxtl.train.signals import Interrupted
from jaxtl.train.state import Validation
from jaxtl.train.store.checkpoints import restore_weights

KERNEL = "heads/source/kernel"


def wandering(ema=None):
    """A stage whose parameters go up and down."""
    method = dataclasses.replace(transfer.full(optax.sgd(0.5, momentum=0.95)), ema=ema)
    return dataclasses.replace(mlp_stage(17), method=method)


class Looking:
    """A validation that remembers; what it measures is up to the parameters alone."""

    def __init__(self, sign=1):
        self.seen = []
        metric = (maximize if sign == 1 else minimize)("validation", "size")
        self.validation = Validation(metric, 5, self.measure)

    def measure(self, params, state):
        kernel = np.asarray(flatten(params)[KERNEL], np.float64)
        self.seen.append(jax.tree.map(np.asarray, (np.cos(5 * kernel.sum((1, 2))), params)))
        return {"validation/size": self.seen[-1][0]}


@pytest.mark.parametrize("ema", [None, 0.8])
@pytest.mark.parametrize("sign", [1, -1])
def test_each_replica_ends_with_its_best_validation(tmp_path, sign, ema):
    looking = Looking(sign)
    run = train(wandering(ema), tmp_path, seeds=(0, 1, 2), validation=looking.validation)
    assert len(looking.seen) == 4  # steps 5, 10, 15 and the last
    values = np.array([value for value, _ in looking.seen])
    best = np.argmax(sign * values, axis=0)
    assert len(set(best.tolist())) > 1
    for replica, at in enumerate(best):
        for path, leaf in flatten(looking.seen[at][1]).items():
            np.testing.assert_array_equal(flatten(run.params)[path][replica], leaf[replica])
    rows = np.isfinite(run.curves["validation/size"][:, 0])
    np.testing.assert_array_equal(run.curves["step"][rows], [5, 10, 15, 17])
    np.testing.assert_allclose(run.curves["validation/size"][rows], values)
    last = tmp_path / "checkpoints" / "17" / "state"
    assert_same(restore_weights(last)[0], run.params)


def test_a_look_changes_nothing_but_what_is_kept(tmp_path):
    looking = Looking()
    train(wandering(), tmp_path / "looked", validation=looking.validation)
    plain = train(wandering(), tmp_path / "plain")
    assert_same(looking.seen[-1][1], plain.params)


def test_stopped_anywhere_it_ends_with_the_same_bits(tmp_path):
    whole = train(wandering(0.8), tmp_path / "whole", validation=Looking().validation)

    def stop(step, metrics):
        if step < 15:
            os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(20):
        try:
            run = train(
                wandering(0.8), tmp_path / "cut", progress=stop, validation=Looking().validation
            )
            break
        except Interrupted:
            continue
    assert_same(run.params, whole.params)
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_a_value_that_is_not_finite_is_never_the_best(tmp_path):
    values = iter([[np.nan, 1.0], [2.0, np.nan], [1.0, 0.5], [np.nan, np.nan]])
    seen = []

    def measure(params, state):
        seen.append(np.asarray(flatten(params)[KERNEL]))
        return {"v": np.array(next(values))}

    run = train(wandering(), tmp_path, validation=Validation(maximize("v"), 5, measure))
    np.testing.assert_array_equal(flatten(run.params)[KERNEL][0], seen[1][0])
    np.testing.assert_array_equal(flatten(run.params)[KERNEL][1], seen[0][1])


VALIDATION = blobs("validation", 30, 1.0, seed=5)
LOSS = minimize("validation", "loss")


def selecting(metric=LOSS, validation=VALIDATION, every=2) -> Experiment:
    plan = experiment(steps=9)
    evals = {**plan.evals, "validation": classification(validation, "target")}
    return dataclasses.replace(plan, evals=evals, select=metric, select_every=every)


@pytest.mark.slow
def test_an_experiment_evaluates_the_selected_parameters_of_the_stages_that_end_an_arm(tmp_path):
    summary, _ = run_tiny(tmp_path, plan=selecting(), seeds=(0, 1))
    assert summary["selection"] == "best validation/loss of every 2 steps, each seed"
    for name, ends in {"scratch": True, "pretrain": False}.items():
        lines = (tmp_path / "stages" / name / "metrics.jsonl").read_text().splitlines()
        found = [line["validation/loss"] for line in map(json.loads, lines) if len(line) > 2]
        assert len(found) == (5 if ends else 0)
        if ends:
            measured = summary["arms"][name]["metrics"]["validation/loss"]["per_seed"]
            np.testing.assert_allclose(measured, np.min(found, axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            selecting(minimize("target", "accuracy")),
            "select 'target/accuracy' reads 30 examples of evaluation 'validation'",
        ),
        (
            selecting(validation=blobs("same as test", 30, 1.0, seed=2)),
            "reads 30 examples of evaluation 'target' .* select by validation data",
        ),
        (selecting(minimize("validation", "los")), "unknown metric to select by 'validation/los'"),
        (selecting(every=0), "select_every must be at least 1, got 0"),
    ],
)
def test_selection_by_test_data_or_by_nothing_is_refused(tmp_path, plan, message):
    if "target/accuracy" in message:  # the test set itself, under another name
        twin = {**plan.evals, "validation": plan.evals["target"]}
        plan = dataclasses.replace(plan, evals=twin, select=maximize("target", "accuracy"))
    with pytest.raises(ValueError, match=message):
        run_tiny(tmp_path, plan=plan)
    assert not (tmp_path / "stages").exists()


@pytest.mark.slow
def test_best_parameters_go_on_to_the_next_stage(tmp_path):
    """A stage that ends one arm and begins another hands on what was selected."""
    plan = selecting()
    pretrain = plan.arms["full"][0]
    domains = [labelled(blobs("target", 24, 1.0, seed=1), "target")]
    first = Stage(
        "first",
        pretrain.model,
        transfer.full(optax.sgd(0.3)),
        domains=domains,
        batch_size=8,
        num_steps=9,
    )
    idle = dataclasses.replace(
        first, name="idle", method=transfer.full(optax.sgd(0.0)), num_steps=1
    )
    arms = {"scratch": [first], "idle": [first, idle]}
    summary, _ = run_tiny(tmp_path, plan=dataclasses.replace(plan, arms=arms))
    one, two = (summary["arms"][arm]["metrics"]["target/loss"]["per_seed"] for arm in arms)
    np.testing.assert_allclose(two, one, rtol=0.2)
    kernels = [
        flatten(restore_weights(tmp_path / "stages" / name / "checkpoints" / step / "state")[0])
        for name, step in {"first": "9", "idle": "1"}.items()
    ]
    np.testing.assert_array_equal(*(found["heads/target/kernel"] for found in kernels))
