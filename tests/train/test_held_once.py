"""Published weights that nothing trains are held once, however many seeds there are."""

import dataclasses
import gc
import io
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console
from tiny import OPTIONS, Numbers, blobs, experiment, stages, tiny_run, train

from jaxtl import models
from jaxtl.methods import transfer
from jaxtl.models import adapters, classes
from jaxtl.paths import flatten
from jaxtl.plan import Analysis, Stage, labelled
from jaxtl.study.experiment import check, train_arms
from jaxtl.study.progress import Reporter
from jaxtl.train.dispatch.programs import make_program
from jaxtl.train.feed.order import index_block
from jaxtl.train.mesh import make_mesh
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.state import abstract_state, start, with_constants, without_constants
from jaxtl.train.store.blocks import join_blocks

WIDTH = 192
BASE = {f"backbone/net/Dense_{i}/{leaf}" for i in (0, 1) for leaf in ("kernel", "bias")}
SEEDS = (3, 4, 5, 6, 7)
WHOLE = dataclasses.replace(OPTIONS, feature_cache=False)


class Wide(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.relu(nn.Dense(WIDTH)(nn.relu(nn.Dense(WIDTH)(x))))


def stage(adapt=adapters.lora, weights=None, name="tuned", **changes) -> Stage:
    """Matrices of rank 2 beside the kernels of a wide network, and a head."""
    model = models.from_linen(Wide(), {"target": classes(3)}, name="net")
    model = adapt(model, [".*Dense_1/kernel"], 2)
    trains = (f"{model.adapters[0].name}/.*", "heads/.*")
    method = transfer.grouped({"all": (trains, optax.adam(1e-2))})
    return Stage(
        name,
        model,
        method,
        domains=[labelled(blobs("target", 24), "target")],
        batch_size=8,
        num_steps=4,
        fresh=trains,
        weights=weights or Numbers(1e-6),
        **changes,
    )


def live_bytes() -> int:
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())


def size(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("adapt", [adapters.lora, adapters.pissa])
def test_a_stage_starts_with_one_base_and_nothing_besides_its_state(adapt):
    setup = resolve(stage(adapt), None)
    assert setup.shared == BASE
    before = live_bytes()
    full = start(over_seeds(setup, SEEDS), None)
    assert live_bytes() - before == size(full)
    flat = flatten(full.frozen)
    shapes = {path: leaf.shape[0] for path, leaf in flat.items() if path in BASE}
    assert shapes == dict.fromkeys(BASE, 1)
    alone = start(over_seeds(setup, SEEDS[2:3]), None)
    assert size(full.carry) == len(SEEDS) * size(alone.carry)
    for path, leaf in flatten(alone.params).items():
        whole = flatten(full.params)[path]
        np.testing.assert_array_equal(leaf[0], whole[2 if len(whole) > 1 else 0], err_msg=path)
    shapes = jax.eval_shape(lambda: abstract_state(over_seeds(setup, SEEDS)))
    assert jax.tree.map(jnp.shape, full) == jax.tree.map(jnp.shape, shapes)


def test_no_memory_of_the_state_is_shared():
    method = dataclasses.replace(stage().method, ema=0.9)
    setup = resolve(dataclasses.replace(stage(), method=method), None)
    full = start(over_seeds(setup, SEEDS), None)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(full)]
    assert len(set(buffers)) == len(buffers)


@pytest.fixture(scope="module")
def dispatches() -> dict[int, jax.stages.Lowered]:
    """{number of seeds: the lowered dispatch}."""
    setup, lowered = resolve(stage(), None), {}
    for seeds in (SEEDS[:1], SEEDS):
        replicas = over_seeds(setup, seeds)
        full = start(replicas, None)
        program = make_program(replicas, full, WHOLE)
        feed, steps = program.feed, program.schedule.steps
        assert program.schedule.seeds == "vmap"
        block = index_block(program.streams, 0, steps, 8)
        numbers = np.int32(seeds), {}, block, np.int32(0), np.int32(steps)
        dispatch = program.dispatch.lower(full.carry, full.frozen, feed, *numbers)
        lowered[len(seeds)] = dispatch, size((full.carry, feed.per_replica, block))
    return lowered


def test_more_seeds_give_a_dispatch_more_adapters_and_no_other_base(dispatches):
    (one, own), (five, owns) = dispatches[1], dispatches[5]
    sizes = [each.compile().memory_analysis().argument_size_in_bytes for each in (one, five)]
    base = 4 * WIDTH**2
    assert owns - own < base < sizes[0]
    assert sizes[1] - sizes[0] == pytest.approx(owns - own, rel=0.01)


def test_the_base_multiplies_the_batches_of_all_seeds_as_it_is(dispatches):
    program, base = dispatches[5][0].as_text(), f"{WIDTH}x{WIDTH}xf32>"
    assert f"tensor<5x{base}" not in program
    assert f"tensor<1x{base}" in program  # the argument
    products = re.findall(rf"dot_general .*: \((tensor<[^>]*>), tensor<{base}\)", program)
    assert f"tensor<5x8x{WIDTH}xf32>" in products
    assert f"f32[5,{WIDTH},{WIDTH}]" not in dispatches[5][0].compile().as_text()


def test_a_checkpoint_is_completed_by_the_one_base():
    setup = resolve(stage(), None)
    replicas = over_seeds(setup, SEEDS)
    full = start(replicas, None)
    stored = without_constants(replicas, full)
    assert not flatten(stored.frozen).keys() & BASE
    again = with_constants(replicas, stored, None)
    jax.tree.map(np.testing.assert_array_equal, again, full)
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, full)


def test_what_a_stage_trains_is_not_shared_after_it():
    first = resolve(stage(), None)
    everything = transfer.full(optax.sgd(0.1))
    then = dataclasses.replace(stage(name="then"), fresh=(), weights=None)
    tuned = resolve(then, first)
    assert tuned.shared == BASE and tuned.origin == Numbers(1e-6)
    trained = resolve(dataclasses.replace(then, method=everything), tuned)
    assert not trained.shared and not resolve(then, trained).shared
    replicas = over_seeds(trained, SEEDS)
    full = start(over_seeds(first, SEEDS), None)
    later = start(replicas, (full.params, full.state))
    assert {leaf.shape[0] for leaf in jax.tree.leaves(later)} == {len(SEEDS)}
    kernel = later.params["backbone"]["net"]["Dense_1"]["kernel"]
    np.testing.assert_array_equal(kernel[4], full.params["backbone"]["net"]["Dense_1"]["kernel"][0])


def test_points_of_a_sweep_that_start_from_other_weights_share_nothing():
    setups = [resolve(stage(weights=Numbers(factor)), None) for factor in (1e-6, 1e-6, 2e-6)]
    same = dataclasses.replace(over_seeds(setups[0], (0, 1)), setups=tuple(setups[:2]))
    assert same.shared == BASE
    other = dataclasses.replace(same, setups=tuple(setups[1:]))
    assert not other.shared


def test_finished_stages_are_on_the_host_and_gone_when_nothing_asks_for_them(tmp_path):
    kernels, earlier = {}, jax.live_arrays()  # of other tests

    def look(arm):
        gc.collect()
        others = set(map(id, earlier))
        on_devices = {array.shape for array in jax.live_arrays() if id(array) not in others}
        for name, trained in arm.trained.items():
            kernels[name] = kernel = trained.params["backbone"]["body"]["dense"]["kernel"]
            assert kernel.shape == (2, 5, 8) and kernel.shape not in on_devices

    plan = experiment(steps=2, analyses=[Analysis("look", look)])
    before = live_bytes()
    with jax.set_mesh(make_mesh("")):
        checked = check(plan, tiny_run(tmp_path, ("full",)))
        done = train_arms(checked, Reporter(Console(file=io.StringIO())), swept=False)
    assert not done.results["full"].not_computed and kernels.keys() == {"pretrain", "adapt"}
    assert all(isinstance(kernel, np.ndarray) for kernel in kernels.values())
    assert not any(trained.params for trained in done.trained.values())
    assert live_bytes() - before < 1000  # a few numbers such as constants of programs


def test_a_stage_on_the_host_keeps_what_it_loaded_and_copies_the_rest(tmp_path):
    method = transfer.partial(optax.adam(0.1), freeze=("backbone/body/dense/.*",))
    adapt = dataclasses.replace(stages(method)[1], fresh=("heads/.*",), weights=Numbers())
    trained = train(adapt, tmp_path)
    on_host = trained.on_host(None)
    published = trained.replicas.setup.published
    flat = flatten(on_host.params)
    for path, leaf in flat.items():
        same = path.startswith("backbone/body/dense/")
        assert len(leaf) == (1 if same else 2), path
        assert np.shares_memory(leaf, published[path]) if same else leaf.flags.owndata, path
    jax.tree.map(np.testing.assert_array_equal, on_host.on_devices().params, trained.params)
    second = on_host.part([1])
    assert len(second.params["backbone"]["body"]["last"]["kernel"]) == 1
    joined = join_blocks([on_host.part([1]), on_host.part([0])])
    for path, leaf in flatten(joined.params).items():
        np.testing.assert_array_equal(leaf, flat[path][::-1], err_msg=path)
