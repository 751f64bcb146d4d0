"""What reports say of several tasks: gains over each alone, what their losses weighed."""

import dataclasses
import types

import numpy as np
import pytest
from several_tasks import SGD, stage

from jaxtl.measure import TrainedArm, analyses
from jaxtl.measure.analyses.relative_gain import delta_p
from jaxtl.measure.analyses.task_weights import measure, panels, side_by_side, task_losses_logged
from jaxtl.measure.declarations import declaration_problems
from jaxtl.measure.results import ArmResult, Comparison
from jaxtl.methods import multitask
from jaxtl.metrics import classification, regression
from jaxtl.plan import Experiment, Line, Metric, maximize, minimize

ACCURACY, ERROR = "kind/accuracy", "size/rmse"
ALONE = {ACCURACY: "kind_alone", ERROR: "size_alone"}


def experiment(**fields):
    both = stage(multitask.joint(SGD, multitask.gls()))
    data = both.domains[0].dataset
    evals = {
        "kind": classification(data, "kind", column="kind"),
        "size": regression(data, "size", column="size"),
    }
    names = ("both", "kind_alone", "size_alone")
    arms = {name: [dataclasses.replace(both, name=name)] for name in names}
    primary = maximize("kind", "accuracy")
    return Experiment(arms, baseline="both", evals=evals, primary=primary, **fields)


def trained(arm, metrics, curves=None, failed=(0, 0), plan=None):
    parts = {name: types.SimpleNamespace(metrics=values) for name, values in metrics.items()}
    stages = {arm: types.SimpleNamespace(failed=np.array(failed), curves=curves or {})}
    return TrainedArm(arm, plan or experiment(), stages, {arm: parts}, (4, 7))


def test_relative_gains_are_signed_and_averaged_over_tasks():
    alone = {ACCURACY: np.array([0.8, 0.5]), ERROR: np.array([2.0, 0.0])}
    both = {ACCURACY: np.array([0.84, 0.6]), ERROR: np.array([2.5, 1.0])}
    gains = delta_p(both, alone, {ACCURACY: 1, ERROR: -1})
    np.testing.assert_allclose(gains[ACCURACY], [0.05, 0.2])
    np.testing.assert_allclose(gains[ERROR], [-0.25, np.nan])
    np.testing.assert_allclose(gains["mean of tasks"], [-0.1, np.nan])


def test_the_table_has_the_arms_that_train_all_tasks():
    analysis = analyses.relative_gain(ALONE)
    values = {"kind": {"accuracy": np.array([0.8, 0.9])}, "size": {"rmse": np.array([2.0, 4.0])}}
    measured = {
        "both": analysis.measure(trained("both", values, failed=(0, 3))),
        "kind_alone": analysis.measure(trained("kind_alone", {"kind": values["kind"]})),
        "size_alone": analysis.measure(trained("size_alone", values)),
    }
    how = {"selection": "", "baseline": "both", "primary": maximize("kind", "accuracy")}
    arms = {name: ArmResult(name, (name,), {}) for name in measured}
    declared = (Metric("size", "rmse", "min"),)
    comparison = Comparison(seeds=(4, 7), arms=arms, declared=declared, **how)
    table = analysis.panels(measured, comparison)["relative_gain"]
    assert list(table.rows) == ["both"] and table.signed and table.printed
    np.testing.assert_array_equal(table.rows["both"]["mean of tasks"], [0.0, np.nan])
    with pytest.raises(ValueError, match="no arm 'kind_alone' was trained"):
        analysis.panels({"both": measured["both"]}, comparison)


@pytest.mark.parametrize(
    ("alone", "line"),
    [
        ({"kind/acuracy": "kind_alone"}, "unknown metric 'kind/acuracy'. Did you mean"),
        ({ACCURACY: "kind_alon"}, "unknown arm 'kind_alon'. Did you mean 'kind_alone'"),
    ],
)
def test_a_wrong_name_is_said_before_anything_trains(alone, line):
    plan = experiment(analyses=[analyses.relative_gain(alone)])
    names = {"kind": ("loss", "accuracy", "macro_f1", "ece"), "size": tuple("lmr")}
    assert any(line in problem for problem in declaration_problems(plan, names))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"swept": ("bothh",)}, "swept: unknown arm 'bothh'. Did you mean 'both'"),
        ({"first": maximize("kind", "acuracy")}, "unknown metric 'kind/acuracy'. Did you mean"),
    ],
)
def test_a_wrong_name_of_a_trade_off_is_said_before_anything_trains(arguments, line):
    right = {"first": maximize("kind", "accuracy"), "second": minimize("size", "rmse")}
    plan = experiment(analyses=[analyses.trade_off(**right | arguments)])
    names = {"kind": ("loss", "accuracy", "macro_f1", "ece"), "size": tuple("lmr")}
    assert any(line in problem for problem in declaration_problems(plan, names))


def logged(losses, steps=3):
    ones = np.ones((steps, 2))
    curves = {"step": np.arange(steps), "weight_0": 3 * ones, "weight_1": -ones}
    return curves | {name: value * ones for name, value in losses.items()}


def test_weights_are_parts_of_their_sum_and_have_the_tasks_names():
    curves = logged({"kind_loss": 1.0, "size_loss": 9.0})
    measured = measure(trained("both", {}, curves))
    parts = {key: values[0, 0] for key, values in measured["both"].items() if key != "step"}
    assert parts == {
        "weight of kind": 0.75,
        "weight of size": -0.25,
        "weighted loss of kind": 0.25,
        "weighted loss of size": -0.75,
    }
    how = {"selection": "", "baseline": "both", "primary": maximize("kind", "accuracy")}
    comparison = Comparison(seeds=(4, 7), arms={"both": ArmResult("both", ("both",), {})}, **how)
    made = panels({"both": measured}, comparison)
    assert list(made) == ["task_weights", "weighted_losses"]
    assert made["task_weights"].limits == (-0.3, 1)
    assert measure(trained("both", {}, {"step": np.arange(3)})) is None


@pytest.mark.parametrize(
    ("losses", "count", "names"),
    [
        (["kind_loss", "size_loss"], 2, ["kind", "size"]),
        (["domain_0_loss", "domain_1_loss"], 2, ["d0", "d1"]),
        (
            [f"{head}_{d}_loss" for head in ("kind", "size") for d in (0, 1)],
            4,
            ["kind, d0", "kind, d1", "size, d0", "size, d1"],
        ),
        ([], 3, ["task 0", "task 1", "task 2"]),
    ],
)
def test_whose_the_losses_are(losses, count, names):
    several = stage(multitask.joint(SGD, multitask.gls()), domains=2)
    tasks = task_losses_logged(several, count, logged(dict.fromkeys(losses, 1.0)))
    assert list(tasks) == names
    assert [key for key in tasks.values() if key] == losses


def test_cosines_have_the_names_of_their_tasks():
    ones = np.ones((3, 2))
    curves = logged({"kind_0_loss": 1.0, "kind_1_loss": 2.0})
    agreement = {"conflicts": 0 * ones, "cosine": 0.5 * ones, "cosine_0_1": 0.25 * ones}
    pair = analyses.task_angles().measure(trained("both", {}, curves | agreement))["both"]
    assert pair["cosine, mean of pairs"][0, 0] == 0.5
    assert pair["cosine, task 0 and task 1"][0, 0] == 0.25
    how = {"selection": "", "baseline": "both", "primary": maximize("kind", "accuracy")}
    comparison = Comparison(seeds=(4, 7), arms={"both": ArmResult("both", ("both",), {})}, **how)
    made = analyses.task_angles().panels({"both": {"both": pair}}, comparison)
    assert len(made["task_angles"].lines) == 3
    assert analyses.task_angles().measure(trained("both", {}, curves)) is None


def test_many_arms_stand_in_columns_of_a_few():
    def lines(count):
        return [Line(f"a{i}", np.arange(2), np.ones((2, 1)), "w", "all") for i in range(count)]

    assert {line.column for line in side_by_side(lines(6))} == {"all"}
    columns = [line.column for line in side_by_side(lines(8))]
    assert columns == ["a0 to a3"] * 4 + ["a4 to a7"] * 4
