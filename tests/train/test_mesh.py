import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.plan import Stage, labelled
from jaxtl.train.dispatch.programs import make_program
from jaxtl.train.feed.order import index_block
from jaxtl.train.mesh import check_batch, make_mesh, shard_batch, shard_state, to_host
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.state import start


def test_mesh_sizes_and_default():
    assert dict(make_mesh("data=4,model=2").shape) == {"data": 4, "model": 2}
    assert dict(make_mesh("model=8").shape) == {"data": 1, "model": 8}
    assert dict(make_mesh().shape) == {"data": 1, "model": 1}


@pytest.mark.parametrize("text", ["data=3,modl=2", "data", "data=0", "data=x", "data=16"])
def test_a_mesh_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match=r"run\.mesh"):
        make_mesh(text)


def test_large_leaves_are_split_along_their_largest_divisible_axis_but_never_over_seeds():
    tree = {
        "kernel": jax.ShapeDtypeStruct((4, 64, 128), jnp.float32),
        "odd": jax.ShapeDtypeStruct((4, 63, 129), jnp.float32),
        "bias": jax.ShapeDtypeStruct((4, 128), jnp.float32),
        "count": jax.ShapeDtypeStruct((4,), jnp.int32),
    }
    with jax.set_mesh(make_mesh("data=4,model=2")):
        specs = {name: sharding.spec for name, sharding in shard_state(tree).items()}
    assert specs == {"kernel": P(None, None, "model"), "odd": P(), "bias": P(), "count": P()}


def test_batches_are_split_along_data_and_come_back_whole():
    x = jnp.arange(32.0).reshape(16, 2)
    mesh = make_mesh("data=4,model=2")
    placed = jax.jit(lambda x: shard_batch(mesh, x))(x)
    assert placed.sharding.spec == P("data")
    assert (to_host(placed) == x).all()


@pytest.mark.parametrize("build", [models.conv_net, models.mlp])
def test_a_step_split_over_devices_sums_gradients_and_gathers_no_activations(build):
    inputs = np.zeros((64, 8, 8, 1), np.uint8) if build is models.conv_net else np.zeros((64, 9))
    domain = labelled(data.arrays(inputs, np.arange(64) % 3), "y")
    method = transfer.full(optax.adam(1e-3))
    stage = Stage(
        "s", build({"y": models.classes(3)}), method, domains=[domain], batch_size=16, num_steps=4
    )
    setup = resolve(stage, None)
    with jax.set_mesh(make_mesh("data=8")):
        replicas = over_seeds(setup, (0, 1))
        full = start(replicas, None)
        made = make_program(replicas, full, RunOptions())
        block = index_block(made.streams, 0, made.schedule.steps, 16)
        carry = full.carry
        seeds, numbers = np.int32([0, 1]), (np.int32(0), np.int32(4))
        args = (carry, full.frozen, made.feed, seeds, {}, block, *numbers)
        program = made.dispatch.lower(*args).compile().as_text()
    assert "all-reduce" in program
    assert "all-gather" not in program and "all-to-all" not in program


def test_a_batch_that_does_not_divide_is_refused_by_name():
    check_batch(make_mesh("data=4"), "pretrain", 64)
    with pytest.raises(ValueError, match=r"'pretrain': a batch of 10 .* over 4 devices"):
        check_batch(make_mesh("data=4"), "pretrain", 10)
