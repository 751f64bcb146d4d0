"""How a stage is compiled: what is found in its program, the schedule chosen, the programs made."""

import dataclasses
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import OPTIONS, assert_same, mlp_stage, train

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.models import Block, classes, from_blocks
from jaxtl.models.conv_net import relu_max_pool
from jaxtl.models.layers import Conv
from jaxtl.paths import flatten
from jaxtl.plan import Stage, labelled
from jaxtl.train.dispatch import programs, shared
from jaxtl.train.dispatch.programs import make_program
from jaxtl.train.feed.order import index_block
from jaxtl.train.feed.pace import BLOCK_BYTES
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.convolutions import Convolutions, convolutions
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.schedule import PATCH_BYTES
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.state import abstract_state, start

HEADS = {"source": classes(3)}


class PlainConv(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(4, (3, 3))(x)).mean((1, 2))


def images(n=24, size=6):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    inputs = rng.normal(size=(n, size, size, 1)) + labels[:, None, None, None]
    return data.arrays(inputs.astype(np.float32), labels, name="images")


def kind_of_stage(kind):
    if kind == "vmap":
        return mlp_stage(6)
    model = {
        "patches": lambda: from_blocks([Block("conv_0", Conv(4, (3, 3)), relu_max_pool)], HEADS),
        "native": lambda: models.from_linen(PlainConv(), HEADS),
    }[kind]()
    domains = [labelled(images(), "source")]
    return Stage(
        kind, model, transfer.full(optax.sgd(0.1)), domains=domains, batch_size=4, num_steps=6
    )


@pytest.mark.parametrize(
    "kind",
    ["vmap", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("patches", "native"))],
)
def test_seeds_trained_together_are_those_trained_alone(tmp_path, kind):
    stage, seeds = kind_of_stage(kind), (3, 0)
    assert schedule(stage).seeds == ("vmap" if kind == "vmap" else "threads")
    both = train(stage, tmp_path / "both", seeds=seeds)
    for i, seed in enumerate(seeds):
        alone = train(stage, tmp_path / str(seed), seeds=(seed,))
        ours = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], both.params)
        assert_same(ours, alone.params, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            both.curves["loss"][:, i : i + 1], alone.curves["loss"], rtol=1e-5, atol=1e-6
        )
    values = flatten(both.params)["heads/source/kernel"]
    assert not np.allclose(values[0], values[1])


@pytest.fixture
def compiled(monkeypatch):
    """How often each dispatch that the loop makes is compiled; it takes one set of shapes."""
    shared._compiled.clear()
    counts, make = [], programs.make_dispatch

    def spy(*args):
        dispatch, number = make(*args), len(counts)
        counts.append(0)

        def lower(*args):
            counts[number] += 1
            return dispatch.lower(*args)

        return types.SimpleNamespace(lower=lower)

    monkeypatch.setattr(programs, "make_dispatch", spy)
    return counts


@pytest.mark.parametrize("steps", [1, 4, 23])
def test_one_program_per_stage_whatever_the_number_of_steps(tmp_path, compiled, steps):
    train(mlp_stage(steps), tmp_path)
    assert compiled == [1]


def test_a_longer_stage_runs_the_same_program(tmp_path, compiled):
    train(mlp_stage(9), tmp_path)
    train(mlp_stage(23), tmp_path)
    assert compiled == [1, 0]


def test_the_carry_is_donated_and_the_frozen_part_is_not():
    method = transfer.partial(optax.adam(1e-2), freeze=("backbone/.*",))
    stage = dataclasses.replace(mlp_stage(), method=dataclasses.replace(method, fresh_frozen=True))
    setup, seeds = resolve(stage, None), (0, 1)
    options = dataclasses.replace(OPTIONS, feature_cache=False)
    replicas = over_seeds(setup, seeds)
    full = start(replicas, None)
    program = make_program(replicas, full, options)
    carry, feed = full.carry, program.feed
    block = index_block(program.streams, 0, program.schedule.steps, stage.batch_size)
    args = (full.frozen, feed, jnp.asarray(seeds), {}, block, np.int32(0), np.int32(2))
    after, metrics = program.dispatch(carry, *args)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(carry.trainable))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((full.frozen, feed, after)))
    np.testing.assert_array_equal(metrics["loss"][:, 2:], 0)  # beyond count
    assert (metrics["loss"][:, :2] > 0).all()


def found(model, shape):
    """What the gradient of a model's logits on inputs of a shape holds."""
    inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), inputs)

    def loss(params, state, inputs):
        return model.apply(params, state, inputs)[0]["logits"]["source"].sum()

    return convolutions(jax.make_jaxpr(jax.grad(loss))(params, state, inputs).jaxpr)


def test_convolutions_as_patches_are_told_from_ordinary_ones():
    assert found(models.mlp(HEADS, hidden=(8,)), (4, 5)) == Convolutions(False, 0)
    patches = found(models.conv_net(HEADS), (16, 8, 8, 1))
    assert not patches.native
    assert patches.patch_bytes == 16 * 4 * 4 * (9 * 32) * 4  # those of conv_1, at 4 x 4
    ordinary = found(models.from_linen(PlainConv(), HEADS), (4, 6, 6, 1))
    assert ordinary == Convolutions(True, 0)


def test_convolutions_that_are_not_differentiated_are_native():
    model = models.conv_net(HEADS)
    inputs = jax.ShapeDtypeStruct((16, 8, 8, 1), jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), inputs)

    def loss(heads, params, inputs):
        return model.apply({**params, "heads": heads}, state, inputs)[0]["logits"]["source"].sum()

    probe = jax.make_jaxpr(jax.grad(loss))(params["heads"], params, inputs).jaxpr
    assert convolutions(probe) == Convolutions(False, 0, True)
    method = dataclasses.replace(transfer.probe(optax.sgd(0.1)), fresh_frozen=True)
    stage = Stage(
        "probe", model, method, domains=[labelled(images(16), "source")], batch_size=16, num_steps=2
    )
    assert schedule(stage, feature_cache=False).seeds == "threads"  # batched kernels would be slow


def test_convolutions_inside_loops_and_compiled_functions_are_found():
    kernel = jnp.zeros((3, 3, 1, 2))

    @jax.jit
    def one(x):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def looped(x):
        return jax.lax.scan(lambda total, _: (total + one(x).sum(), None), 0.0, None, length=3)[0]

    assert convolutions(jax.make_jaxpr(looped)(jnp.zeros((1, 6, 6, 1))).jaxpr).native


def schedule(stage, **options):
    setup = resolve(stage, None)
    replicas = over_seeds(setup, (0, 1))
    full = jax.eval_shape(lambda: abstract_state(replicas))
    return make_program(replicas, full, RunOptions(**options)).schedule


def test_micro_batches_are_as_asked_for_or_fit_the_cache():
    model = models.conv_net(HEADS)
    big = Stage(
        "big",
        model,
        transfer.full(optax.sgd(0.1)),
        domains=[labelled(images(64), "source")],
        batch_size=64,
        num_steps=2,
    )
    patches = 64 * 3 * 3 * (9 * 32) * 4
    assert patches < PATCH_BYTES and schedule(big).micro_batches == 1
    assert schedule(big, micro_batch=16).micro_batches == 4
    assert schedule(big, micro_batch=15).micro_batches == 8  # 5 parts would not be equal
    assert schedule(big, micro_batch=100).micro_batches == 1
    wide = images(48, size=16)
    wide = dataclasses.replace(big, domains=[labelled(wide, "source")], batch_size=48)
    parts = 48 * 8 * 8 * (9 * 32) * 4 / PATCH_BYTES
    assert 1 < parts <= 2 and schedule(wide).micro_batches == 2
    assert schedule(wide, micro_batch=-1).micro_batches == 1


def test_batches_that_share_statistics_are_not_cut_unasked():
    model = models.conv_net(HEADS, batch_norm=True)
    domains = [labelled(images(48, size=16), "source")]
    stage = Stage(
        "norm", model, transfer.full(optax.sgd(0.1)), domains=domains, batch_size=48, num_steps=2
    )
    assert schedule(stage).micro_batches == 1


def test_steps_per_dispatch_are_as_asked_for_but_ordinary_convolutions_go_one_by_one():
    assert schedule(mlp_stage(9)).steps == 16
    assert schedule(mlp_stage(9), steps_per_dispatch=3).steps == 3
    assert schedule(kind_of_stage("native"), steps_per_dispatch=3).steps == 1
    assert schedule(kind_of_stage("native")).steps == 1


def test_a_dispatch_has_room_for_many_small_steps_in_little_memory():
    assert schedule(mlp_stage(1000)).steps == 1024
    assert schedule(mlp_stage(10**9)).steps == 2**14
    wide = dataclasses.replace(mlp_stage(10**9), batch_size=2000)
    steps = schedule(wide).steps
    assert steps & (steps - 1) == 0 and BLOCK_BYTES / 2 < steps * 2 * 2008 * 4 <= BLOCK_BYTES
