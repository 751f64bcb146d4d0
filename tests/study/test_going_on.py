"""What forbids to go on from a directory, and what does not: edits of all kinds, seeds, arms."""

import dataclasses
import json
import shutil
import signal

import numpy as np
import optax
import pytest
from tiny import (
    OPTIONS,
    assert_same,
    blobs,
    experiment,
    mlp_stage,
    run_tiny,
    tiny_run,
)

from jaxtl import losses
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.plan import labelled
from jaxtl.report import wording
from jaxtl.study.continuation import refusal
from jaxtl.study.experiment import check
from jaxtl.train import loop
from jaxtl.train.resolve.contract import FAILED
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.signals import Interrupted
from jaxtl.train.store.blocks import spans
from jaxtl.train.store.checkpoints import Checkpoints, restore_block
from jaxtl.train.store.log import Log

replace = dataclasses.replace


def edited(stage: str = "adapt", **changes):
    """The tiny experiment with one stage changed wherever it stands."""
    plan = experiment()
    arms = {
        arm: [replace(each, **changes) if each.name == stage else each for each in chain]
        for arm, chain in plan.arms.items()
    }
    return replace(plan, arms=arms)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(directory, summary) of the tiny experiment with two seeds."""
    directory = tmp_path_factory.mktemp("finished")
    return directory, run_tiny(directory)[0]


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


def found(text):
    return sorted(line.split()[1].rstrip(":,") for line in text.splitlines() if "found" in line)


def finds(directory, plan=None, **more):
    """(stages of which nothing is to be trained, why a launch may not go on)."""
    run = tiny_run(directory, **more)
    plans = check(plan or experiment(), run).plans
    finished = [name for name, plan in plans.items() if plan.finished and not plan.problems]
    return sorted(finished), refusal(run, plans)


def refused(directory, plan=None, **more):
    """Why a launch may not go on."""
    return finds(directory, plan, **more)[1]


ALL_OF_IT = ["adapt", "pretrain", "scratch"], ""


def values(summary, arm="full"):
    return summary["arms"][arm]["metrics"]["target/accuracy"]["per_seed"]


def test_the_same_launch_finds_all_of_it(finished, copied):
    summary, said = run_tiny(copied)
    assert found(said) == ["adapt", "pretrain", "scratch"]
    assert summary["arms"] == finished[1]["arms"]


def test_a_comment_in_the_file_forbids_nothing(finished):
    assert finds(finished[0], digest="of a file with a comment more") == ALL_OF_IT


def test_the_order_of_seeds_and_fewer_of_them_forbid_nothing(finished):
    assert finds(finished[0], seeds=(1, 0)) == ALL_OF_IT
    assert finds(finished[0], seeds=(1,)) == ALL_OF_IT


def test_a_stage_of_an_earlier_version_is_named(copied):
    for path in copied.glob("stages/*/stage.json"):
        old = {"identity": {"stage": path.parent.name, "seeds": [0, 1]}, "finished": True}
        path.write_text(json.dumps(old))
    message = refused(copied)
    assert message.count("it was trained by an earlier version of jaxtl") == 3


def test_a_refused_launch_leaves_everything_as_it_is(finished):
    directory = finished[0]
    before = {p: p.stat().st_mtime_ns for p in directory.rglob("*") if p.name != ".lock"}
    with pytest.raises(ValueError, match="holds other results than this run would have"):
        run_tiny(directory, plan=edited(num_steps=7))
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.slow
def test_an_arm_more_trains_that_arm_alone(finished, copied):
    plan = experiment()
    pretrain, adapt = plan.arms["full"]
    late = replace(adapt, name="late", method=transfer.probe(optax.adam(1e-2)))
    plan = replace(plan, arms={**plan.arms, "probe": [pretrain, late]})
    summary, said = run_tiny(copied, plan=plan)
    assert found(said) == ["adapt", "pretrain", "scratch"] and "stage late: 6 steps" in said
    assert values(summary) == values(finished[1]) and "probe" in summary["arms"]


def test_code_of_the_report_forbids_nothing_and_that_of_a_loss_does(finished, monkeypatch):
    monkeypatch.setattr(wording, "answer", lambda summary: "42")
    assert finds(finished[0]) == ALL_OF_IT

    def doubled(*args):
        loss, metrics = losses.supervised(*args)
        return 2 * loss, metrics

    monkeypatch.setattr("jaxtl.methods.transfer.fine_tuning.supervised", doubled)
    message = refused(finished[0])
    assert message.count("the program of its training step") == 3
    assert "--overwrite=scratch,pretrain,adapt (" in message
    assert "initialises" not in message and "data" not in message


def swapped(table):
    labels = np.int32([1, 0, 2])[table.labels["label"]]
    return replace(table, labels={"label": labels})


def one_cell(table):
    inputs = np.array(table.inputs)
    inputs[3, 1] += 1e-6
    return replace(table, inputs=inputs)


TARGET = blobs("target", 24, 1.0, seed=1)
CHANGES = {
    "steps": ({"num_steps": 7}, "steps: there 6, now 7"),
    "batch": ({"batch_size": 4}, "batch_size: there 8, now 4"),
    "rate": (
        {"method": transfer.full(optax.adam(2e-2))},
        "the program of its training step",
    ),
    "fresh": ({"fresh": ("heads/.*",)}, "which of its parameters start anew"),
    "labels": (
        {"domains": [labelled(TARGET.map(swapped), "target")]},
        "domain 0 (target.map(swapped)): the data have changed",
    ),
    "one cell": (
        {"domains": [labelled(TARGET.map(one_cell), "target")]},
        "domain 0 (target.map(one_cell)): the data have changed",
    ),
    "weights": (
        {"domains": [labelled(TARGET, "target", example_weights=lambda y: y["label"] + 1.0)]},
        "domain 0 (target): the data have changed",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_stage_is_refused_in_words_and_nothing_else_is_named(finished, change):
    changes, words = CHANGES[change]
    message = refused(finished[0], edited(**changes))
    assert words in message and "stage 'adapt':" in message
    assert "stage 'pretrain'" not in message and "stage 'scratch'" not in message
    assert "Start over with --overwrite=adapt (" in message and "--workdir" in message


def test_data_that_are_called_otherwise_are_the_same(finished):
    plan = edited(domains=[labelled(blobs("moved", 24, 1.0, seed=1), "target")])
    assert finds(finished[0], plan) == ALL_OF_IT


def test_a_source_stage_that_changed_is_named_and_so_is_what_follows(finished):
    message = refused(finished[0], edited("pretrain", num_steps=7))
    assert "stage 'pretrain':\n    steps: there 6, now 7\n  stage 'adapt':\n" in message
    assert "    the stage before it\nStart over with --overwrite=pretrain (" in message


def solved(shift):
    """A closed form on the host that reads a number of its own."""

    def prepare(model, params, state, domains):
        head = dict(params["heads"]["target"], bias=params["heads"]["target"]["bias"] + shift)
        return {**params, "heads": {**params["heads"], "target": head}}, state

    return replace(transfer.probe(optax.sgd(0.0)), prepare=prepare)


def test_host_code_counts_by_what_it_does(tmp_path):
    plan = {shift: edited(method=solved(shift)) for shift in (1.0, 2.0)}
    run_tiny(tmp_path, arms=("full",), plan=plan[1.0])
    again = edited(method=solved(1.0))
    assert finds(tmp_path, again, arms=("full",)) == (["adapt", "pretrain"], "")
    message = refused(tmp_path, plan[2.0], arms=("full",))
    assert "stage 'adapt':\n    code of its method that runs on the host\n" in message


def test_an_evaluation_that_changed_is_said_and_measured_anew(finished, copied):
    plan = experiment()
    worse = blobs("target_test", 30, 1.0, seed=2).map(swapped)
    plan = replace(plan, evals={**plan.evals, "target": classification(worse, "target")})
    summary, said = run_tiny(copied, plan=plan, arms=("scratch",))
    assert "warning: evaluation 'target' has changed since the last report" in said
    assert found(said) == ["scratch"] and summary["arms"].keys() == {"scratch"}
    assert values(summary, "scratch") != values(finished[1], "scratch")


@pytest.mark.parametrize("mesh", ["", "data=4"])
def test_an_arm_that_is_not_run_stays_beside_the_others(finished, copied, mesh):
    summary = run_tiny(copied, arms=("scratch",), mesh=mesh)[0]
    assert summary["arms"].keys() == {"scratch", "full"}
    assert values(summary) == values(finished[1])


def test_an_arm_that_would_be_another_now_leaves_the_report(copied, caplog):
    summary = run_tiny(copied, plan=edited(num_steps=7), arms=("scratch",))[0]
    assert summary["arms"].keys() == {"scratch"}
    assert "arm full is left out: stage 'adapt' has changed (steps: there 6, now 7)" in caplog.text
    assert finds(copied) == ALL_OF_IT  # what was trained is still there


def test_later_seeds_are_a_block_of_their_own(finished, copied, tmp_path):
    full = {"arms": ("full",)}
    summary, said = run_tiny(copied, seeds=(0, 1, 2), **full)
    assert "stage adapt, seeds 0-1: found finished" in said and "stage adapt, seed 2: 6" in said
    assert "(2 finished before)" in said and "stage 4 of 4" in said
    block = copied / "stages" / "adapt" / "seeds-2"
    assert json.loads((block / "stage.json").read_text())["identity"]["seeds"] == [2]
    assert values(summary)[:2] == values(finished[1])
    alone = run_tiny(tmp_path / "alone", seeds=(2,), **full)[0]
    assert values(summary)[2:] == values(alone)
    assert_same(restore_block(block), restore_block(tmp_path / "alone" / "stages" / "adapt"))
    summary, said = run_tiny(copied, seeds=(2, 0), **full)
    assert len(found(said)) == 4 and "evaluation" not in said
    assert values(summary) == [values(alone)[0], values(finished[1])[0]]


@pytest.mark.slow
def test_some_seeds_of_a_block_that_is_not_finished_are_not_enough(tmp_path, monkeypatch):
    def save(self, step, train, whole=Checkpoints.save):
        whole(self, step, train)
        if step == 5:
            signal.raise_signal(signal.SIGTERM)

    scratch = {"arms": ("scratch",), "plan": experiment(steps=12)}
    with monkeypatch.context() as patch:
        patch.setattr(loop.Checkpoints, "save", save)
        with pytest.raises(Interrupted):
            run_tiny(tmp_path, **scratch)
    message = refused(tmp_path, seeds=(1, 2), **scratch)
    assert "the seeds 0-1 were stopped while they trained together: go on with 0 too" in message
    said = run_tiny(tmp_path, mesh="data=2", **scratch)[1]
    assert "stage scratch goes on in other surroundings" in said and "mesh: there '', now" in said
    assert "stage scratch goes on from step " in said
    assert "stage scratch: went on from step " in said


def test_what_starts_over_is_said_by_name(finished, copied):
    with pytest.raises(ValueError, match=r"unknown stage of --overwrite 'adopt'\. Did you mean"):
        finds(copied, overwrite=("adopt",))
    assert finds(copied, overwrite=("all",)) == ([], "")
    summary, said = run_tiny(copied, overwrite=("pretrain",))
    assert found(said) == ["scratch"] and values(summary) == values(finished[1])


def test_other_versions_of_the_libraries_compare_the_file_instead(copied):
    for path in copied.glob("stages/*/stage.json"):
        record = json.loads(path.read_text())
        record["made_with"]["versions"]["jax"] = "0.1"
        for name in ("programs", "parent"):
            record["identity"][name] = dict.fromkeys(record["identity"][name], "0")
        path.write_text(json.dumps(record))
    assert finds(copied) == ALL_OF_IT
    message = refused(copied, digest="another")
    assert "the experiment's file, some of whose code cannot be compared" in message


def test_later_seeds_that_all_fail_do_not_end_the_run(tmp_path, caplog):
    replicas = over_seeds(resolve(mlp_stage(), None), (2, 3))
    metrics = {FAILED: np.array([[4], [4]]), "loss": np.full((2, 1), np.nan)}
    for folder in ("full", "full/seeds-2-3"):
        (tmp_path / "stages" / folder).mkdir(parents=True)
    logs = [
        Log(tmp_path / "stages" / folder, OPTIONS, 9, replicas, 0)
        for folder in ("full", "full/seeds-2-3")
    ]
    with pytest.raises(ValueError, match="stage 'full': the loss is not finite in any seed"):
        logs[0].write(4, 1, dict(metrics))
    caplog.clear()
    assert logs[1].write(4, 1, dict(metrics))[0] == 5
    assert caplog.text.count("stage full: the loss of seed") == 2


def test_spans_of_seeds():
    assert spans([4, 0, 1, 2, 7]) == "0-2,4,7" and spans([3]) == "3"
