"""Everything that is refused before any work starts, each with what was wrong and what is near."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Body, blobs, experiment, stages

from jaxtl import data, models
from jaxtl.measure.declarations import declaration_problems
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import Derived, classification, regression
from jaxtl.models import classes
from jaxtl.plan import (
    Evaluation,
    Experiment,
    Method,
    Stage,
    Update,
    labelled,
    maximize,
    minimize,
    unlabelled,
)
from jaxtl.study.checks.experiments import check_arms, leaks, plan_stages

SGD = optax.sgd(0.1)
replace = dataclasses.replace


def plan(experiment, arms=None, seeds=(0, 1)):
    return plan_stages(experiment, arms or experiment.arms, seeds)


def refused(experiment, *expected, **more):
    """The message; each of `expected` stands in it."""
    with pytest.raises(ValueError) as error:
        plan(experiment, **more)
    for text in expected:
        assert text in str(error.value), str(error.value)
    return str(error.value)


def with_adapt(**changes):
    """The tiny experiment with another second stage of its arm `full`."""
    tiny = experiment()
    pretrain, adapt = tiny.arms["full"]
    return replace(tiny, arms={**tiny.arms, "full": [pretrain, replace(adapt, **changes)]})


def with_domain(*domains):
    return with_adapt(domains=list(domains))


def with_eval(name="target", **changes):
    tiny = experiment()
    changed = replace(tiny.evals[name], **changes)
    return replace(tiny, evals={**tiny.evals, name: changed})


def labels_of(values, name="odd", inputs=None):
    inputs = np.zeros((len(values), 5), np.float32) if inputs is None else inputs
    return data.arrays(inputs, np.asarray(values), name=name)


def test_a_good_plan_has_parents_first_and_shared_stages_once():
    tiny = experiment()
    probe = replace(tiny.arms["full"][1], name="probe", method=transfer.probe(SGD))
    tiny = replace(tiny, arms={**tiny.arms, "probe": [tiny.arms["full"][0], probe]})
    nodes = plan(tiny)
    assert list(nodes) == ["scratch", "pretrain", "adapt", "probe"]
    assert [node.parent for node in nodes.values()] == [None, None, "pretrain", "pretrain"]
    assert list(plan(tiny, ["probe"])) == ["pretrain", "probe"]


# What trains, what is loaded.


def test_a_pattern_that_matches_nothing_names_the_closest_paths():
    method = transfer.partial(SGD, freeze=("backbone/body/dens/.*",))
    message = refused(with_adapt(method=method), "stage 'adapt'", "'backbone/body/dens/.*'")
    assert "backbone/body/dense/kernel" in message
    refused(with_adapt(fresh=("hed/target/.*",)), "'hed/target/.*' matched no", "heads/target/")
    refused(with_adapt(fresh=("heads/(",)), "'heads/(' is not a regular expression")


def test_fresh_and_frozen_is_refused_unless_the_method_allows_it():
    method = transfer.partial(SGD, freeze=("heads/target/.*",))
    refused(with_adapt(method=method), "fresh and frozen", "heads/target/bias, heads/target/kernel")
    plan(with_adapt(method=replace(method, fresh_frozen=True)))


def test_every_parameter_that_cannot_be_loaded_is_listed():
    heads = {"target": classes(3), "other": classes(2)}
    message = refused(
        with_adapt(model=models.mlp(heads, hidden=(8,)), fresh=("heads/other/.*",)),
        "stage 'adapt'",
        "cannot load 2 of 6 parameters from stage 'pretrain'",
        "backbone/dense_0/kernel: not there; closest: backbone/body/dense/kernel",
        "backbone/dense_0/bias: not there",
        "`fresh`",
    )
    assert "heads/target" not in message


def test_shapes_that_differ_are_listed_with_both():
    model = models.from_linen(Body(), {"target": classes(4)}, name="body")
    domains = [labelled(blobs("four", 24, ways=4), "target")]
    message = refused(with_adapt(model=model, domains=domains, fresh=()))
    assert "heads/target/kernel: there [8, 3], model [8, 4]" in message
    assert "heads/target/bias: there [3], model [4]" in message
    assert "cannot load 2 of" in message


def test_nothing_to_train_is_refused():
    update = transfer.supervised_update(optimizers=())
    refused(with_adapt(method=Method({}, (update,))), "stage 'adapt': nothing trains")
    only_source = Method({"all": (("heads/source/.*",), SGD)}, (transfer.supervised_update(),))
    refused(with_adapt(method=only_source), "trains nothing", "['target']")


def test_a_group_that_the_groups_before_leave_nothing_is_refused():
    groups = {"all": ((".*",), SGD), "heads": (("heads/.*",), SGD)}
    refused(with_adapt(method=transfer.grouped(groups)), "group 'heads'", "no parameter left")


def test_an_update_of_an_unknown_optimizer_is_refused():
    update = Update(transfer.supervised_update().loss, ("al",))
    refused(with_adapt(method=Method({"all": ((".*",), SGD)}, (update,))), "['al']", "['all']")


# Numbers of a stage.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_steps": -1}, "num_steps must not be negative, got -1"),
        ({"domains": []}, "has no domains"),
        ({"method": transfer.ridge()}, "6 steps, but its method has no updates"),
        ({"name": "a/b"}, "name must be that of a folder"),
        ({"name": ".."}, "name must be that of a folder"),
        ({"name": ""}, "name must be that of a folder"),
    ],
)
def test_wrong_numbers_and_names_of_a_stage(changes, expected):
    refused(with_adapt(**changes), expected, f"stage {changes.get('name', 'adapt')!r}")


def test_equal_names_of_unequal_stages_are_refused():
    tiny = experiment()
    pretrain, adapt = tiny.arms["full"]
    again = [replace(pretrain, num_steps=7), replace(adapt, name="adapt_2")]
    refused(
        replace(tiny, arms={**tiny.arms, "other": again}),
        "arm 'other': another stage is called 'pretrain' too",
    )
    after_scratch = [tiny.arms["scratch"][0], adapt]
    refused(
        replace(tiny, arms={**tiny.arms, "other": after_scratch}),
        "arm 'other': another stage is called 'adapt' too",
    )


def test_an_arm_without_stages_is_refused():
    tiny = experiment()
    refused(replace(tiny, arms={**tiny.arms, "none": []}), "arm 'none' has no stages")


# Domains.


def test_unknown_heads_and_columns():
    refused(with_domain(labelled(blobs("t"), "targt")), "unknown head 'targt'", "'target'?")
    domain = labelled(blobs("t"), {"target": "lable"})
    refused(with_domain(domain), "stage 'adapt'", "unknown label column of t: 'lable'", "'label'?")
    own = blobs("t").map(named_columns)
    refused(with_domain(labelled(own, "target")), "Domains of ['target'] and evaluations with col")
    plan(with_domain(labelled(own, ["target"])))
    bare = data.arrays(blobs("t").table().inputs, None)
    plan(with_domain(labelled(blobs("t"), "target"), unlabelled(bare, "target")))
    refused(with_domain(labelled(bare, "target")), "unknown label column of arrays: 'label'")


def named_columns(table):
    labels, classes = ({"target": held["label"]} for held in (table.labels, table.classes))
    return replace(table, labels=labels, classes=classes)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 3], "label 3 of column 'label' is outside the label space of head 'target'"),
        ([0.0, 1.0, 2.0, 1.0], "holds float32, head 'target' expects class indices"),
        ([[0, 1], [1, 0]], "has shape [2] an example, head 'target' expects []"),
    ],
)
def test_labels_that_do_not_fit_the_head(values, expected):
    refused(with_domain(labelled(labels_of(values), "target")), "dataset odd", expected)


def test_a_label_outside_the_head_is_found_in_the_rows_of_any_seed():
    dataset = labels_of([0, 1, 2] * 7 + [3]).take(8)
    late = next(seed for seed in range(1, 99) if 21 in dataset.rows(seed))
    early = next(seed for seed in range(99) if 21 not in dataset.rows(seed))
    domain = with_domain(labelled(dataset, "target"))
    plan(domain, seeds=(early,))
    refused(domain, "label 3 of column 'label'", seeds=(early, late))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_that_are_not_finite(bad):
    inputs = np.zeros((6, 5), np.float32)
    inputs[4, 1] = bad
    dataset = labels_of([0, 1, 2, 0, 1, 2], inputs=inputs)
    refused(with_domain(labelled(dataset, "target")), "dataset odd", "not finite", "row 4")


def test_an_empty_domain():
    empty = labels_of(np.zeros(0, np.int32), "nothing")
    refused(with_domain(labelled(empty, "target")), "nothing is empty")
    sliced = blobs("t").slice(5, 5)
    refused(with_domain(labelled(sliced, "target")), "slice(5, 5) has no examples (seed 0)")


def test_more_labels_a_class_than_there_are():
    refused(with_domain(labelled(blobs("t", 9).few(4), "target")), "fewer than 4 examples", "0 (3)")


@pytest.mark.parametrize("weight", [-0.5, np.nan, np.inf])
def test_weights_of_domains_must_be_finite_and_not_negative(weight):
    domain = labelled(blobs("t"), "target", weight=weight)
    refused(with_domain(domain), f"dataset t: weight must be finite and >= 0, got {weight}")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (lambda labels: -1.0 * labels["label"], "example_weights must be finite and >= 0, got -1"),
        (lambda labels: np.ones(3), "example_weights have the shape [3] for 40 examples"),
    ],
)
def test_weights_of_examples_are_checked(weights, expected):
    domain = labelled(blobs("t"), "target", example_weights=weights)
    refused(with_domain(domain), "stage 'adapt': dataset t", expected)


def test_domains_of_different_shapes_name_both_and_the_remedy():
    wide = data.arrays(np.zeros((6, 7), np.float32), [0, 1, 2] * 2, name="wide")
    domains = labelled(blobs("t"), "target"), unlabelled(wide, "target")
    refused(with_domain(*domains), "t has float32[5], wide has float32[7]", "resize")


# Evaluations, metrics, arms.


def test_evaluations_are_checked_like_domains():
    refused(with_eval(head="targt"), "evaluation 'target': unknown head 'targt'", "'target'?")
    refused(with_eval(column="lable"), "evaluation 'target': unknown label column")
    refused(with_eval(dataset=labels_of([0, 3])), "evaluation 'target': dataset odd: label 3")
    refused(with_eval(dataset=blobs("t").slice(2, 2)), "evaluation 'target'", "no examples")
    inputs = np.full((2, 5), np.nan, np.float32)
    refused(with_eval(dataset=labels_of([0, 1], inputs=inputs)), "evaluation 'target'", "finite")


def test_an_evaluation_whose_inputs_the_model_cannot_read():
    wide = data.arrays(np.zeros((6, 7), np.float32), [0, 1, 2] * 2, name="wide")
    refused(
        with_eval(dataset=wide),
        "evaluation 'target': the model of stage 'scratch' does not read the inputs of dataset",
        "dataset wide, float32[7]; it is trained on float32[5]",
    )


def test_an_evaluation_of_another_size_may_be_read_all_the_same():
    labels = np.arange(12) % 3

    def images(size):
        return data.arrays(np.zeros((12, size, size, 1), np.float32), labels, name=str(size))

    def mean(layer, x, train):
        return layer(x.mean((1, 2)))

    model = models.from_linen(nn.Dense(4), {"target": classes(3)}, call=mean)
    domains = [labelled(images(6), "target")]
    scratch = Stage(
        "scratch", model, transfer.full(SGD), domains=domains, batch_size=4, num_steps=2
    )
    evals = {"target": classification(images(9), "target")}
    plan(replace(experiment(), arms={"scratch": [scratch]}, evals=evals))


def test_an_arm_alone_is_planned_although_it_lacks_a_head_of_the_others():
    tiny = experiment()
    model = models.from_linen(Body(), {"target": classes(3)}, name="body")
    scratch = replace(tiny.arms["scratch"][0], model=model)
    tiny = replace(tiny, arms={**tiny.arms, "scratch": [scratch]})
    assert list(plan(tiny, ["scratch"])) == ["scratch"]
    assert set(plan(tiny)) == {"scratch", "pretrain", "adapt"}


def test_an_unknown_primary_metric_names_the_closest():
    tiny = replace(experiment(), primary=maximize("target", "acuracy"))
    message = refused(tiny, "unknown primary metric 'target/acuracy'", "'target/accuracy'?")
    assert "source/f1_macro" in message


def test_derived_metrics_are_known_and_what_they_read_is_checked():
    def worst(metrics):
        return min(metrics["target/accuracy"], metrics["source/acuracy"])

    tiny = replace(experiment(), derived={"worst": worst}, primary=maximize("worst"))
    message = refused(tiny, "derived metric 'worst': unknown metric 'source/acuracy'")
    assert "'source/accuracy'?" in message and "primary" not in message
    good = {"ratio": lambda metrics: 1 / (metrics["target/accuracy"] - metrics["source/accuracy"])}
    plan(replace(experiment(), derived=good, primary=maximize("ratio")))


def test_metrics_of_one_s_own():
    own = Evaluation(
        blobs("t"), "target", "label", lambda o, y, w: jnp.sum(w), lambda total: {"count": 1.0}
    )
    tiny = experiment()
    tiny = replace(tiny, evals={**tiny.evals, "own": own}, primary=maximize("own", "count"))
    plan(tiny)


def test_what_is_declared_of_metrics_must_be_true():
    """Directions of metrics that are not there or mean nothing, and choices that contradict one."""
    worst = {"worst": Derived(lambda metrics: metrics["target/loss"], "min")}
    tiny = replace(
        with_eval(directions={"acuracy": "max"}), derived=worst, primary=maximize("worst")
    )
    refused(
        replace(tiny, select=maximize("source", "loss")),
        "evaluation 'target': directions: unknown metric 'acuracy'. Did you mean 'accuracy'?",
        "primary metric 'worst' is better when smaller: primary=minimize('worst')",
        "select metric 'source/loss' is better when smaller: select=minimize('source', 'loss')",
    )
    wrong = {"worst": Derived(lambda metrics: 0.0, "lower")}
    refused(
        replace(with_eval(directions={"loss": "down"}), derived=wrong, primary=minimize("worst")),
        "metric 'loss' is better at 'max' or 'min', not 'down'",
        "derived metric 'worst' is better at 'max' or 'min', not 'lower'",
    )
    plan(replace(experiment(), derived=worst, primary=minimize("worst")))


def test_example_weights_are_refused_where_a_method_counts_all_alike():
    weighted = labelled(blobs("t"), "target", example_weights=lambda labels: labels["label"] + 1.0)
    plain = [labelled(blobs("t"), "target"), unlabelled(blobs("u"), "target")]
    near, ridge = adapt.unaligned(), adapt.unaligned(classifier=adapt.linear_ridge())

    def problems(method, *domains):
        tiny = with_adapt(method=method, domains=domains)
        lines = declaration_problems(tiny, dict.fromkeys(tiny.evals, ()))
        return [line for line in lines if "alike" in line]

    (message,) = problems(near, weighted, plain[1])
    assert message.startswith("stage 'adapt': its method counts all examples alike, but t has")
    assert problems(near, *plain) == problems(ridge, weighted, plain[1]) == []


def test_what_a_stage_trains_must_be_evaluations():
    refused(with_adapt(trains=["traget"]), "'adapt': trains: unknown evaluation 'traget'. Did you")
    with pytest.raises(ValueError, match="stage 'adapt': trains must be a list or tuple"):
        with_adapt(trains="target")


def test_metrics_that_do_not_fit_the_head():
    message = refused(
        replace(experiment(), evals={"target": regression(blobs("t"), "target")}),
        "evaluation 'target': its metrics do not fit head 'target'",
    )
    assert "primary" not in message


def test_unknown_arms_and_baselines():
    tiny = experiment()
    with pytest.raises(ValueError, match=r"unknown arm 'ful'. Did you mean 'full'\?"):
        check_arms(tiny, ["scratch", "ful"])
    with pytest.raises(ValueError, match=r"unknown baseline arm 'scrath'. Did you mean 'scratch'"):
        check_arms(replace(tiny, baseline="scrath"), ["full"])
    check_arms(tiny, ["full"])


def test_several_problems_are_reported_at_once_and_each_once():
    tiny = with_adapt(
        batch_size=0, num_steps=-2, domains=[labelled(blobs("t"), "targt", weight=-1)]
    )
    tiny = replace(tiny, primary=maximize("targt", "accuracy"))
    bad_eval = replace(tiny.evals["source"], column="nope")
    tiny = replace(tiny, evals={**tiny.evals, "source": bad_eval})
    message = refused(
        tiny,
        "batch_size must be at least 1",
        "num_steps must not be negative",
        "weight must be finite and >= 0",
        "evaluation 'source': unknown label column",
        "unknown primary metric",
    )
    assert len(message.splitlines()) == len(set(message.splitlines())) == 5


def test_a_problem_that_stages_and_evaluations_share_stands_once():
    tiny = experiment()
    inputs = np.full((3, 5), np.nan, np.float32)
    bad = labels_of([0, 1, 2], "bad", inputs)
    scratch, (pretrain, adapt) = tiny.arms["scratch"][0], tiny.arms["full"]
    scratch, adapt = (replace(s, domains=[labelled(bad, "target")]) for s in (scratch, adapt))
    arms = {"scratch": [scratch], "full": [pretrain, adapt]}
    evals = {**tiny.evals, "target": replace(tiny.evals["target"], dataset=bad)}
    message = refused(replace(tiny, arms=arms, evals=evals))
    assert message.startswith("stage 'scratch', stage 'adapt', evaluation 'target': dataset bad: ")
    assert len(message.splitlines()) == 1


def test_a_stage_after_a_broken_one_is_not_reported():
    pretrain, adapt = stages()
    tiny = experiment()
    pretrain = replace(pretrain, batch_size=0)
    message = refused(replace(tiny, arms={**tiny.arms, "full": [pretrain, adapt]}))
    assert message == "stage 'pretrain': batch_size must be at least 1, got 0"


# Leaks.


def test_test_examples_in_the_training_data_are_reported():
    tiny = experiment()
    shared = blobs("target_test", 30, 1.0, seed=2)
    leaky = replace(tiny.arms["scratch"][0], domains=[labelled(shared.slice(10, 14), "target")])
    tiny = replace(tiny, arms={**tiny.arms, "scratch": [leaky]})
    (line,) = leaks(tiny, plan(tiny))
    assert line == (
        "4 examples of evaluation 'target' (target_test) stand in the training data "
        "target_test.slice(10, 14) too"
    )
    assert leaks(experiment(), plan(experiment())) == []


def test_leaks_are_found_between_datasets_of_the_same_name():
    tiny = experiment()
    evals = {
        "target": classification(blobs("arrays", 30, 1.0, seed=2), "target"),
        "source": classification(blobs("arrays", 40), "source"),
    }
    domains = [labelled(blobs("arrays", 40), "source")]
    tiny = replace(tiny, evals=evals)
    pretrain, adapt = tiny.arms["full"]
    tiny = replace(tiny, arms={**tiny.arms, "full": [replace(pretrain, domains=domains), adapt]})
    (line,) = leaks(tiny, plan(tiny))
    assert line.startswith("40 examples of evaluation 'source' (arrays)")


def test_unlabelled_test_examples_are_not_called_a_leak():
    tiny = experiment()
    domains = [*tiny.arms["scratch"][0].domains, unlabelled(tiny.evals["target"].dataset, "target")]
    scratch = replace(tiny.arms["scratch"][0], domains=domains)
    tiny = replace(tiny, arms={**tiny.arms, "scratch": [scratch]})
    assert leaks(tiny, plan(tiny)) == []


def test_data_that_a_method_reads_have_its_names():
    model = models.mlp({"source": classes(3)}, hidden=(4,))
    ewc, plain = transfer.ewc(optax.sgd(0.1), strength=1.0), transfer.full(optax.sgd(0.1))
    domains = [labelled(blobs("new"), "source")]
    former = {"former": labelled(blobs("old", seed=1), "source")}

    def problem(method, **read):
        stage = Stage("one", model, method, domains=domains, batch_size=8, num_steps=2, **read)
        tests = {"test": classification(blobs("test"), "source")}
        plan = Experiment({"one": [stage]}, "one", tests, primary=maximize("test", "accuracy"))
        try:
            plan_stages(plan, ["one"], (0,), rehearsed=False)
        except ValueError as error:
            return str(error)
        return ""

    assert problem(ewc, data=former) == problem(plain) == ""
    assert "reads data called 'former', which is no domain of weight 0" in problem(ewc)
    assert "does not read data called 'former'" in problem(plain, data=former)
    assert "unknown head 'heaad'" in problem(ewc, data={"former": labelled(blobs("old"), "heaad")})
    wide = data.arrays(np.zeros((9, 6), np.float32), np.arange(9) % 3, name="wide")
    assert "inputs differ" in problem(ewc, data={"former": labelled(wide, "source")})
