"""Which task helps which: gains paired by seed, in what is better, framed where decided."""

import dataclasses
import types

import numpy as np
import optax

from jaxtl import data, models
from jaxtl.measure.analyses.task_gains import in_words, measure_tasks, panels
from jaxtl.measure.results import ArmResult, Comparison
from jaxtl.methods import transfer
from jaxtl.metrics import classification, regression
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize, minimize

KEYS = {"a": np.array("a/accuracy"), "b": np.array("b_test/rmse")}
METRICS = {  # [seeds]
    "a": {"a/accuracy": [0.50, 0.60, 0.70]},
    "b": {"b_test/rmse": [2.0, 3.0, 5.0]},
    "a_b": {"a/accuracy": [0.61, 0.70, 0.79], "b_test/rmse": [1.0, 4.0, 4.0]},
    "again": {"a/accuracy": [0.0, 0.0, 0.0], "b_test/rmse": [9.0, 9.0, 9.0]},
}
TASKS = {
    "a": {"a": KEYS["a"]},
    "b": {"b": KEYS["b"]},
    "a_b": KEYS,
    "again": KEYS,
}


def comparison():
    arms = {
        name: ArmResult(name, (name,), {k: np.array(v) for k, v in metrics.items()})
        for name, metrics in METRICS.items()
    }
    declared = (maximize("a", "accuracy"), minimize("b_test", "rmse"))
    how = {"baseline": "a", "primary": declared[0], "declared": declared}
    return Comparison(seeds=(0, 1, 2), selection="last step", arms=arms, **how)


def test_gains_of_a_pair():
    shown = panels(TASKS, comparison())
    grid = shown["task_gains"].grids[""]
    assert (grid.rows, grid.columns) == (["a", "b"], ["a", "b"])
    expected = [[np.nan, 0.1], [1 / 3, np.nan]]  # errors that fall are gains
    np.testing.assert_allclose(grid.values, expected)
    assert grid.framed == [(0, 1)]
    assert (
        "Helped: a by b. Hurt: none. Undecided: 1 of 2; about one in twenty"
        in shown["task_gains"].note
    )
    np.testing.assert_allclose(shown["pairs"].rows["b with a"]["gain"], [1, -1, 1])


def test_without_pairs_or_single_tasks_nothing_is_shown():
    singles = {name: TASKS[name] for name in ("a", "b")}
    assert panels(singles, comparison()) == {}
    assert panels({"a_b": KEYS}, comparison()) == {}
    only_a = panels({"a": TASKS["a"], "a_b": KEYS}, comparison())["task_gains"].grids[""]
    assert (only_a.rows, only_a.columns) == (["a"], ["b"])


def test_in_words():
    verdicts = {("a", "b"): "positive", ("a", "c"): "positive", ("c", "a"): "negative"}
    words = in_words(verdicts)
    assert words.startswith("Helped: a by b, c. Hurt: c by a. Undecided: 0 of 3;")


def test_tasks_of_an_arm_are_the_heads_that_its_last_stage_teaches():
    labels = {"a": np.arange(9) % 2, "b": np.linspace(0, 1, 9), "c": np.arange(9) % 3}
    dataset = data.arrays(np.zeros((9, 2), np.float32), labels)
    model = models.mlp({"a": classes(2), "b": models.regression(), "c": classes(3)})

    def stage(*heads):
        domains = [labelled(dataset, list(heads))]
        method = transfer.full(optax.sgd(0.1))
        return Stage("_".join(heads), model, method, domains=domains, batch_size=2, num_steps=1)

    experiment = Experiment(
        arms={"pair": [stage("c"), stage("a", "b")], "c": [stage("c")], "all": [stage(*"abc")]},
        baseline="pair",
        evals={
            "a": classification(dataset, "a", column="a"),
            "b_test": regression(dataset, "b", column="b"),
        },
        primary=maximize("a", "accuracy"),
    )

    def measured(name, kinds=("accuracy", "rmse")):
        arm = types.SimpleNamespace(stages=experiment.arms[name], experiment=experiment)
        return measure_tasks(kinds, arm)

    assert measured("pair") == KEYS
    assert measured("pair", ("accuracy", "r2"))["b"] == "b_test/r2"
    assert measured("pair", ("accuracy",)) is None  # b has none
    assert measured("c") is None and measured("all") is None  # no evaluation; three tasks
    silent = dataclasses.replace(experiment.evals["a"], directions={"loss": "min"})
    experiment = dataclasses.replace(experiment, evals={**experiment.evals, "a": silent})
    assert measured("pair", ("loss",)).keys() == {"a", "b"}
