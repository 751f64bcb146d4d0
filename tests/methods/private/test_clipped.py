"""Gradients of single examples against a loop over them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from several_tasks import RATE, SGD, SIZE, begun, losses, stepped
from tiny import Body, assert_same, blobs

from jaxtl import models, paths
from jaxtl.methods import private, transfer
from jaxtl.models import classes
from jaxtl.plan import Stage, labelled
from jaxtl.train import gradients
from jaxtl.train.resolve.stage import resolve


def one_by_one(setup, params, batch, norm):
    """(mean of clipped gradients, share of the present examples that were clipped)."""
    slope = jax.jit(jax.grad(lambda params, one: losses(setup.model, params, one).sum()))
    total, hits = jax.tree.map(lambda leaf: np.zeros(leaf.shape), params), []
    for i in range(SIZE):
        for d in range(len(batch.roles)):
            one = jax.tree.map(lambda leaf, i=i, d=d: leaf[i : i + 1, d : d + 1], batch)
            if one.present[0, 0] == 0:
                continue
            one = one.replace(roles=batch.roles[d : d + 1])
            found = jax.tree.map(np.float64, slope(params, one))
            length = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(found)))
            hits.append(length > norm)
            scale = 1 / max(1, length / norm)
            total = jax.tree.map(lambda t, leaf, s=scale: t + s * leaf, total, found)
    return jax.tree.map(lambda leaf: leaf / SIZE, total), np.mean(hits)


@pytest.mark.parametrize(("domains", "parts"), [(1, 1), (2, 2), (2, 8)])
def test_a_clipped_step(domains, parts, monkeypatch):
    norm = 1.5
    setup, state, batch = begun(private.clipped(SGD, norm=norm), domains)
    present = np.ones((SIZE, domains), np.float32)
    present[3, 0] = 0
    weights = {head: w * present for head, w in batch.weights.items()}
    batch = batch.replace(present=jnp.asarray(present), weights=weights)
    expected, share = one_by_one(setup, state.params, batch, norm)
    assert 0 < share < 1
    # An absent example may hold anything.
    batch = batch.replace(inputs=batch.inputs.at[3, 0].set(jnp.nan))
    if parts == 8:  # as few at a time as if gradients were large
        parts = 1
        monkeypatch.setattr(gradients, "GRADIENT_BYTES", 1)
    after, metrics = stepped(setup, state, batch, parts)
    moved = jax.tree.map(lambda old, new: (old - new) / RATE, state.params, after.params)
    assert_same(moved, expected, rtol=1e-4, atol=1e-6)
    assert metrics["clipped"] == pytest.approx(share) and after.failed == -1


@pytest.mark.slow
def test_a_large_bound_changes_nothing_and_a_part_of_the_groups_is_its_own_norm():
    setup, state, batch = begun(private.clipped(SGD, norm=1e9), 2)
    plain, _ = stepped(*begun(transfer.full(SGD), 2))
    assert_same(stepped(setup, state, batch)[0].params, plain.params, rtol=1e-5, atol=1e-6)
    groups = {"heads": (("heads/.*",), SGD), "rest": ((".*",), SGD)}
    whole = private.clipped(groups, norm=0.5)
    together = stepped(*begun(whole))[0].params
    assert_same(together, stepped(*begun(private.clipped(SGD, norm=0.5)))[0].params, rtol=1e-5)
    update = dataclasses.replace(whole.updates[0], optimizers=("heads",))
    setup, state, batch = begun(dataclasses.replace(whole, updates=(update,)))
    after = stepped(setup, state, batch)[0].params
    before = paths.flatten(state.params)
    moved = {p for p, leaf in paths.flatten(after).items() if not np.array_equal(leaf, before[p])}
    assert {path.split("/")[0] for path in moved} == {"heads"}


def refused(method, model=None):
    model = model or models.mlp({"source": classes(3)}, hidden=(4,))
    stage = Stage(
        "s", model, method, domains=[labelled(blobs("source"), "source")], batch_size=8, num_steps=2
    )
    with pytest.raises(ValueError) as error:
        resolve(stage, None)
    return str(error.value)


def test_what_couples_examples_is_refused():
    live = models.from_linen(Body(), {"source": classes(3)})
    method = private.clipped(SGD, norm=1.0)
    assert "batch statistics that follow the data couple them" in refused(method, live)
    update = dataclasses.replace(method.updates[0], per_example=False)
    assert "must be a mean over examples" in refused(dataclasses.replace(method, updates=(update,)))
    with pytest.raises(ValueError, match="a norm above 0, got 0"):
        private.clipped(SGD, norm=0)
    searching = private.clipped(optax.lbfgs(), norm=1.0)
    with pytest.raises(ValueError, match="needs arguments that a training step has not"):
        stepped(*begun(searching))
