"""A stage while it trains: its step traced once, equal calls compiled once, seeds in threads."""

import dataclasses
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import OPTIONS, assert_same, mlp_stage

from jaxtl import data
from jaxtl.methods import transfer
from jaxtl.models import Block, classes, from_blocks
from jaxtl.models.conv_net import relu_max_pool
from jaxtl.models.layers import Conv
from jaxtl.plan import Stage, labelled
from jaxtl.train.dispatch import running, shared
from jaxtl.train.loop import train_stage
from jaxtl.train.rehearsal import rehearse, step_fingerprint
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.signals import Interrupted

SEEDS = (0, 1, 2)
STEPS = 12
EACH = dataclasses.replace(OPTIONS, checkpoint_every=0)


def with_loss(stage, change):
    """The stage with a loss (loss, step) -> loss behind its own."""
    update = stage.method.updates[0]

    def loss(model, params, state, batch, rng, step):
        value, rest = update.loss(model, params, state, batch, rng, step)
        return change(value, step), rest

    updates = (dataclasses.replace(update, loss=loss),)
    return dataclasses.replace(stage, method=dataclasses.replace(stage.method, updates=updates))


def launch(stage, directory, seeds=SEEDS, options=EACH, **more):
    """The stage checked and trained as a run does."""
    replicas = over_seeds(resolve(stage, None), seeds)
    rehearse(replicas, "arm")
    step_fingerprint(replicas)
    return train_stage(replicas, None, directory, {"stage": 1}, options, **more)


@pytest.fixture(scope="module")
def convolved():
    """A stage whose seeds train in threads."""
    model = from_blocks([Block("conv_0", Conv(4, (3, 3)), relu_max_pool)], {"source": classes(3)})
    labels = np.arange(24) % 3
    inputs = np.random.default_rng(0).normal(size=(24, 6, 6, 1)) + labels[:, None, None, None]
    domains = [labelled(data.arrays(inputs.astype(np.float32), labels), "source")]
    method = transfer.full(optax.adam(1e-2))
    return Stage("patches", model, method, domains=domains, batch_size=4, num_steps=STEPS)


@pytest.fixture(scope="module")
def in_threads(convolved, tmp_path_factory):
    """What three seeds end with, on three threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "cores", lambda: 3)
        return launch(convolved, tmp_path_factory.mktemp("threads"))


def test_the_step_of_a_stage_is_traced_once(tmp_path):
    calls = []
    stage = with_loss(mlp_stage(STEPS), lambda loss, step: calls.append(step) or loss)
    launch(stage, tmp_path)
    assert len(calls) == 1


def test_a_second_trace_for_micro_batches_and_no_more(convolved, tmp_path):
    calls = []
    stage = with_loss(convolved, lambda loss, step: calls.append(step) or loss)
    options = dataclasses.replace(EACH, micro_batch=2)
    launch(stage, tmp_path, options=options)
    assert len(calls) <= 3  # a scan of parts asks for the shapes of one first


@pytest.fixture
def lowered(monkeypatch):
    """How often something is compiled for a stage."""
    shared._compiled.clear()
    counts, compiled = [], jax.stages.Lowered.compile

    def count(self, *args, **options):
        counts.append(self)
        return compiled(self, *args, **options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", count)
    return counts


def test_equal_stages_are_compiled_once(tmp_path, lowered):
    first = launch(mlp_stage(STEPS), tmp_path / "a")
    other = dataclasses.replace(mlp_stage(STEPS), name="other")
    second = launch(other, tmp_path / "b", seeds=(5, 6, 7))
    assert len(lowered) == 1
    assert not np.allclose(first.curves["loss"], second.curves["loss"])
    faster = launch(mlp_stage(STEPS, optax.adam(1e-3)), tmp_path / "c")
    assert len(lowered) == 2
    assert not np.allclose(first.curves["loss"][-1], faster.curves["loss"][-1])
    renamed = with_loss(mlp_stage(STEPS), lambda loss, step: loss)
    update = renamed.method.updates[0]

    def loss(*args):
        value, (state, metrics) = update.loss(*args)
        return value, (state, {"another": value, **metrics})

    method = dataclasses.replace(renamed.method, updates=(dataclasses.replace(update, loss=loss),))
    named = launch(dataclasses.replace(renamed, method=method), tmp_path / "d")
    assert "another" in named.curves and len(lowered) == 3


def test_a_program_that_calls_the_host_is_its_own(tmp_path, lowered):
    seen = {"a": [], "b": []}
    for name, calls in seen.items():

        def noted(loss, step, calls=calls):
            jax.debug.callback(lambda step: calls.append(int(step)), step)
            return loss

        launch(with_loss(mlp_stage(STEPS), noted), tmp_path / name, seeds=(0,))
    assert len(lowered) == 2
    assert len(seen["a"]) == len(seen["b"]) == STEPS


def test_the_number_of_threads_changes_no_bit(convolved, in_threads, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "cores", lambda: 1)
    one_thread = launch(convolved, tmp_path / "one")
    assert_same(one_thread.params, in_threads.params)
    assert_same(one_thread.curves, in_threads.curves)
    alone = launch(convolved, tmp_path / "alone", seeds=SEEDS[1:2])
    own = jax.tree.map(lambda leaf: leaf[1:2], in_threads.params)
    assert_same(alone.params, own)


def test_a_stage_in_threads_stops_and_goes_on_with_the_same_bits(convolved, in_threads, tmp_path):
    def stop(step, metrics):
        if step >= 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        launch(convolved, tmp_path, progress=stop)
    restored = []
    whole = launch(convolved, tmp_path, restored=restored.append)
    assert 0 < restored[0] < STEPS
    assert_same(whole.params, in_threads.params)
    assert_same(whole.curves, in_threads.curves)


def test_what_a_call_raises_in_a_thread_ends_the_stage(convolved, tmp_path, monkeypatch):
    call = running.Apart._call

    def breaks(self, number, before, *rest):
        if number == 1 and rest[2] >= 4:
            raise RuntimeError("out of memory on the device")
        return call(self, number, before, *rest)

    monkeypatch.setattr(running.Apart, "_call", breaks)
    with pytest.raises(RuntimeError, match="out of memory on the device"):
        launch(convolved, tmp_path)


def test_a_seed_in_a_thread_fails_by_itself(convolved, in_threads, tmp_path):
    least = np.sort(in_threads.curves["loss"][4:].min(axis=0))
    bound = least[:2].mean()  # which one seed alone comes below

    def breaks(loss, step):
        return jnp.where((loss < bound) & (step > 3), jnp.nan, loss)

    run = launch(with_loss(convolved, breaks), tmp_path)
    failed = np.asarray(run.failed)
    assert np.count_nonzero(failed) == 1
    for i in np.flatnonzero(failed == 0):
        one, other = (jax.tree.map(lambda leaf, i=i: leaf[i], r.params) for r in (run, in_threads))
        assert_same(one, other, rtol=1e-5, atol=1e-6)  # another program rounds other sums
