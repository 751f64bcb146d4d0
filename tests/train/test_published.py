"""Stages that start from published weights; checkpoints without what a stage did not change."""

import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file
from tiny import Numbers, assert_same, experiment, run_tiny, stages, train

from jaxtl import pretrained
from jaxtl.methods import transfer
from jaxtl.models import classes
from jaxtl.paths import flatten
from jaxtl.pretrained import Entry, Scheme
from jaxtl.study.checks.experiments import plan_stages
from jaxtl.study.source_run import SourceRun
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.state import start
from jaxtl.train.store.blocks import restore_chain
from jaxtl.train.store.checkpoints import ITEM, restore_weights

replace = dataclasses.replace
HEADS = ("heads/.*",)


def first(method=None, weights=None, **changes):
    """The tiny experiment's target stage as a first stage."""
    adapt = stages(method)[1]
    return replace(adapt, fresh=HEADS, weights=weights or Numbers(), **changes)


def tiny_plan(method=None, **more):
    """scratch, and tuned: a stage from published weights, then one of all parameters."""
    plan, stage = experiment(), first(method, name="tuned", **more)
    rest = replace(stage, name="rest", method=transfer.full(optax.sgd(0.01)), weights=None)
    tuned = [stage, replace(rest, fresh=())]
    return replace(plan, arms={"scratch": plan.arms["scratch"], "tuned": tuned})


def test_what_is_not_fresh_has_the_published_values_in_every_seed():
    setup = resolve(first(transfer.probe(optax.sgd(0.1))), None)
    full = start(over_seeds(setup, (3, 4)), None)
    leaves = flatten(full.params) | flatten(full.state.statistics)
    kernel = leaves["backbone/body/dense/kernel"]
    np.testing.assert_array_equal(kernel, np.arange(40, dtype=np.float32).reshape(1, 5, 8) / 64)
    np.testing.assert_allclose(leaves["backbone/body/norm/mean"][1], np.arange(8) / 64)
    head = leaves["heads/target/kernel"]
    assert np.abs(head[0] - head[1]).min() > 0
    scratch = start(over_seeds(resolve(replace(first(), weights=None), None), (3, 4)), None)
    np.testing.assert_array_equal(scratch.params["heads"]["target"]["kernel"], head)


def test_weights_that_do_not_fit_are_refused_with_the_name_of_the_stage():
    lacking = Numbers(lacks="backbone/body/norm/var")
    with pytest.raises(ValueError, match=rf"stage 'adapt': .*numbers.npz lacks {lacking.lacks}"):
        resolve(first(weights=lacking), None)
    pretrain = resolve(stages()[0], None)
    with pytest.raises(ValueError, match="follows stage 'pretrain', so it cannot start from numb"):
        resolve(first(), pretrain)


def test_weights_are_asked_for_in_the_order_of_the_model():
    asked = []

    class Asked(Numbers):
        def read(self, wanted):
            asked.extend(wanted)
            return super().read(wanted)

    setup = resolve(first(weights=Asked()), None)
    paths = [*flatten(setup.params), *flatten(setup.state.statistics)]
    assert asked == [path for path in paths if not path.startswith("heads/")]


def test_a_checkpoint_holds_only_what_the_stage_changed(tmp_path):
    method = transfer.partial(optax.adam(0.1), freeze=("backbone/body/dense/.*",))
    run = train(first(method), tmp_path)
    saved = restore_weights(tmp_path / "checkpoints" / "6" / ITEM)[0]
    kept = {f"backbone/body/dense/{name}" for name in ("kernel", "bias")}
    assert flatten(run.params).keys() - flatten(saved).keys() == kept
    assert_same(train(first(method), tmp_path).params, run.params)
    wanted = np.arange(40, dtype=np.float32).reshape(5, 8) / 64
    np.testing.assert_array_equal(run.params["backbone"]["body"]["dense"]["kernel"], wanted[None])


def test_a_stopped_stage_goes_on_with_the_same_bits(tmp_path):
    stage = first(transfer.probe(optax.adam(0.1)), num_steps=10)
    whole = train(stage, tmp_path / "whole")
    train(replace(stage, num_steps=5), tmp_path / "parts")
    assert_same(train(stage, tmp_path / "parts").params, whole.params)


@pytest.mark.slow
def test_a_run_whose_stages_froze_something_is_a_source_run(tmp_path):
    plan = tiny_plan(transfer.probe(optax.adam(0.1)))
    run_tiny(tmp_path / "one", plan=plan)
    nodes = plan_stages(plan, plan.arms, (0, 1))
    source = SourceRun(tmp_path / "one", (0, 1))
    source.check(nodes, plan, plan.arms)
    params = source.stages["tuned"][0]
    np.testing.assert_array_equal(flatten(params)["backbone/body/dense/bias"][0], np.arange(8) / 64)
    one = run_tiny(tmp_path / "two", plan=plan, arms=("scratch", "tuned"))[0]
    two = run_tiny(tmp_path / "three", plan=plan, source_run=tmp_path / "one")[0]
    assert one["arms"]["tuned"]["metrics"] == two["arms"]["tuned"]["metrics"]


def in_a_file(path, **more):
    """The backbone of the tiny model and a head of its file, with more arrays."""
    setup = resolve(first(), None)
    leaves = flatten(setup.params) | flatten(setup.state.statistics)
    backbone = {k: leaf for k, leaf in leaves.items() if not k.startswith("heads/")}
    arrays, _ = Numbers().read(backbone)
    save_file(arrays | {"fc": np.ones(3, np.float32)} | more, path)
    scheme = Scheme("ours", Entry, heads=("fc",))
    return pretrained.weights(path, scheme)


def test_arrays_that_the_model_does_not_read_are_refused_with_the_name_of_the_stage(tmp_path):
    more = {"backbone/body/gain": np.ones(3, np.float32)}
    foreign = in_a_file(tmp_path / "b.safetensors", **more)
    with pytest.raises(ValueError, match=r"stage 'adapt': cannot load .*b.safetensors(.|\n)*gain"):
        resolve(first(weights=foreign), None)
    anew = (*HEADS, "backbone/body/dense/.*")
    weights = in_a_file(tmp_path / "c.safetensors")
    report = resolve(replace(first(weights=weights), fresh=anew), None).weights_report
    assert "unused in the file (3): backbone/body/dense/bias, backbone/body/dense/kern" in report


@pytest.mark.slow
def test_what_a_stage_froze_comes_from_the_run_that_its_source_was_loaded_from(tmp_path):
    weights = in_a_file(tmp_path / "a.safetensors")
    plan = tiny_plan(transfer.probe(optax.adam(0.1)), weights=weights)
    rest = replace(plan.arms["tuned"][1], method=transfer.probe(optax.sgd(0.1)))
    plan = replace(plan, arms={**plan.arms, "tuned": [plan.arms["tuned"][0], rest]})
    run_tiny(tmp_path / "one", plan=plan)
    run_tiny(tmp_path / "two", plan=plan, source_run=tmp_path / "one")
    wanted = flatten(plan_stages(plan, plan.arms, (0, 1))["rest"].setup.params)
    leaves = [
        restore_chain(tmp_path / run, plan.arms["tuned"], (1,), wanted)[0] for run in ("one", "two")
    ]
    assert leaves[0].keys() >= wanted.keys()
    assert_same(*leaves)
    shutil.rmtree(tmp_path / "one" / "stages" / "tuned")
    with pytest.raises(ValueError, match=r"goes on from stage 'tuned', which .*one does not hold"):
        restore_chain(tmp_path / "two", plan.arms["tuned"], (1,), wanted)


def test_other_weights_are_another_run(tmp_path):
    _, output = run_tiny(tmp_path, plan=tiny_plan())
    assert "from numbers.npz" in output
    with pytest.raises(ValueError, match="the file of its published weights"):
        run_tiny(tmp_path, plan=tiny_plan(weights=Numbers(0.5)))


def counting(remembers, size=2):
    """Trains everything, and counts in the method's state how many stages it saw."""

    def prepare(model, params, state, domains):
        return params, state._replace(method={"stages": state.method["stages"] + 1})

    return replace(
        transfer.full(optax.sgd(0.1)),
        state=lambda model, params, statistics, shape: {"stages": jnp.zeros(size, jnp.int32)},
        remembers=remembers,
        prepare=prepare,
    )


@pytest.mark.parametrize(
    "before, after, expected",
    [
        (counting(True), counting(True), 2),
        (counting(True), counting(False), 1),
        pytest.param(transfer.full(optax.sgd(0.1)), counting(True), 1, marks=pytest.mark.slow),
    ],
)
def test_a_method_that_remembers_goes_on_from_the_stage_before(tmp_path, before, after, expected):
    pretrain, adapt = stages(after)
    pretrain = replace(pretrain, method=before)
    one = train(pretrain, tmp_path / "one")
    two = train(
        adapt, tmp_path / "two", source=(one.params, one.state), parent=resolve(pretrain, None)
    )
    np.testing.assert_array_equal(two.state.method["stages"], np.full((2, 2), expected))


def test_a_memory_that_does_not_fit_any_more_is_refused():
    pretrain, adapt = stages(counting(True))
    before = resolve(replace(pretrain, method=counting(True, size=3)), None)
    with pytest.raises(ValueError, match=r"'stages'\] was int32\[3\] and is int32\[2\]"):
        resolve(adapt, before)


def test_ewc_does_not_lose_its_penalty_where_a_head_is_added():
    pretrain, adapt = stages(transfer.ewc(optax.sgd(0.1), strength=1.0))
    ewc = replace(adapt.method, reads=(), prepare=None)
    first = resolve(replace(pretrain, method=ewc), None)
    heads = {**adapt.model.heads, "third": classes(2)}
    wider = replace(adapt, method=ewc, model=replace(adapt.model, heads=heads))
    with pytest.raises(ValueError, match=r"heads'\]\['third'\].* is new"):
        resolve(replace(wider, fresh=(*adapt.fresh, "heads/third/.*")), first)
