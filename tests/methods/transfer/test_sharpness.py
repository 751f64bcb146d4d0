"""SAM and ASAM against NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_layers import SGD, draw, initial, numbers, objective, value_and_gradient

from jaxtl.methods import transfer
from jaxtl.paths import flatten, nest
from jaxtl.plan import Method, State, Update, stateless


def ascended(params, gradient, radius, sizes=None):
    """The perturbed parameters of SAM, or of ASAM with the sizes of the weights."""
    sizes = sizes or {path: np.ones(leaf.shape) for path, leaf in gradient.items()}
    norm = np.sqrt(sum(np.sum((sizes[p] * g) ** 2) for p, g in gradient.items()))
    return {p: params[p] + radius * sizes[p] ** 2 * g / norm for p, g in gradient.items()}


@pytest.mark.parametrize("wrap", [transfer.sam, transfer.asam])
def test_sam_has_the_loss_and_gradient_of_the_ascended_point(wrap):
    frozen = {"frozen": (("backbone/first/.*",), SGD), "all": ((".*",), SGD)}
    plain = transfer.grouped(frozen)
    params, batch = initial(), draw()

    def gradient_at(point):
        return numbers(value_and_gradient(plain, point, State({}), batch)[3])

    trained = [p for p in flatten(params) if p.startswith(("backbone/second/", "heads/target/"))]
    here = {path: gradient_at(params)[path] for path in trained}
    flat = numbers(params)
    sizes = {path: np.abs(flat[path]) + 0.01 for path in trained}
    there = {**flat, **ascended(flat, here, 0.4, sizes if wrap is transfer.asam else None)}
    point = jax.tree.map(jnp.float32, nest(there))
    value, _, _, gradient = value_and_gradient(wrap(plain, radius=0.4), params, State({}), batch)
    np.testing.assert_allclose(value, objective(point, batch), rtol=1e-4)
    assert value > objective(params, batch) + 0.05
    expected = gradient_at(point)
    for path in trained:
        np.testing.assert_allclose(flatten(gradient)[path], expected[path], rtol=2e-3, atol=1e-5)


def test_sam_where_there_is_no_gradient_and_what_it_hands_on():
    def loss_fn(model, params, state, batch, rng, step):
        bias = params["heads"]["target"]["bias"]
        return jnp.sum(bias**2), ({"seen": bias}, {"seen": bias.sum()})

    bare = Method({"all": ((".*",), SGD)}, (Update(loss_fn, per_example=True),))
    method, params = transfer.sam(bare, radius=1.0), initial()
    assert not method.updates[0].per_example
    value, state, metrics, gradient = value_and_gradient(method, params, State({}), draw())
    assert value == 0 and not any(leaf.any() for leaf in jax.tree.leaves(gradient))
    params["heads"]["target"]["bias"] = jnp.array([3.0, 0.0, 4.0])
    value, state, metrics, _ = value_and_gradient(method, params, State({}), draw())
    assert value == pytest.approx(36.0, rel=1e-5)  # |bias| 5, 1 further out
    assert metrics["seen"] == pytest.approx(3.6 + 4.8, rel=1e-5)
    np.testing.assert_array_equal(state["seen"], [3.0, 0.0, 4.0])
    combined = dataclasses.replace(
        bare, updates=(Update(loss_fn, combine=stateless(lambda j, v: j)),)
    )
    with pytest.raises(ValueError, match="one loss each"):
        transfer.sam(combined)
