"""Points of a sweep whose field nothing but hidden code reads: each has the numbers of its own."""

import dataclasses
import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console
from tiny import OPTIONS, blobs

from jaxtl import models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.plan import Criterion, Experiment, Method, Stage, labelled, maximize
from jaxtl.study.checks.experiments import plan_stages
from jaxtl.study.experiment import run_experiment
from jaxtl.study.progress import Reporter
from jaxtl.study.run import Run
from jaxtl.study.same import (
    same_evaluations,
    same_outputs,
    same_selection,
    same_training,
)
from jaxtl.study.sweep import label
from jaxtl.study.traced import Point, Sweep, group_points

TRAIN, TEST = blobs("train", 24), blobs("test", 30, seed=2)
COUNTED = dict.fromkeys(
    ["constant", "called", "prepared", "started", "shown", "predicted", "typed"], 1
)
MEASURED = {"summed": 1, "made": 1}
CONFIG = {**COUNTED, **MEASURED}


class Body(nn.Module):
    """Three outputs that depend on how it starts, and in evaluation on a number."""

    start: float = 1.0
    shown: float = 1.0

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(3, kernel_init=nn.initializers.constant(self.start), name="dense")(x)
        return x if train else x * jnp.array([[1.0, self.shown, 1.0]])


def model_of(start=1.0, shown=1.0, loss=None):
    head = models.classes(3)
    head = head if loss is None else dataclasses.replace(head, loss=loss)
    return models.from_linen(Body(start, shown), {"target": head}, name="body")


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))


def weighted(heavy):
    """A loss with class weights that only a jitted function inside of it holds."""
    weights = jnp.array([1.0, heavy, 1.0])

    @jax.jit
    def weigh(losses, labels):
        return losses * weights[labels]

    return lambda logits, labels: weigh(cross_entropy(logits, labels), jnp.maximum(labels, 0))


def called(number):
    """A loss whose factor comes from the host."""

    def host(labels):
        return np.where(labels == 1, np.float32(number), np.float32(1))

    def loss(logits, labels):
        shape = jax.ShapeDtypeStruct(labels.shape, jnp.float32)
        factor = jax.pure_callback(host, shape, labels, vmap_method="expand_dims")
        return factor * cross_entropy(logits, labels)

    return loss


def prepared(number):
    def prepare(model, params, state, domains):
        kernel = np.full_like(params["heads"]["target"]["kernel"], 0.1)
        kernel[:, 1] = number * domains[0].inputs.mean()
        return params | {"heads": {"target": params["heads"]["target"] | {"kernel": kernel}}}, state

    return Method(prepare=prepare, solves=("heads/.*/kernel",), fresh_frozen=True)


def predicted(number):
    def predict(model, params, state, inputs):
        output = model.apply(params, state.statistics, inputs)[0]
        scale = jnp.array([[1.0, number, 1.0]])
        return {**output, "logits": {name: x * scale for name, x in output["logits"].items()}}

    return dataclasses.replace(transfer.full(optax.sgd(0.1)), predict=predict)


def evaluation(summed, made):
    plain = classification(TEST, "target")

    def sums(logits, labels, weights):
        first = jnp.sum(weights * (labels == 0)) * summed
        return {**plain.sums(logits, labels, weights), "first": first}

    def results(sums):
        return {**plain.results(sums), "first": float(sums["first"]), "priced": made / 3}

    return dataclasses.replace(plain, sums=sums, results=results)


def typed(rate):
    """A rate that Python code doubles where it is a number."""
    return transfer.full(optax.sgd(0.2 * rate if isinstance(rate, float | int) else 0.1))


def build(values, **more):
    c = {**CONFIG, **values}
    sgd = transfer.full(optax.sgd(0.1))
    stages = {
        "constant": (model_of(loss=weighted(c["constant"])), sgd),
        "called": (model_of(loss=called(c["called"])), sgd),
        "prepared": (model_of(), prepared(c["prepared"])),
        "started": (model_of(start=c["started"]), sgd),
        "shown": (model_of(shown=c["shown"]), sgd),
        "predicted": (model_of(), predicted(c["predicted"])),
        "typed": (model_of(), typed(c["typed"])),
        "plain": (model_of(), sgd),
        "fixed": (model_of(), prepared(1)),
    }
    return Experiment(
        arms={
            name: [
                Stage(
                    name,
                    model,
                    method,
                    domains=[labelled(TRAIN, "target")],
                    batch_size=8,
                    num_steps=2 if method.updates else 0,
                )
            ]
            for name, (model, method) in stages.items()
        },
        baseline="plain",
        evals={"target": evaluation(c["summed"], c["made"])},
        **{"primary": maximize("target", "accuracy"), "analyses": (), **more},
    )


def run(directory, points=(), build=build, arms=(), **values):
    """(summary, what was said)."""
    configs = [{**CONFIG, **values, **point} for point in points]
    sweep = Sweep(points, configs, lambda point: build({**values, **point})) if points else None
    asked = Run("tiny", {**CONFIG, **values}, "0", (0, 1), arms, directory, OPTIONS)
    output = io.StringIO()
    reporter = Reporter(Console(file=output, width=400))
    return run_experiment(build(values), asked, reporter, sweep), output.getvalue()


def per_seed(summary):
    return {
        arm: {name: values["per_seed"] for name, values in result["metrics"].items()}
        for arm, result in summary["arms"].items()
    }


OTHER = dict.fromkeys(CONFIG, 5)


def compare(swept, alone, arms):
    found, expected, before = per_seed(swept["sweep"][0]), per_seed(alone), per_seed(swept)
    assert found == expected
    for arm in arms:  # a case in which the field changes nothing would show nothing
        assert found[arm]["target/loss"] != before[arm]["target/loss"], arm


def test_what_only_prepare_and_metrics_read_is_done_at_each_point(tmp_path):
    arms = ("prepared", "fixed")
    swept, said = run(tmp_path / "sweep", [OTHER], arms=arms)
    assert "prepared in one program; fixed as it is" in said
    alone, _ = run(tmp_path / "alone", arms=arms, **OTHER)
    compare(swept, alone, ["prepared"])
    sums = [per_seed(each)["fixed"]["target/first"] for each in (swept, alone)]
    assert sums[1] == [5 * number for number in sums[0]]
    assert per_seed(alone)["fixed"]["target/priced"] == [5 / 3] * 2


@pytest.mark.slow
def test_what_only_hidden_code_reads_is_trained_at_each_point(tmp_path):
    swept, said = run(tmp_path / "sweep", [OTHER])
    assert f"{', '.join(COUNTED)} in one program; plain, fixed as it is" in said
    alone, _ = run(tmp_path / "alone", **OTHER)
    compare(swept, alone, COUNTED)


@pytest.mark.slow
def test_numbers_that_hidden_code_reads_are_those_of_each_point(tmp_path):
    """As arrays where they can be, and validated while they train."""
    points = [dict.fromkeys(CONFIG, value) for value in (2.0, 3.0)]

    def validated(values):
        return build(values, select=maximize("target", "accuracy"), select_every=1)

    swept, _ = run(tmp_path / "sweep", points, validated)
    for i, point in enumerate(points):
        alone, _ = run(tmp_path / str(i), build=validated, **point)
        found, expected = per_seed(swept["sweep"][i]), per_seed(alone)
        for arm in expected:
            for name, numbers in expected[arm].items():
                np.testing.assert_allclose(found[arm][name], numbers, 1e-5, err_msg=f"{arm}/{name}")


def nodes_of(values, build=build):
    experiment = build(values)
    return experiment, plan_stages(experiment, experiment.arms, (0, 1), rehearsed=False)


@pytest.fixture(scope="module")
def planned():
    return [nodes_of(values)[1] for values in ({}, {}, OTHER)]


@pytest.mark.parametrize("name", [*COUNTED, "plain"])
def test_stages_are_the_same_if_nothing_differs(planned, name):
    first, again, other = (nodes[name].setup for nodes in planned)
    assert same_training(first, [again], (0, 1))
    assert same_training(first, [again, other], (0, 1)) == (name == "plain")
    assert same_outputs(first, other) == (name not in ("shown", "predicted"))


def test_what_cannot_be_looked_into_counts_as_different():
    def streaming(values):
        stream = (1.0 for _ in range(9))

        def loss(logits, labels):
            shape = jax.ShapeDtypeStruct((), jnp.float32)
            factor = jax.pure_callback(lambda: np.float32(next(stream)), shape)
            return factor * cross_entropy(logits, labels)

        experiment = build(values)
        stage = dataclasses.replace(experiment.arms["plain"][0], model=model_of(loss=loss))
        return dataclasses.replace(experiment, arms={"plain": [stage]})

    first, second = (nodes_of({}, streaming)[1]["plain"].setup for _ in range(2))
    assert not same_training(first, [second], (0, 1))
    assert not same_training(first, [first], (0, 1))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("constant", ""),
        ("called", "called cannot be traced (traced value in closure of host)"),
        ("prepared", ""),
        ("started", "the model reads started"),
        ("shown", "the model reads shown"),
        ("predicted", ""),
        ("typed", "typed is not read where it is traced"),
        ("plain", ""),
    ],
)
def test_a_number_is_an_array_only_where_it_is_read_as_one(name, why):
    values = [{name: value} if name in CONFIG else {} for value in (2.0, 3.0)]
    points = [Point(each, *nodes_of(each)) for each in values]
    sweep = Sweep(values, values, build)
    groups = [[0], [1]] if why else [[0, 1]]
    assert group_points(name, points, sweep, (0, 1)) == (groups, why)


def test_points_that_are_validated_share_a_program_only_if_they_predict_alike():
    def validated(values):
        return build(values, select=maximize("target", "accuracy"))

    values = [{"predicted": value} for value in (2.0, 3.0)]
    points = [Point(each, *nodes_of(each, validated)) for each in values]
    groups, why = group_points("predicted", points, Sweep(values, values, validated), (0, 1))
    assert groups == [[0], [1]]
    assert why == "its data, shapes, patterns, model or validation differ"


def test_evaluations_are_the_same_if_sums_and_results_are():
    main = nodes_of({})
    for values, alike in [({}, (True, True)), ({"made": 5}, (True, False))]:
        assert same_evaluations(main, nodes_of(values), (0, 1)) == alike
    assert same_evaluations(main, nodes_of({"summed": 5}), (0, 1)) == (False, False)


def criterion(number, dataset=TRAIN):
    def score(predict, examples):
        return jnp.sum(examples["logits"]["target"]) * number

    return {"criteria": {"sum": Criterion([labelled(dataset, "target")], score)}}


SELECT = {"select": maximize("target", "accuracy")}
RULES = {
    "every": ({**SELECT, "select_every": 1}, {**SELECT, "select_every": 2}),
    "metric": (SELECT, {"select": maximize("target", "macro_f1")}),
    "none": (SELECT, {}),
    "score": (criterion(1), criterion(2)),
    "scored data": (criterion(1), criterion(1, TEST)),
}


@pytest.mark.parametrize("pair", RULES.values(), ids=RULES)
def test_selection_is_the_same_if_its_rules_and_criteria_are(pair):
    nodes = nodes_of({})[1]
    first, again, other = ((build({}, **more), nodes) for more in (pair[0], pair[0], pair[1]))
    assert same_selection(first, again, "plain", (0, 1))
    assert not same_selection(first, other, "plain", (0, 1))


def test_points_that_are_no_grid_have_a_folder_of_their_own():
    pairs = [[{"a": a, "b": b} for a, b in each] for each in ([(1, 2), (3, 4)], [(1, 4), (3, 2)])]
    grid = pairs[0] + pairs[1]
    assert label(grid) == "a=1,3;b=2,4"
    assert len({label(points) for points in (*pairs, grid)}) == 3
    assert label([{"a": 1, "b": 2}]) == "a=1;b=2"


def test_the_order_of_stages_must_not_depend_on_what_is_swept(tmp_path):
    def reordered(values):
        plan = build({})
        first, second = plan.arms["plain"][0], plan.arms["constant"][0]
        chain = [first, second] if values.get("constant", 1) == 1 else [second, first]
        return dataclasses.replace(plan, arms={"plain": chain})

    with pytest.raises(ValueError, match=r"sweep, constant=2: stage 'constant' follows no stage, "):
        run(tmp_path, [{"constant": 2}], reordered)
