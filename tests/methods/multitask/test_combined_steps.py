"""Whole steps of rules that combine gradients: how many passes, over how many devices, of what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from several_tasks import KEY, RATE, SGD, begun, losses, stepper
from tiny import assert_same

from jaxtl import paths
from jaxtl.methods import multitask, transfer
from jaxtl.plan import Method, Update
from jaxtl.train.mesh import make_mesh
from jaxtl.train.step import make_step

OUTPUTS, KERNEL = 8 * 3, 5 * 6
"""Sizes that one product of the forward pass has, and one over examples of each backward pass."""


def products(jaxpr):
    """(size of the result, length of the sums in it) of all matrix products of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (axes, _), _ = equation.params["dimension_numbers"]
            length = np.prod([equation.invars[0].aval.shape[axis] for axis in axes])
            yield equation.outvars[0].aval.size, length
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize(
    ("method", "backward"),
    [
        (transfer.full(SGD), 1),
        (multitask.joint(SGD, multitask.uncertainty_weighting(SGD)), 1),
        (multitask.joint(SGD, multitask.upgrad()), 2),
        (multitask.joint(SGD, multitask.graddrop()), 2),
        (multitask.joint(SGD, multitask.cagrad(), per="pair"), 4),
    ],
)
def test_one_forward_pass_and_one_backward_pass_a_gradient(method, backward):
    domains = 2 if backward == 4 else 1
    setup, state, batch = begun(method, domains)
    program = jax.make_jaxpr(make_step(setup))(state, batch, KEY, jnp.int32(0))
    shapes = list(products(program.jaxpr))
    assert shapes.count((domains * OUTPUTS, 6)) == 1
    assert shapes.count((KERNEL, domains * 8)) == backward


@pytest.mark.parametrize("rule", [multitask.nash_mtl(), multitask.moco()], ids=["nash", "moco"])
def test_a_step_over_eight_devices_is_that_of_one(rule):
    """The Gram matrix too: what is logged is made of it."""
    setup, state, batch = begun(multitask.joint(SGD, rule))
    step = stepper(setup)
    after, metrics = step(state, batch)
    mesh = make_mesh("data=8")
    with jax.set_mesh(mesh):
        split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
        whole = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
        assert split.inputs.sharding.num_devices == 8
        again, more = stepper(setup)(whole, split)
    assert {"cosine", "conflicts", "weight_0", "weight_1"} <= metrics.keys()
    assert_same(more, metrics, rtol=1e-4, atol=1e-6)
    assert_same(again.params, after.params, rtol=1e-4, atol=1e-6)
    assert_same(again.rules, after.rules, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["graddrop", "aligned_mtl"])
def test_only_what_is_shared_is_combined(name):
    rule = getattr(multitask, name)()
    setup, state, batch = begun(multitask.joint(SGD, rule, shared=("backbone/.*/kernel",)))
    jacobian = jax.jit(jax.jacrev(lambda params: losses(setup.model, params, batch)))(state.params)
    after, _ = stepper(setup)(state, batch)
    moved = jax.tree.map(lambda old, new: (old - new) / RATE, state.params, after.params)
    moved = paths.flatten(moved)
    for path, rows in paths.flatten(jacobian).items():
        alike = np.allclose(moved[path], rows.sum(0), rtol=1e-4, atol=1e-6)
        assert alike == (path != "backbone/dense_0/kernel"), path


def test_a_combiner_of_a_scalar_loss_is_refused():
    loss = transfer.full(SGD).updates[0].loss
    update = Update(loss, per_example=True, combine=multitask.mgda())
    with pytest.raises(
        ValueError, match=r"must be a vector \[tasks\] .*losses\.task_losses"
    ) as error:
        begun(Method({"all": ((".*",), SGD)}, (update,)))
    assert len(str(error.value).splitlines()) == 1
