"""The loop: stopped and damaged runs end with the same bits; what a stage may touch and leaves."""

import dataclasses
import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import (
    IDENTITY,
    OPTIONS,
    assert_same,
    blobs,
    experiment,
    mlp_stage,
    run_tiny,
    stages,
    train,
)

from jaxtl import data
from jaxtl.methods import transfer
from jaxtl.paths import flatten
from jaxtl.plan import Method, Update, labelled
from jaxtl.train.feed.examples import make_streams
from jaxtl.train.feed.order import index_block
from jaxtl.train.loop import train_stage
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.signals import Interrupted
from jaxtl.train.state import start
from jaxtl.train.store.checkpoints import restore_weights
from jaxtl.train.store.log import Log, read_curves, read_log


def train_to_the_end(stage, directory, progress, **more):
    """The stage, started again after each signal; how often it was stopped."""
    for stops in range(20):
        try:
            return train(stage, directory, progress=progress, **more), stops
        except Interrupted:
            continue
    raise AssertionError("never finished")


def assert_same_run(run, directory, whole, whole_directory):
    assert_same(run.params, whole.params)
    assert_same(run.state, whole.state)
    name = "metrics.jsonl"
    assert (directory / name).read_bytes() == (whole_directory / name).read_bytes()
    assert run.curves.keys() == whole.curves.keys()
    for key, values in whole.curves.items():
        np.testing.assert_array_equal(run.curves[key], values)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(directory, the stage with statistics and dropout, trained in one go)."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, train(stages(steps=23)[0], directory)


def test_a_run_stopped_after_every_dispatch_ends_with_the_same_bits(tmp_path, whole):
    seen = []

    def stop(step, metrics):
        seen.append(step)
        if step < 20:
            os.kill(os.getpid(), (signal.SIGINT, signal.SIGTERM)[len(seen) % 2])

    run, stops = train_to_the_end(stages(steps=23)[0], tmp_path, stop)
    assert stops >= 3 and seen == sorted(set(seen))
    assert_same_run(run, tmp_path, whole[1], whole[0])
    assert json.loads((tmp_path / "stage.json").read_text())["finished"]


@pytest.mark.parametrize("step", [4, 5, 20, 23])
def test_a_signal_at_one_step_stops_and_the_next_launch_goes_on(tmp_path, whole, step):
    def stop(now, metrics):
        if now == step:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="SIGINT"):
        train(stages(steps=23)[0], tmp_path, progress=stop)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    run = train(stages(steps=23)[0], tmp_path)
    assert_same_run(run, tmp_path, whole[1], whole[0])


def test_other_checkpoint_intervals_give_the_same_bits(tmp_path, whole):
    options = RunOptions(checkpoint_every=1000, steps_per_dispatch=4)
    run = train(stages(steps=23)[0], tmp_path, options=options)
    assert_same_run(run, tmp_path, whole[1], whole[0])


def counting_stage(steps=12):
    """Its method prepares again every 4 steps; the loss depends on how often that happened."""

    def loss(model, params, state, batch, rng, step):
        update = transfer.supervised_update()
        value, (state, metrics) = update.loss(model, params, state, batch, rng, step)
        return value * (1 + state.method["rounds"]), (state, metrics)

    def prepare(model, params, state, domains):
        rounds = np.asarray(state.method["rounds"] + 1, np.float32)
        return params, state._replace(method={"rounds": rounds})

    method = Method(
        {"all": ((".*",), optax.sgd(1e-2))},
        (Update(loss),),
        state=lambda model, params, statistics, shape: {"rounds": jnp.zeros(())},
        prepare=prepare,
        prepare_every=4,
    )
    return dataclasses.replace(mlp_stage(steps), method=method)


def test_periodic_preparation_is_neither_lost_nor_repeated_by_a_stop(tmp_path):
    options = RunOptions(checkpoint_every=3, steps_per_dispatch=4)
    whole = train(counting_stage(), tmp_path / "whole", options=options)
    np.testing.assert_array_equal(whole.state.method["rounds"], 3)  # at steps 0, 4 and 8

    def stop(step, metrics):
        if step < 10:
            os.kill(os.getpid(), signal.SIGINT)

    directory = tmp_path / "stopped"
    run, stops = train_to_the_end(counting_stage(), directory, stop, options=options)
    assert stops >= 3
    assert_same_run(run, directory, whole, tmp_path / "whole")


def arrays_of(checkpoint):
    return [p for p in checkpoint.rglob("*") if p.is_file() and "/d/" in str(p)]


def truncate(checkpoint):
    for path in arrays_of(checkpoint):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(checkpoint):
    for path in arrays_of(checkpoint):
        path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def empty(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def without_metadata(checkpoint):
    for path in checkpoint.rglob("*METADATA"):
        path.unlink()


@pytest.fixture
def stopped(tmp_path, whole):
    """A directory with the checkpoints 20 and 23 of a finished stage."""
    shutil.copytree(whole[0], tmp_path / "copy")
    checkpoints = tmp_path / "copy" / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir() if p.name.isdigit()) == ["20", "23"]
    return tmp_path / "copy"


@pytest.mark.parametrize("damage", [truncate, garble, empty, without_metadata])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_gives_the_same_bits(
    stopped, whole, damage, caplog
):
    damage(stopped / "checkpoints" / "23")
    steps = []
    run = train(stages(steps=23)[0], stopped, progress=lambda step, metrics: steps.append(step))
    assert steps == [23]
    assert_same_run(run, stopped, whole[1], whole[0])
    assert "23 is unreadable" in caplog.text
    assert (stopped / "checkpoints" / "damaged-23").is_dir()
    assert (stopped / "checkpoints" / "23").is_dir()
    assert_same(train(stages(steps=23)[0], stopped).params, run.params)


def test_without_any_readable_checkpoint_the_stage_starts_again(stopped, whole):
    for name in ("20", "23"):
        truncate(stopped / "checkpoints" / name)
    steps = []
    run = train(stages(steps=23)[0], stopped, progress=lambda step, metrics: steps.append(step))
    assert steps[0] == 4
    assert_same_run(run, stopped, whole[1], whole[0])


def test_half_a_line_of_the_log_is_written_again(stopped, whole):
    shutil.rmtree(stopped / "checkpoints" / "23")
    log = stopped / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    run = train(stages(steps=23)[0], stopped)
    assert_same_run(run, stopped, whole[1], whole[0])


def test_a_finished_stage_is_not_touched(stopped, whole):
    def snapshot():
        return {
            str(p): (p.stat().st_mtime_ns, p.read_bytes())
            for p in stopped.rglob("*")
            if p.is_file()
        }

    def never(step, metrics):
        raise AssertionError("trained again")

    before = snapshot()
    run = train(stages(steps=23)[0], stopped, progress=never)
    assert snapshot() == before
    assert_same(run.params, whole[1].params)
    assert run.seconds == whole[1].seconds > 0


def test_a_damaged_stage_json_is_one_error(stopped):
    (stopped / "stage.json").write_text('{"identity": ')
    with pytest.raises(ValueError, match=r"stage\.json is damaged"):
        train(stages()[0], stopped)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """(setup, trained) of a source stage with batch statistics."""
    setup = resolve(stages()[0], None)
    run = train_stage(
        over_seeds(setup, (0, 1)), None, tmp_path_factory.mktemp("source"), IDENTITY, OPTIONS
    )
    return setup, run


def adapt(pretrained, directory, method):
    setup, run = pretrained
    return train(stages(method)[1], directory, source=(run.params, run.state), parent=setup)


def test_the_source_is_not_consumed_by_the_stages_that_start_from_it(tmp_path, pretrained):
    before = jax.tree.map(np.array, (pretrained[1].params, pretrained[1].state))
    first = adapt(pretrained, tmp_path / "a", transfer.full(optax.adam(1e-2)))
    again = adapt(pretrained, tmp_path / "b", transfer.full(optax.adam(1e-2)))
    after = (pretrained[1].params, pretrained[1].state)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))
    for old, new in zip(before, after, strict=True):
        assert_same(old, new)
    assert_same(first.params, again.params)


def test_what_is_frozen_ends_with_the_bits_of_the_source(tmp_path, pretrained):
    method = transfer.partial(optax.adamw(0.1), freeze=("backbone/body/(dense|norm)/.*",))
    run, source = adapt(pretrained, tmp_path, method), pretrained[1]
    assert_same(run.state, source.state)
    ours, theirs = flatten(run.params), flatten(source.params)
    same = {path for path in ours if np.array_equal(ours[path], theirs[path])}
    assert same == {
        *(f"backbone/body/{name}" for name in ("dense/kernel", "dense/bias")),
        *(f"backbone/body/{name}" for name in ("norm/scale", "norm/bias")),
        *(f"heads/source/{name}" for name in ("kernel", "bias")),  # no domain names it
    }


def test_statistics_of_a_layer_that_trains_follow_the_target(tmp_path, pretrained):
    run = adapt(pretrained, tmp_path, transfer.full(optax.adam(1e-2)))
    for path, leaf in flatten(run.state.statistics).items():
        assert not np.allclose(leaf, flatten(pretrained[1].state.statistics)[path])


def test_a_stage_that_only_prepares_writes_heads_only(tmp_path, pretrained):
    setup, source = pretrained
    stage = dataclasses.replace(stages(transfer.ridge())[1], num_steps=0)
    run = train(stage, tmp_path, source=(source.params, source.state), parent=setup)
    ours, theirs = flatten(run.params), flatten(source.params)
    changed = {path for path in ours if not np.array_equal(ours[path], theirs[path])}
    assert changed == {"heads/target/kernel", "heads/target/bias"}
    assert_same(run.state, source.state)
    assert run.curves["step"].size == 0 and np.isnan(run.steps_per_second)
    again = train(stage, tmp_path, source=(source.params, source.state), parent=setup)
    assert_same(again.params, run.params)


def test_fresh_leaves_are_those_of_the_scratch_arm(pretrained):
    setup, source = pretrained
    pretrain, stage = stages()
    del pretrain
    loaded = start(over_seeds(resolve(stage, setup), (0, 1)), (source.params, source.state))
    scratch = start(
        over_seeds(resolve(dataclasses.replace(stage, name="scratch"), None), (0, 1)), None
    )
    ours, theirs = (flatten(f.params) for f in (loaded, scratch))
    same = {path for path in ours if np.array_equal(ours[path], theirs[path])}
    assert {"heads/target/kernel", "heads/target/bias"} <= same
    assert {"backbone/body/dense/kernel", "heads/source/kernel"}.isdisjoint(same)


@pytest.mark.slow
def test_arms_that_share_a_stage_train_it_once(tmp_path):
    plan = experiment()
    pretrain, last = plan.arms["full"]
    probe = dataclasses.replace(last, name="probe", method=transfer.probe(optax.adam(1e-2)))
    plan = dataclasses.replace(plan, arms={**plan.arms, "probe": [pretrain, probe]})
    summary, output = run_tiny(tmp_path, seeds=(0, 1, 2), plan=plan)
    assert summary["arms"].keys() == {"scratch", "full", "probe"}
    assert output.count("stage pretrain:") == 1 and output.count("stage probe:") == 1


def test_a_seed_whose_loss_is_not_finite_stays_at_its_last_good_state(tmp_path, caplog):
    inputs = np.array(blobs("x").table().inputs)
    inputs[7] = 3e38
    dataset = data.arrays(inputs, np.arange(40) % 3, name="spiked").take(10)
    stage = dataclasses.replace(
        mlp_stage(12, optax.sgd(1e-2)), name="spiked", domains=[labelled(dataset, "source")]
    )
    bad = next(seed for seed in range(99) if 7 in dataset.rows(seed))
    good = next(seed for seed in range(99) if 7 not in dataset.rows(seed))
    order = index_block(
        make_streams(over_seeds(resolve(stage, None), (bad,))), 0, 12, stage.batch_size
    )
    step = 1 + np.flatnonzero((order[0] == 7).any((1, 2)))[0]
    both = train(stage, tmp_path / "both", seeds=(good, bad))
    assert both.failed.tolist() == [0, step]
    assert f"loss of seed {bad} is not finite at step {step}" in caplog.text
    before = train(dataclasses.replace(stage, num_steps=step - 1), tmp_path / "b", seeds=(bad,))
    alone = train(stage, tmp_path / "alone", seeds=(good,))
    for path, leaf in flatten(both.params).items():
        np.testing.assert_allclose(leaf[0], flatten(alone.params)[path][0], rtol=1e-5)
        np.testing.assert_allclose(leaf[1], flatten(before.params)[path][0], rtol=1e-5)
    again = train(stage, tmp_path / "both", seeds=(good, bad))
    assert again.failed.tolist() == both.failed.tolist()


def test_a_stage_without_a_good_seed_fails_with_stage_step_and_seed(tmp_path):
    stage = mlp_stage(12, optax.sgd(1e38))
    with pytest.raises(ValueError, match="not finite in any seed") as error:
        train(stage, tmp_path / "wild", seeds=(3, 4))
    assert "lower the learning rate" in str(error.value) and "in seed " in str(error.value)
    assert not json.loads((tmp_path / "wild" / "stage.json").read_text())["finished"]


@pytest.mark.parametrize(
    ("num_steps", "log_every", "expected"),
    [
        (7, 0, [1, 2, 3, 4, 5, 6, 7]),
        (23, 5, [1, 5, 10, 15, 20, 23]),
        (20, 10, [1, 10, 20]),
        (1600, 0, [1, *range(3, 1600, 3), 1600]),
    ],
)
def test_interval_of_the_log(tmp_path, num_steps, log_every, expected):
    log = Log(tmp_path, RunOptions(log_every=log_every), num_steps, over_seeds(None, (4, 2)), 0)
    for first in range(0, num_steps, 16):
        count = min(16, num_steps - first)
        values = np.tile(np.arange(first, first + 16, dtype=np.float32), (2, 1))
        step, last = log.write(first, count, {"loss": values, "failed_at": np.full((2, 16), -1)})
        assert step == first + count
        np.testing.assert_array_equal(last["loss"], step - 1)
    lines = read_log(tmp_path)
    assert [line["step"] for line in lines] == expected
    assert all(line["loss"] == [line["step"] - 1.0] * 2 for line in lines)
    assert read_curves(tmp_path)["loss"].shape == (len(expected), 2)


def test_logged_losses_are_those_of_the_batches(tmp_path):
    """The first loss, by hand: cross-entropy of the initial model on the first batch."""
    stage = mlp_stage(5, optax.sgd(0.1))
    run = train(stage, tmp_path, seeds=(2,))
    setup = resolve(stage, None)
    full = start(over_seeds(setup, (2,)), None)
    params = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float64), full.params)
    table = stage.domains[0].dataset.table()
    rows = index_block(make_streams(over_seeds(setup, (2,))), 0, 1, 8)[0, 0, :, 0]
    hidden = params["backbone"]["dense_0"]
    x = np.maximum(table.inputs[rows] @ hidden["kernel"] + hidden["bias"], 0)
    logits = x @ params["heads"]["source"]["kernel"] + params["heads"]["source"]["bias"]
    nats = np.log(np.exp(logits).sum(1)) - logits[np.arange(8), table.labels["label"][rows]]
    np.testing.assert_allclose(run.curves["loss"][0, 0], nats.mean(), rtol=1e-5)
    assert run.curves["step"].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_compute_in_bfloat16_is_another_run_and_keeps_float32_parameters(tmp_path):
    exact, _ = run_tiny(tmp_path / "exact")
    rough, _ = run_tiny(tmp_path / "rough", dtype="bfloat16")
    for arm in ("scratch", "full"):
        losses = [s["arms"][arm]["metrics"]["target/loss"]["per_seed"] for s in (exact, rough)]
        assert losses[0] != losses[1]
        np.testing.assert_allclose(losses[1], losses[0], rtol=0.1)
    last = tmp_path / "rough" / "stages" / "adapt" / "checkpoints" / "6" / "state"
    params, _ = restore_weights(last)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    with pytest.raises(ValueError, match="dtype: there 'float32', now 'bfloat16'"):
        run_tiny(tmp_path / "exact", dtype="bfloat16")
    with pytest.raises(ValueError, match=r"unknown run.dtype 'bfloat17'"):
        RunOptions(dtype="bfloat17")
