"""Selection without labels of the target, and what the target's labels must not reach."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import blobs, body, mlp_stage, run_tiny

from jaxtl.losses import reversal_schedule
from jaxtl.measure.criteria import CriteriaScorer
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification
from jaxtl.plan import Criterion, Experiment, Stage, State, labelled, maximize, minimize, unlabelled
from jaxtl.transferability import criteria, neighborhood_density, source_accuracy

HELD_OUT, TEST = blobs("held out", 30, seed=4), blobs("target test", 30, 1.0, seed=2)
STEPS = 9


def target_set(garbage=False):
    dataset = blobs("target", 24, 1.0, seed=1)
    return (
        dataset.relabel("label", lambda table: 2 - table.labels["label"], [*"abc"])
        if garbage
        else dataset
    )


def adapting(garbage=False, **fields) -> Experiment:
    adam, model, target = optax.adam(1e-2), body(), target_set(garbage)
    domains = [labelled(blobs("source"), "source"), unlabelled(target, "source")]
    dann = adapt.dann(adam, reversal=reversal_schedule(STEPS))
    fields = {
        "criteria": criteria(HELD_OUT, target.take(20), "source"),
        "select_every": 4,
    } | fields
    return Experiment(
        arms={
            "source_only": [
                Stage(
                    "source_only",
                    model,
                    transfer.full(adam),
                    domains=domains[:1],
                    batch_size=8,
                    num_steps=STEPS,
                )
            ],
            "dann": [Stage("dann", model, dann, domains=domains, batch_size=8, num_steps=STEPS)],
        },
        baseline="source_only",
        evals={"target": classification(TEST, "source")},
        primary=maximize("target", "accuracy"),
        **fields,
    )


def logged(directory, stage):
    lines = (directory / "stages" / stage / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "criteria/snd" in line]


@pytest.mark.slow
def test_criteria_are_logged_and_pick_a_step_each(tmp_path):
    summary, _ = run_tiny(tmp_path, plan=adapting())
    assert "oracle" not in summary and summary["selection"] == "last step"
    for name, arm in summary["arms"].items():
        lines = logged(tmp_path, name)
        assert [line["step"] for line in lines] == [4, 8, 9]
        accuracy = np.array([line["target/accuracy"] for line in lines])
        assert list(arm["picks"]) == [
            *("last step", "source", "iwv", "dev", "snd", "entropy", "mixval", "rank average"),
        ]
        np.testing.assert_allclose(arm["picks"]["last step"]["per_seed"], accuracy[-1])
        best = np.argmax([line["criteria/snd"] for line in lines], axis=0)
        expected = np.take_along_axis(accuracy, best[None], 0)[0]
        np.testing.assert_allclose(arm["picks"]["snd"]["per_seed"], expected)
        found = arm["metrics"]
        np.testing.assert_allclose(found["target/accuracy"]["per_seed"], accuracy[-1])
        assert found["criteria/dev"]["per_seed"] == lines[-1]["criteria/dev"]


@pytest.mark.slow
def test_the_oracle_is_shown_when_asked_for_and_never_used(tmp_path):
    plain, _ = run_tiny(tmp_path / "plain", plan=adapting())
    asked, _ = run_tiny(tmp_path / "asked", plan=adapting(), oracle=True)
    for arm, shown in asked["oracle"].items():
        best = np.max([line["target/accuracy"] for line in logged(tmp_path / "asked", arm)], axis=0)
        np.testing.assert_allclose(shown["per_seed"], best)
    timed = {"train_seconds", "steps_per_second"}
    for arm, found in asked["arms"].items():
        for key in found.keys() - timed:
            assert found[key] == plain["arms"][arm][key]


@pytest.mark.slow
def test_select_by_a_criterion_ends_with_its_best_step(tmp_path):
    summary, _ = run_tiny(tmp_path, plan=adapting(select=maximize("snd")))
    assert summary["selection"] == "best criteria/snd of every 4 steps, each seed"
    for arm in summary["arms"].values():
        reached, picked = arm["metrics"]["target/accuracy"], arm["picks"]["snd"]
        np.testing.assert_allclose(reached["per_seed"], picked["per_seed"])
        assert arm["metrics"]["criteria/snd"]["per_seed"] is not None


def test_garbage_in_place_of_target_labels_changes_no_bit(tmp_path):
    plan, garbage = (adapting(g, select=maximize("dev")) for g in (False, True))
    summaries = [run_tiny(tmp_path / str(i), plan=one)[0] for i, one in enumerate((plan, garbage))]
    for arm in plan.arms:
        one, two = (summary["arms"][arm] for summary in summaries)
        assert one["metrics"] == two["metrics"] and one["picks"] == two["picks"]
        logs = [(tmp_path / str(i) / "stages" / arm / "metrics.jsonl") for i in range(2)]
        assert logs[0].read_bytes() == logs[1].read_bytes()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"criteria": {"leak": source_accuracy(TEST, "source")}},
            "criterion 'leak': it reads the labels of 30 examples of target test",
        ),
        ({"select": maximize("sdn")}, "unknown metric to select by 'sdn'. Did you mean 'snd'"),
        ({"select": minimize("snd")}, "better when larger"),
        ({"select_every": 0}, "select_every must be at least 1"),
        (
            {"criteria": {"snd": neighborhood_density(target_set(), "sourc")}},
            "criterion 'snd': unknown head 'sourc'. Did you mean 'source'",
        ),
    ],
)
def test_mistakes_are_found_before_any_work(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        run_tiny(tmp_path, plan=adapting(**fields))
    assert not (tmp_path / "stages").exists()


@pytest.mark.slow
def test_a_criteria_scorer_hides_labels_and_shares_what_criteria_look_at():
    seen = []

    def note(predict, target):
        seen.append({"labels": target["labels"]["source"], "features": target["features"]})
        return predict(target["inputs"])["features"].sum() - target["features"].sum()

    hidden = Criterion((unlabelled(target_set(), "source"),), note)
    known = Criterion((labelled(HELD_OUT, "source"),), lambda p, s: s["labels"]["source"].sum())
    scorer = CriteriaScorer(
        {"hidden": hidden, "again": hidden, "known": known}, (0, 1), batch_size=7
    )
    model = body()
    inputs = jnp.zeros((1, 5))
    params, statistics = jax.vmap(lambda s: model.init(jax.random.key(s), inputs))(jnp.arange(2))
    state = State(statistics)
    method = transfer.full(optax.adam(1e-2))
    scores = scorer.scores(model, method, params, state)
    assert list(scores) == ["criteria/hidden", "criteria/again", "criteria/known"]
    np.testing.assert_allclose(scores["criteria/hidden"], 0, atol=1e-3)
    np.testing.assert_array_equal(scores["criteria/known"], [30, 30])
    assert len(scorer._views) == 2 and seen[0]["features"] is seen[1]["features"]
    assert seen[0]["labels"].shape == (24,)
    other = Criterion(
        (unlabelled(target_set(), "source"),), lambda p, t: t["labels"]["source"].max()
    )
    found = CriteriaScorer({"o": other}, (0,), 8).scores(
        model, method, *jax.tree.map(lambda leaf: leaf[:1], (params, state))
    )
    np.testing.assert_array_equal(found["criteria/o"], [-1])


def test_no_labels_of_the_target_no_criteria_no_looks(tmp_path):
    plan = dataclasses.replace(adapting(), criteria={})
    summary, _ = run_tiny(tmp_path, plan=plan, oracle=True)
    assert summary["oracle"] == {}
    assert not any("picks" in arm for arm in summary["arms"].values())


@pytest.mark.slow
def test_an_arm_without_the_head_is_not_scored_and_cannot_be_selected(tmp_path):
    plan = adapting(criteria={"snd": neighborhood_density(target_set(), "target")})
    plan = dataclasses.replace(plan, arms={**plan.arms, "mlp": [mlp_stage(STEPS)]})
    summary, _ = run_tiny(tmp_path / "run", plan=plan)
    assert "picks" in summary["arms"]["dann"] and "picks" not in summary["arms"]["mlp"]
    assert logged(tmp_path / "run", "dann") and not logged(tmp_path / "run", "mlp")
    message = "select 'snd': the model that ends arm 'mlp' has no head 'target', which the criteria"
    with pytest.raises(ValueError, match=message):
        run_tiny(tmp_path / "selected", plan=dataclasses.replace(plan, select=maximize("snd")))
    assert not (tmp_path / "selected" / "stages").exists()
