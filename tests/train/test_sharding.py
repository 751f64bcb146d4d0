import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jaxtl.train.sharding import make_mesh, shard_batch, shard_state, to_host


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
