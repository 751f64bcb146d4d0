"""summary.json: its keys, its numbers, and merging runs."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from jaxtl.measure.results import ArmResult
from jaxtl.plan import maximize, minimize
from jaxtl.report.earlier import merge
from jaxtl.report.summary import load_summary, summarize, write_summary

SEEDS = (0, 1, 2)


def two_arms(**arm):
    """scratch with accuracies 0.7, 0.8, 0.9 and an arm `full` with 0.8, 0.8, 1.0."""
    scratch = {"t/accuracy": np.array([0.7, 0.8, 0.9]), "t/loss": np.array([1.0, 2.0, 3.0])}
    full = {"t/accuracy": np.array([0.8, 0.8, 1.0]), "t/loss": np.array([0.5, 1.0, 1.5])}
    return {
        "scratch": ArmResult("scratch", ("scratch",), scratch),
        "full": ArmResult("full", ("pretrain", "full"), **{"metrics": full, **arm}),
    }


PRIMARY = maximize("t", "accuracy")


@pytest.fixture
def small(make):
    declared = (PRIMARY, minimize("t", "loss"))
    return make(SEEDS, arms=two_arms(), primary=PRIMARY, declared=declared)


def test_keys_are_those_other_programs_read(result):
    summary = summarize(result)
    assert list(summary) == [
        "experiment", "config", "seeds", "baseline", "selection", "primary", "arms",
        "directions", "evaluations", "made_from",
    ]  # fmt: skip
    assert set(summary["primary"]) == {"metric", "direction"}
    fixed = {"metrics", "verdict", "trainable_parameters", "total_parameters"}
    fixed |= {"train_seconds", "steps_per_second", "seeds_to_decide"}
    assert set(summary["arms"]["scratch"]) == fixed
    assert summary["arms"]["scratch"]["verdict"] is None
    assert set(summary["arms"]["dann"]) == fixed | {"gain"}
    assert set(summary["arms"]["partial"]) == fixed | {"gain", "forgetting"}
    partial = summary["arms"]["partial"]
    assert set(partial["metrics"]["target/accuracy"]) == {"mean", "std", "ci95", "per_seed"}
    assert set(partial["gain"]["target/accuracy"]) == {"mean", "ci95", "per_seed"}
    assert set(partial["forgetting"]["source/accuracy"]) == {"mean", "ci95", "per_seed"}
    assert [arm["verdict"] for arm in summary["arms"].values()] == [
        None, "positive", "positive", "negative", "undecided",
    ]  # fmt: skip


def test_values_by_hand(small):
    full = summarize(small)["arms"]["full"]
    accuracy, gain = full["metrics"]["t/accuracy"], full["gain"]["t/accuracy"]
    half = 4.302652729911275 / np.sqrt(3)  # t quantile 0.975 with two degrees of freedom
    np.testing.assert_allclose(accuracy["mean"], 2.6 / 3)
    np.testing.assert_allclose(accuracy["std"], np.sqrt(0.04 / 3))
    ends = 2.6 / 3 + np.array([-1, 1]) * half * np.sqrt(0.04 / 3)
    np.testing.assert_allclose(accuracy["ci95"], ends)
    assert accuracy["per_seed"] == [0.8, 0.8, 1.0]
    np.testing.assert_allclose(gain["per_seed"], [0.1, 0.0, 0.1], atol=1e-12)
    expected = stats.ttest_rel([0.8, 0.8, 1.0], [0.7, 0.8, 0.9]).confidence_interval(0.95)
    np.testing.assert_allclose(gain["ci95"], expected)
    assert full["verdict"] == "undecided"
    assert full["seeds_to_decide"] == 6  # t 2.571 * 0.0577 / sqrt(6) < 0.0667 < t 2.776 / sqrt(5)
    assert summarize(small)["arms"]["scratch"]["seeds_to_decide"] is None
    assert list(full)[2:5] == ["verdict", "seeds_to_decide", "trainable_parameters"]
    assert full["gain"]["t/loss"]["per_seed"] == [0.5, 1.0, 1.5]  # a smaller loss is a gain


def test_the_primary_direction_is_that_of_the_experiment(make):
    primary = minimize("t", "accuracy")
    gain = summarize(make(SEEDS, arms=two_arms(), primary=primary))["arms"]["full"]["gain"]
    np.testing.assert_allclose(gain["t/accuracy"]["per_seed"], [-0.1, 0.0, -0.1], atol=1e-12)


def test_no_gain_is_said_of_a_metric_whose_direction_nobody_declares(make):
    arms = two_arms()
    for arm, values in zip(arms.values(), ([0.5, 0.5, 0.5], [0.1, 0.2, 0.3]), strict=True):
        arm.metrics["worst/error_rate"] = np.array(values)
        arm.metrics["t/badness"] = np.array(values)
    run = make(SEEDS, arms=arms, primary=PRIMARY, declared=[minimize("t", "badness")])
    summary = summarize(run)
    assert summary["directions"] == {"t/accuracy": "max", "t/badness": "min"}
    full = summary["arms"]["full"]
    np.testing.assert_allclose(full["gain"]["t/badness"]["per_seed"], [0.4, 0.3, 0.2])
    assert full["gain"].keys() == {"t/accuracy", "t/badness"}
    assert full["difference"].keys() == {"worst/error_rate", "t/loss"}
    np.testing.assert_allclose(full["difference"]["worst/error_rate"]["mean"], -0.3)
    assert merge(summary, summary) == summary


def test_undefined_numbers_are_null(make, tmp_path):
    metrics = {"t/accuracy": np.array([0.8, np.nan, 1.0]), "t/f1": np.full(3, np.nan)}
    config = {"rate": np.float32(np.inf), "shape": (1, np.int64(2)), "path": tmp_path}
    run = make(SEEDS, arms=two_arms(metrics=metrics), primary=PRIMARY, config=config)
    write_summary(tmp_path / "summary.json", summarize(run))
    text = (tmp_path / "summary.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    full = summary["arms"]["full"]
    assert full["metrics"]["t/accuracy"]["per_seed"] == [0.8, None, 1.0]
    assert full["metrics"]["t/accuracy"]["mean"] == pytest.approx(0.9)
    nothing = {"mean": None, "std": None, "ci95": None, "per_seed": [None] * 3}
    assert full["metrics"]["t/f1"] == nothing
    np.testing.assert_allclose(full["gain"]["t/accuracy"]["mean"], 0.1)
    assert full["gain"]["t/accuracy"]["per_seed"][1] is None
    assert "t/f1" not in full["gain"]  # the baseline has none
    assert full["failed_seeds"] == [{"seed": 1, "stage": None, "step": None}]
    assert summary["config"] == {"rate": None, "shape": [1, 2], "path": str(tmp_path)}


def test_one_seed_is_undecided_without_interval(make):
    full = summarize(make((4,)))["arms"]["full"]
    assert full["verdict"] == "undecided"
    assert full["gain"]["target/accuracy"]["ci95"] is None
    assert full["metrics"]["target/accuracy"]["std"] is None


@pytest.mark.parametrize("order", [("scratch", "full"), ("full", "scratch")])
def test_arms_of_two_runs_merge_into_the_summary_of_one(small, order):
    runs = [summarize(dataclasses.replace(small, arms={name: small.arms[name]})) for name in order]
    assert runs[order.index("full")]["arms"]["full"]["gain"] == {}
    assert runs[order.index("full")]["arms"]["full"]["verdict"] == "undecided"
    stored = json.loads(json.dumps(runs[0]))
    assert merge(stored, runs[1]) == summarize(small)


def test_a_rerun_baseline_moves_the_gains_of_earlier_arms(small):
    worse = ArmResult("scratch", ("scratch",), {"t/accuracy": np.array([0.1, 0.1, 0.3])})
    again = summarize(dataclasses.replace(small, arms={"scratch": worse}))
    merged = merge(summarize(small), again)["arms"]["full"]
    np.testing.assert_allclose(merged["gain"]["t/accuracy"]["per_seed"], [0.7] * 3)
    assert merged["verdict"] == "undecided"  # the same in every seed


def test_sweeps_merge_by_point(swept):
    whole = summarize(swept)
    assert [point["config"] for point in whole["sweep"]] == [
        {"target_weight": 0.1}, {"target_weight": 1.0}, {"target_weight": 10.0},
    ]  # fmt: skip
    assert [point["arms"]["full"]["verdict"] for point in whole["sweep"]][1:] == ["positive"] * 2

    def only(name):
        sweep = [(fields, {name: arms[name]}) for fields, arms in swept.sweep]
        return summarize(dataclasses.replace(swept, sweep=sweep))

    assert merge(only("scratch"), only("full"))["sweep"] == whole["sweep"]
    assert merge(whole, summarize(dataclasses.replace(swept, sweep=())))["sweep"] == whole["sweep"]


def test_written_summary_reads_back(result, tmp_path):
    path = tmp_path / "summary.json"
    write_summary(path, {"old": True})
    write_summary(path, summarize(result))
    assert load_summary(path) == summarize(result)
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("text, message", [("{", "not JSON"), ("{}", "lacks experiment")])
def test_broken_summary_says_what_to_do(tmp_path, text, message):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError, match=f"summary.json.*{message}.*--workdir"):
        load_summary(tmp_path / "summary.json")
