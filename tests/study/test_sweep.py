"""Points of a sweep: which share a program, that they train as they would alone, what is picked."""

import dataclasses
import io
import logging
import re
import signal
import types

import jax
import numpy as np
import optax
import pytest
from rich.console import Console
from tiny import OPTIONS, blobs

from jaxtl import models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.paths import flatten
from jaxtl.plan import Experiment, Method, Stage, labelled, maximize
from jaxtl.study.experiment import run_experiment
from jaxtl.study.progress import Reporter
from jaxtl.study.run import Run
from jaxtl.study.traced import Sweep
from jaxtl.train import loop
from jaxtl.train.dispatch import programs, shared
from jaxtl.train.signals import Interrupted
from jaxtl.train.store.checkpoints import Checkpoints, restore_weights

CONFIG = {
    "rate": 0.05,
    "decay": 0.0,
    "weight": 1.0,
    "lambda_": 0.5,
    "ema": 0.5,
    "shift": 0.0,
    "slope": 1.0,
    "width": 8,
    "schedule": 0.1,
}
SOURCE, TARGET, OTHER = blobs("source"), blobs("target", 24, 1.0, seed=1), blobs("other", 30)
VALIDATION, TEST = blobs("validation", 30, 1.0, seed=3), blobs("test", 30, 1.0, seed=2)


def scaled(model, slope):
    return dataclasses.replace(model, before=lambda inputs: model.before(inputs * slope))


def build(values, select=None):
    """Each field of CONFIG reaches another part of the experiment."""
    c = {**CONFIG, **values}
    heads = {"source": models.classes(3), "target": models.classes(3)}
    model = models.mlp(heads, hidden=(c["width"],))
    if "slope" in values:
        model = scaled(model, c["slope"])
    adam = optax.adamw(c["rate"], weight_decay=c["decay"])
    warm = optax.sgd(optax.warmup_cosine_decay_schedule(0.0, c["schedule"], 2, 9))
    target = TARGET if c["shift"] == 0 else blobs("target", 24, 1.0 + c["shift"], seed=1)
    joint = [
        labelled(target, "target", weight=c["weight"]),
        labelled(OTHER, "source", weight=c["lambda_"]),
    ]
    pretrain = Stage(
        "pretrain",
        model,
        transfer.full(optax.adam(0.05)),
        domains=[labelled(SOURCE, "source")],
        batch_size=8,
        num_steps=9,
    )

    def adapt(name, method, domains=joint[:1]):
        return Stage(
            name,
            model,
            method,
            domains=domains,
            batch_size=8,
            num_steps=9,
            fresh=("heads/target/.*",),
        )

    full = dataclasses.replace(transfer.full(adam), ema=c["ema"] if "ema" in values else None)
    return Experiment(
        arms={
            "scratch": [adapt("scratch", transfer.full(warm))],
            "full": [pretrain, adapt("full", full)],
            "joint": [pretrain, adapt("joint", full, joint)],
            "ridge": [pretrain, dataclasses.replace(adapt("ridge", transfer.ridge()), num_steps=0)],
        },
        baseline="scratch",
        evals={
            "target": classification(TEST, "target"),
            "validation": classification(VALIDATION, "target"),
        },
        primary=maximize("target", "accuracy"),
        select=select,
        select_every=3,
        analyses=(),
    )


def run(directory, points, seeds=(0, 1), arms=("full",), build=build, options=OPTIONS, **values):
    """(summary, what was printed); the experiment itself has the values, a sweep the points."""
    configs = [{**CONFIG, **values, **point} for point in points]
    sweep = Sweep(points, configs, lambda point: build({**values, **point})) if points else None
    output = io.StringIO()
    asked = Run("tiny", {**CONFIG, **values}, "0", seeds, arms, directory, options)
    reporter = Reporter(Console(file=output, width=300))
    return run_experiment(build(values), asked, reporter, sweep), output.getvalue()


def per_seed(arm):
    return {name: values["per_seed"] for name, values in arm["metrics"].items()}


def weights(directory, stage):
    last = max((directory / "stages" / stage / "checkpoints").glob("*"), key=lambda p: p.name)
    return flatten(restore_weights(last / "state")[0])


@pytest.mark.parametrize(
    ("field", "values", "arm"),
    [
        ("rate", (0.003, 0.3), "full"),
        pytest.param("decay", (0.5, 20.0), "full", marks=pytest.mark.slow),
        pytest.param("weight", (0.1, 3.0), "joint", marks=pytest.mark.slow),
        pytest.param("lambda_", (0.0, 4.0), "joint", marks=pytest.mark.slow),
        pytest.param("ema", (0.9, 0.1), "full", marks=pytest.mark.slow),
    ],
)
def test_replicas_train_as_points_would_alone(tmp_path, field, values, arm):
    points = [{field: value} for value in values]
    extra = {"ema": 0.5} if field == "ema" else {}
    summary, output = run(tmp_path / "sweep", points, arms=(arm,), **extra)
    assert f"pretrain as it is; {arm} in one program" in output
    folder = tmp_path / "sweep" / "sweep" / f"{field}={values[0]},{values[1]}"
    together = weights(folder, arm)
    for i, point in enumerate(points):
        alone, _ = run(tmp_path / str(i), [], arms=(arm,), **{**extra, **point})
        expected = weights(tmp_path / str(i), arm)
        for path, leaf in expected.items():
            np.testing.assert_allclose(together[path][2 * i : 2 * i + 2], leaf, 2e-4, 2e-5)
        found = per_seed(summary["sweep"][i]["arms"][arm])
        for name, numbers in per_seed(alone["arms"][arm]).items():
            np.testing.assert_allclose(found[name], numbers, rtol=1e-4, err_msg=name)
    first, second = (together["heads/target/kernel"][i] for i in (0, 2))
    assert not np.allclose(first, second, rtol=1e-3)


@pytest.mark.slow
def test_points_and_seeds_that_come_later_train_alone(tmp_path):
    def begun(text):
        """Where the stage is trained, as it is or at which points, and of which seeds."""
        lines = [line for line in text.splitlines() if line.startswith("stage full")]
        lines = [line for line in lines if "found finished" not in line]
        return [line.split(":")[0].removeprefix("stage full") for line in lines]

    first, second, third = ({"rate": rate} for rate in (0.003, 0.3, 0.04))
    before, said = run(tmp_path, [first, second])
    assert begun(said) == ["", " at rate=0.003,0.3"]
    wider, said = run(tmp_path, [first, third, second])
    assert begun(said) == [" at rate=0.04"] and "as some points were trained before" in said
    points = {point["config"]["rate"]: point["arms"]["full"] for point in wider["sweep"]}
    assert points.keys() == {0.003, 0.04, 0.3}
    for point in before["sweep"]:
        assert per_seed(points[point["config"]["rate"]]) == per_seed(point["arms"]["full"])
    more, said = run(tmp_path, [first, second], seeds=(0, 1, 2))
    assert begun(said) == [", seed 2", " at rate=0.003,0.3, seed 2"]
    for old, new in zip(before["sweep"], more["sweep"], strict=True):
        for name, values in per_seed(old["arms"]["full"]).items():
            assert per_seed(new["arms"]["full"])[name][:2] == values
    alone, _ = run(tmp_path / "alone", [], seeds=(2,), rate=0.3)
    expected = per_seed(alone["arms"]["full"])
    for name, values in per_seed(more["sweep"][1]["arms"]["full"]).items():
        np.testing.assert_allclose(values[2:], expected[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("field", "values", "why"),
    [
        ("width", (4, 5), "width is not a float"),
        ("shift", (1.0, 2.0), "shift cannot be traced (TracerBoolConversionError)"),
        pytest.param("slope", (0.5, 2.0), "the model reads slope", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_what_decides_more_than_a_number_has_a_program_for_each_value(tmp_path, field, values, why):
    summary, output = run(tmp_path, [{field: value} for value in values])
    assert f"full in 2 programs as {why}" in output
    found = [point["arms"]["full"] for point in summary["sweep"]]
    assert per_seed(found[0]) != per_seed(found[1])
    kinds = {"width": "pretrain, full in 2", "shift": "pretrain as it is"}
    assert kinds.get(field, "pretrain, full in 2 programs") in output


@pytest.mark.slow
def test_a_schedule_that_branches_on_its_value_has_programs_of_replicas_of_the_rest(tmp_path):
    points = [{"schedule": 0.3, "rate": rate} for rate in (0.1, 0.2)]
    points += [{"schedule": 0.6, "rate": rate} for rate in (0.1, 0.2)]
    _, output = run(tmp_path, points, arms=("scratch", "full"))
    assert "scratch, full in 2 programs as schedule cannot be traced (Tracer" in output
    assert "pretrain as it is" in output
    folders = {path.name for path in (tmp_path / "sweep").iterdir()}
    assert folders == {f"schedule={value};rate=0.1,0.2" for value in (0.3, 0.6)}


def test_one_program_for_all_points_and_seeds(tmp_path, monkeypatch):
    shared._compiled.clear()
    made, make = [], programs.make_dispatch

    def spy(replicas, *args):
        def lower(*given):
            made.append(len(replicas))
            return make(replicas, *args).lower(*given)

        return types.SimpleNamespace(lower=lower)

    monkeypatch.setattr(programs, "make_dispatch", spy)
    run(tmp_path, [{"rate": rate} for rate in (0.01, 0.02, 0.04)])
    assert made == [2, 2, 6]


@pytest.mark.parametrize(("field", "lead"), [("rate", 2), ("weight", 6)])
@pytest.mark.slow
def test_points_share_the_columns_of_a_seed_if_they_are_the_same(
    tmp_path, monkeypatch, field, lead
):
    seen, make = [], loop.make_program

    def spy(replicas, *args):
        program = make(replicas, *args)
        seen.append({len(leaf) for leaf in jax.tree.leaves(program.feed.per_replica)})
        return program

    monkeypatch.setattr(loop, "make_program", spy)
    run(tmp_path, [{field: value} for value in (0.1, 0.2, 0.3)])
    assert seen[-1] == {lead}


def test_the_experiment_itself_is_not_trained_again(tmp_path):
    summary, output = run(tmp_path, [{"rate": 0.05}, {"rate": 0.5}])
    assert "1 more point." in output
    numbers = [tuple(map(int, pair)) for pair in re.findall(r"stage (\d+) of (\d+)", output)]
    assert numbers == [(i + 1, len(numbers)) for i in range(3)]  # the first stage is shared
    assert summary["sweep"][0]["arms"] == summary["arms"]


@pytest.mark.slow
def test_a_closed_form_has_a_replica_for_each_point(tmp_path):
    points = [{"weight": 1e-3}, {"weight": 2.0}]
    summary, output = run(tmp_path, points, arms=("ridge",))
    assert "pretrain as it is; ridge in one program" in output
    for i, point in enumerate(points):
        alone, _ = run(tmp_path / str(i), [], arms=("ridge",), **point)
        assert per_seed(summary["sweep"][i]["arms"]["ridge"]) == per_seed(alone["arms"]["ridge"])


@pytest.mark.slow
def test_a_point_that_diverges_is_missing_and_the_others_are_not(tmp_path, caplog):
    def steep(values):
        plan = build({})
        pretrain, last = plan.arms["full"]
        method = transfer.full(optax.sgd(values.get("rate", 0.05)))
        last = dataclasses.replace(last, method=method)
        return dataclasses.replace(plan, arms={"full": [pretrain, last]}, baseline="full")

    summary, _ = run(tmp_path, [{"rate": 1e38}, {"rate": 0.1}], build=steep)
    lost, kept = (point["arms"]["full"] for point in summary["sweep"])
    assert lost["metrics"]["target/accuracy"]["per_seed"] == [None, None]
    assert {failure["stage"] for failure in lost["failed_seeds"]} == {"full"}
    assert None not in kept["metrics"]["target/accuracy"]["per_seed"]
    assert "seed 0 at rate=1e+38 is not finite" in caplog.text


@pytest.mark.slow
def test_a_stopped_sweep_ends_with_the_same_bits(tmp_path, monkeypatch):
    points = [{"rate": 0.01}, {"rate": 0.3}]
    whole, _ = run(tmp_path / "whole", points)
    save, stops = Checkpoints.save, []

    def save_and_stop(self, step, state):
        save(self, step, state)
        if step == 5 and len(stops) < 3:
            stops.append(self.directory)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "save", save_and_stop)
    for _ in range(9):
        try:
            again, _ = run(tmp_path / "stopped", points)
            break
        except Interrupted:
            continue
    assert len(stops) == 3 and any("sweep" in str(directory) for directory in stops)
    for one, other in zip(whole["sweep"], again["sweep"], strict=True):
        assert per_seed(one["arms"]["full"]) == per_seed(other["arms"]["full"])
    log = "sweep/rate=0.01,0.3/stages/full/metrics.jsonl"
    assert (tmp_path / "whole" / log).read_bytes() == (tmp_path / "stopped" / log).read_bytes()


@pytest.mark.slow
def test_the_point_is_picked_by_validation_and_not_by_the_test(tmp_path):
    def build_selecting(values):
        return build(values, maximize("validation", "accuracy"))

    points = [{"rate": 1e-5}, {"rate": 0.05}, {"rate": 0.3}]
    summary, _ = run(tmp_path, points, build=build_selecting)
    accuracy = [
        p["arms"]["full"]["metrics"]["validation/accuracy"]["mean"] for p in summary["sweep"]
    ]
    picked = summary["tuned"]["full"]
    assert picked["config"] == points[int(np.argmax(accuracy))]
    assert accuracy[0] < max(accuracy)
    assert (
        picked["metrics"] == summary["sweep"][int(np.argmax(accuracy))]["arms"]["full"]["metrics"]
    )
    unselected, _ = run(tmp_path / "none", points[:1])
    assert unselected["tuned"] == {}


def test_every_point_is_checked_before_any_work(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    def odd(values):
        plan = build({})
        if values.get("rate") == 9.0:
            stage = dataclasses.replace(plan.arms["full"][-1], method=Method())
            return dataclasses.replace(plan, arms={**plan.arms, "full": [stage]})
        return plan

    with pytest.raises(ValueError, match=r"sweep, rate=9.0: stage 'full': 9 steps"):
        run(tmp_path, [{"rate": 0.1}, {"rate": 9.0}], build=odd)
    assert not (tmp_path / "stages").exists()

    def renamed(values):
        plan = build({})
        stage = dataclasses.replace(plan.arms["full"][-1], name=f"full_{values.get('rate', 0)}")
        return dataclasses.replace(plan, arms={**plan.arms, "full": [plan.arms["full"][0], stage]})

    with pytest.raises(ValueError, match="their names must not depend on what is swept"):
        run(tmp_path, [{"rate": 0.1}], build=renamed)


@pytest.mark.slow
def test_a_loaded_stage_must_fit_every_point(tmp_path):
    run(tmp_path / "source", [])
    options = dataclasses.replace(OPTIONS, source_run=str(tmp_path / "source"))
    message = r"sweep, width=4: stage 'pretrain' is loaded from another run, and its parameters"
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "sweep", [{"width": 4}], options=options)
    swept, output = run(tmp_path / "sweep", [{"rate": 0.3}], options=options)
    assert "pretrain as it is; full in one program" in output
    alone, _ = run(tmp_path / "alone", [], options=options, rate=0.3)
    found, expected = (per_seed(each["arms"]["full"]) for each in (swept["sweep"][0], alone))
    assert found == expected
