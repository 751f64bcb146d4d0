"""The numbers behind panels, and an analysis of one's own from the experiment to the report."""

import dataclasses
import types

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import f1_score
from tiny import experiment, run_tiny

from jaxtl.measure import TrainedArm, analyses
from jaxtl.measure.analyses import features
from jaxtl.measure.analyses.classes import class_f1, class_names, mean_rates
from jaxtl.measure.analyses.classes import panels as class_panels
from jaxtl.measure.analyses.curves import chain_lines
from jaxtl.measure.outcome import analyse
from jaxtl.measure.results import ArmResult, Comparison
from jaxtl.plan import Analysis, Table, maximize


def comparison(stages):
    """Arms of these stages: {arm: names}."""
    arms = {name: ArmResult(name, chain, {}) for name, chain in stages.items()}
    how = {"baseline": next(iter(arms)), "primary": maximize("t", "accuracy")}
    return Comparison(seeds=(0, 1), selection="last step", arms=arms, **how)


def test_rows_of_the_confusion_are_rates_averaged_over_seeds():
    counts = np.array([[[3, 1, 0], [0, 4, 0], [0, 0, 0]], [[1, 1, 0], [2, 0, 2], [0, 0, 0]]])
    expected = [[0.625, 0.375, 0], [0.25, 0.5, 0.25], [np.nan] * 3]
    np.testing.assert_allclose(mean_rates(counts), expected)


def test_class_f1_agrees_with_scikit_learn():
    rng = np.random.default_rng(2)
    true, predicted = rng.integers(0, 4, (2, 3, 200))
    counts = np.zeros((3, 5, 5))  # class 4 never occurs
    for seed in range(3):
        np.add.at(counts[seed], (true[seed], predicted[seed]), 1)
    expected = [f1_score(t, p, average=None) for t, p in zip(true, predicted, strict=True)]
    np.testing.assert_allclose(class_f1(counts), [*np.mean(expected, axis=0), np.nan])


@pytest.mark.parametrize(
    "names, expected",
    [
        ((), ["0", "1", "2"]),
        (("a",), ["a", "output 1", "output 2"]),
        (("a", "b", "c", "d"), ["a", "b", "c"]),
        (("a", "a", "b"), ["a", "a", "b"]),
    ],
)
def test_every_output_has_a_label(names, expected):
    names = np.array(names, np.str_)
    small, large = ({"counts": np.ones((1, n, n)), "names": names} for n in (2, 3))
    assert class_names([small, large]) == expected


def test_gains_of_classes_are_differences_of_recalls():
    rng = np.random.default_rng(0)
    names = np.array(list("abc"))
    counts = {
        arm: {"target": {"counts": rng.poisson(9, (2, size, size)) + 1, "names": names}}
        for arm, size in (("scratch", 3), ("full", 3), ("wide", 4))
    }
    panels = class_panels(counts, comparison({arm: (arm,) for arm in counts}))
    assert list(panels) == ["per_class_target", "class_gains_target", "confusion_target"]
    recalls = {
        arm: np.mean([np.diag(c) / c.sum(1) for c in each["target"]["counts"]], axis=0)
        for arm, each in counts.items()
    }
    (grid,) = panels["class_gains_target"].grids.values()
    assert grid.rows == ["full", "wide"] and grid.columns == ["a", "b", "c", "output 3"]
    np.testing.assert_allclose(grid.values[0, :3], recalls["full"] - recalls["scratch"])
    np.testing.assert_allclose(grid.values[1, :3], recalls["wide"][:3] - recalls["scratch"])
    assert np.isnan(grid.values[:, 3]).all()


def test_principal_plane_agrees_with_scikit_learn():
    x = np.random.default_rng(3).normal(size=(50, 6)) @ np.diag([5, 3, 1, 1, 0.5, 0.1])
    places, fraction = features.principal_plane(x.astype(np.float32))
    pca = PCA(2).fit(x.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(np.abs(places), np.abs(pca.transform(x)), atol=1e-5)
    np.testing.assert_allclose(fraction, pca.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(features.principal_plane(-x)[0], -places, atol=1e-5)


def test_principal_plane_of_one_dimension():
    places, fraction = features.principal_plane(np.array([[1.0], [2.0], [6.0]]))
    np.testing.assert_allclose(places, [[-2, 0], [-1, 0], [3, 0]], atol=1e-12)
    np.testing.assert_allclose(fraction, [1, 0])


def test_a_hidden_label_has_no_name_and_an_unnamed_class_its_number():
    labels = features.class_labels(np.array([0, -1, 2]), ("cat",))
    assert labels.tolist() == ["cat", "", "2"]


def test_stages_of_a_chain_follow_each_other_and_a_source_stands_once():
    logged = {"step": np.arange(1, 4), "loss": np.ones((3, 2)), "late": np.full((3, 2), np.nan)}
    logged["late"][1] = 5.0
    chains = {"source_only": ("source",), "adapt": ("source", "a", "b"), "ridge": ("ridge",)}
    curves = {arm: dict.fromkeys(chain, logged) for arm, chain in chains.items()}
    curves["ridge"] = {}
    lines = chain_lines(curves, comparison(chains), ["loss", "late"])
    assert [(line.name, line.quantity, line.column) for line in lines] == [
        ("source", "loss", "Source stages"),
        ("source", "late", "Source stages"),
        *[("adapt", "loss", "Target stages"), ("adapt", "late", "Target stages")] * 2,
    ]
    np.testing.assert_array_equal(lines[4].x, [5, 6, 7])
    np.testing.assert_array_equal(lines[5].x, [6])
    np.testing.assert_array_equal(lines[5].values, [[5.0, 5.0]])


def best_class() -> Analysis:
    """An analysis as a stranger writes it: recall of the easiest class."""

    def measure(arm):
        counts = arm.at_end["target"].confusion
        return {"recall": (np.diagonal(counts, axis1=1, axis2=2) / counts.sum(2)).max(1)}

    def panels(arms, comparison):
        note = f"The largest recall, beside {comparison.primary.key}."
        rows = {name: {"largest": tree["recall"]} for name, tree in arms.items()}
        return {"best_class": Table("The easiest class", note, rows)}

    return Analysis("best_class", measure, panels, in_summary=True)


def test_an_analysis_of_ones_own_stands_in_summary_and_report(tmp_path):
    plan = dataclasses.replace(experiment(), analyses=[analyses.learning_curves(), best_class()])
    first, _ = run_tiny(tmp_path, plan=plan, arms=("scratch",))
    summary, _ = run_tiny(tmp_path, plan=plan, arms=("full",))
    assert first["arms"]["scratch"] == {**summary["arms"]["scratch"]}
    for arm in summary["arms"].values():
        assert arm["best_class"]["recall"].keys() == {"mean", "ci95", "per_seed"}
        assert len(arm["best_class"]["recall"]["per_seed"]) == 2
    panel = summary["panels"]["best_class"]
    assert panel["kind"] == "table" and panel["title"] == "The easiest class"
    for name, arm in summary["arms"].items():
        assert panel["rows"][name]["largest"] == arm["best_class"]["recall"]
    assert list(summary["panels"])[-1] == "best_class" and "curves" in summary["panels"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The easiest class" in page and "beside target/accuracy" in page


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([analyses.forgetting()], "analyses: 2 are called 'forgetting'; each needs its own name"),
        (
            [dataclasses.replace(best_class(), name="gain")],
            "none can be called 'gain', which summary.json",
        ),
        (["forgetting"], "experiment: analyses.* must be .*Analysis.*, got 'forgetting'"),
    ],
)
def test_mistakes_are_found_before_any_work(tmp_path, more, message):
    with pytest.raises(ValueError, match=message):
        plan = dataclasses.replace(experiment(), analyses=[*analyses.default(), *more])
        run_tiny(tmp_path, plan=plan)
    assert not (tmp_path / "stages").exists()


def arm_with(failed=(0, 0)):
    parts = types.SimpleNamespace(failed=np.array(failed), curves={"step": np.arange(2)})
    return TrainedArm("scratch", experiment(), {"scratch": parts}, {"scratch": {}}, (4, 7))


def asked(result, arm=None, in_summary=True):
    analysis = Analysis("mine", lambda arm: result, lambda arms, all: {}, in_summary=in_summary)
    return analyse(arm or arm_with(), [analysis])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1.0, 2.0], "measured must be a NumPy array or a dict of them by name, got"),
        ({"a": {1: np.ones(2)}}, r"measured\['a'\] must be a NumPy array or a dict of them"),
        ({"a": np.array([{}], object)}, r"measured\['a'\] must hold numbers or texts"),
        ({"a": np.ones(3)}, r"measured\['a'\] must be an array \[2\], a number for each seed"),
    ],
)
def test_what_is_no_nested_dict_of_arrays_is_said_to_be_wrong(result, message):
    measured, failures = asked(result)
    assert measured == {} and list(failures) == ["mine"]
    with pytest.raises(ValueError, match=message):
        raise ValueError(failures["mine"])


def test_a_seed_that_failed_is_undefined_and_nothing_is_no_result():
    measured, _ = asked({"a": np.ones(2), "b": {}}, arm_with(failed=(0, 3)))
    assert measured["mine"].keys() == {"a"}
    np.testing.assert_array_equal(measured["mine"]["a"], [1, np.nan])
    assert asked(None) == asked({}) == asked({"a": {}}) == ({}, {})
    whole, _ = asked({"counts": np.ones((5, 5)), "name": "x"}, in_summary=False)
    assert whole["mine"]["counts"].shape == (5, 5) and str(whole["mine"]["name"]) == "x"
