"""Trees whose leaves lead with the axis of replicas, or with an axis of size 1 where all agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl.train.resolve.replicas import (
    axes,
    concatenate,
    map_replicas,
    replica,
    spread,
    take,
)


def _tree(count: int = 3) -> dict:
    """{"base": [1, 2, 2], "heads": {"y": [count, 2]}}."""
    return {
        "base": np.arange(4.0).reshape(1, 2, 2),
        "heads": {"y": np.arange(2.0 * count).reshape(count, 2)},
    }


def _product(tree: dict, x: jax.Array) -> jax.Array:
    return x @ tree["base"] + tree["heads"]["y"]


def _expected(tree: dict, inputs: np.ndarray) -> np.ndarray:
    pairs = zip(tree["heads"]["y"], inputs, strict=True)
    return np.stack([x @ tree["base"][0] + y for y, x in pairs])


@pytest.mark.parametrize("number", [0, 2])
def test_replica(number):
    tree = _tree()
    expected = {"base": tree["base"][0], "heads": {"y": tree["heads"]["y"][number]}}
    for given in (replica(tree, number), jax.jit(replica)(tree, number)):
        jax.tree.map(np.testing.assert_array_equal, given, expected)


def test_replica_of_a_leaf_held_once_needs_no_clamping():
    with pytest.raises(IndexError):
        replica({"y": np.zeros((2, 3))}, 2)
    assert replica({"base": np.zeros((1, 3))}, 2)["base"].shape == (3,)


def test_vmap_over_axes():
    tree, inputs = _tree(), np.eye(3, 2)
    (given, rows), in_axes = axes((tree, inputs), 3)
    assert in_axes == ({"base": None, "heads": {"y": 0}}, 0)
    assert given["base"].shape == (2, 2)
    result = jax.vmap(_product, in_axes)(given, rows)
    np.testing.assert_allclose(result, _expected(tree, inputs))


def test_the_axes_of_one_replica_are_mapped():
    given, in_axes = axes(_tree(1), 1)
    assert in_axes == {"base": 0, "heads": {"y": 0}}
    assert given["base"].shape == (1, 2, 2)


def test_all_leaves_held_once():
    base = {"base": np.ones((1, 2))}
    given, in_axes = axes(base, 3)
    result = jax.vmap(lambda tree: tree["base"] * 2, (in_axes,), axis_size=3)(given)
    np.testing.assert_array_equal(result, np.full((3, 2), 2))
    mapped = map_replicas(lambda tree: tree["base"] * 2, (base,), 3)
    np.testing.assert_array_equal(mapped, result)


@pytest.mark.parametrize("count", [1, 3])
def test_map_replicas(count):
    tree, inputs = _tree(count), np.eye(count, 2)
    run = jax.jit(lambda *trees: map_replicas(_product, trees, count))
    np.testing.assert_allclose(run(tree, inputs), _expected(tree, inputs))


def test_a_loop_over_replicas_copies_no_leaf_that_is_held_once():
    tree, inputs = _tree(), jnp.eye(3, 2)
    program = str(jax.make_jaxpr(lambda *t: map_replicas(_product, t, 3))(tree, inputs))
    assert "3,2,2" not in program


def test_a_tree_with_an_empty_branch():
    tree = _tree() | {"method": None, "others": {}}
    given, in_axes = axes((tree,), 3)

    def total(tree):
        return tree["base"].sum() + tree["heads"]["y"].sum()

    np.testing.assert_allclose(jax.vmap(total, in_axes)(*given), [7, 11, 15])
    np.testing.assert_allclose(map_replicas(total, (tree,), 3), [7, 11, 15])


def test_take():
    taken = take(_tree(), [2, 0])
    np.testing.assert_array_equal(taken["heads"]["y"], [[4, 5], [0, 1]])
    np.testing.assert_array_equal(taken["base"], _tree()["base"])
    assert len(take(_tree(), slice(1, 2))["heads"]["y"]) == 1


def test_concatenate_what_comes_from_one_place():
    first, second = _tree(3), _tree(1)
    first["own"], second["own"] = np.zeros((1, 2)), np.ones((1, 2))  # equal for its replicas only
    joined = concatenate([first, second], (3, 1), {"base"})
    np.testing.assert_array_equal(joined["base"], first["base"])
    np.testing.assert_array_equal(joined["heads"]["y"], [[0, 1], [2, 3], [4, 5], [0, 1]])
    np.testing.assert_array_equal(joined["own"], [[0, 0], [0, 0], [0, 0], [1, 1]])
    assert isinstance(joined["own"], np.ndarray)


def test_concatenate_what_comes_from_several():
    joined = concatenate([_tree(3), _tree(2)], (3, 2))
    assert joined["base"].shape == (5, 2, 2)


@pytest.mark.parametrize("xp", [np, jnp])
def test_spread(xp):
    leaf = xp.arange(2.0)[None]
    np.testing.assert_array_equal(spread(leaf, 3), [[0, 1]] * 3)
    assert spread(spread(leaf, 3), 3).shape == (3, 2)


def test_gradients_of_a_leaf_held_once_add_up():
    tree, inputs = _tree(), jnp.eye(3, 2)

    def total(base, run):
        return run({**tree, "base": base}, inputs).sum()

    def by_vmap(*trees):
        given, in_axes = axes(trees, 3)
        return jax.vmap(_product, in_axes)(*given)

    def by_loop(*trees):
        return map_replicas(_product, trees, 3)

    expected = np.broadcast_to(inputs.sum(0)[:, None], (2, 2))
    for run in (by_vmap, by_loop):
        np.testing.assert_allclose(jax.grad(total)(tree["base"], run)[0], expected)
