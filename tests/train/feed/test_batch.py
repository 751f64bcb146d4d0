"""Contract of `Batch` with the engine: whatever a step runs under, roles are static and the index
says which row of its domain's table an example is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import OPTIONS, train

from jaxtl import data, models
from jaxtl.losses import supervised
from jaxtl.methods import transfer
from jaxtl.models import apply_flat, regression
from jaxtl.plan import Stage, State, Update, labelled, unlabelled
from jaxtl.plan.batch import Batch, make_batch
from jaxtl.train.mesh import make_mesh

SEEDS, STEPS, SIZE = (0, 3), 9, 8
ROLES = ("source", "target", "target")


def numbered(name, rows, seed):
    """Noise; the label of an example is its row, and so is the end of its inputs."""
    inputs = np.random.default_rng(seed).normal(size=(rows, 500)).astype(np.float32)
    inputs[:, -1] = np.arange(rows)
    return data.arrays(inputs, {"row": np.arange(rows, dtype=np.float32)}, name=name)


def stage(freeze):
    """Seeds draw different rows of three tables; the loss logs what it finds in the batch."""
    model = models.mlp({"row": regression()}, hidden=(4, 4))
    first, second = numbered("first", 300, 0), numbered("second", 1200, 1)
    domains = [
        labelled(first.take(100), {"row": "row"}),
        unlabelled(second.take(64), {"row": "row"}),
        labelled(second.take(5), {"row": "row"}, role="target"),
    ]

    def loss(model, params, state, batch, rng, step):
        assert isinstance(batch, Batch) and batch.roles == ROLES
        assert all(type(role) is str for role in batch.roles)  # no tracer
        assert batch.index.dtype == jnp.int32
        output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
        task, _ = supervised(model.heads, output["logits"], batch)
        known = batch.weights["row"] > 0
        off = jnp.where(known, jnp.abs(batch.labels["row"] - batch.index), 0)
        rows = jnp.mean(jnp.asarray(batch.index, jnp.float32), 0)
        found = {"off": off.mean(), "known": known.mean(), "present": batch.present.mean()}
        found |= {f"rows_{d}": rows[d] for d in range(len(ROLES))}
        return 1e-9 * task, (state, found)

    method = (
        transfer.partial(optax.sgd(0.1), freeze=freeze) if freeze else transfer.full(optax.sgd(0.1))
    )
    update = Update(loss, per_example=True)
    method = dataclasses.replace(method, updates=(update,), fresh_frozen=True)
    return Stage("numbered", model, method, domains=domains, batch_size=SIZE, num_steps=STEPS)


WAYS = {
    "jit, one step a dispatch": ({"steps_per_dispatch": 1}, "", False),
    "scan": ({"steps_per_dispatch": 4}, "", False),
    "micro-batches": ({"micro_batch": 2}, "", False),
    "eight devices": ({}, "data=8", False),
    "eight devices, split parameters, micro-batches": ({"micro_batch": 4}, "data=2,model=4", False),
    "pages from the host": ({"device_data_mb": 1}, "", False),
    "feature cache": ({}, "", True),
    "feature cache on disk, in pages": ({"feature_cache_mb": 0}, "", True),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    options = dataclasses.replace(OPTIONS, log_every=1, feature_cache=False)
    return train(stage(()), tmp_path_factory.mktemp("plain"), seeds=SEEDS, options=options).curves


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_is_the_same_under(way, plain, tmp_path):
    settings, mesh, cached = WAYS[way]
    options = dataclasses.replace(OPTIONS, **{"log_every": 1, **settings})
    freeze = ("backbone/dense_0/.*",) if cached else ()
    with jax.set_mesh(make_mesh(mesh)):
        trained = train(stage(freeze), tmp_path, seeds=SEEDS, options=options)
    assert ("cached" in trained.note) == cached
    assert not trained.failed.any() and trained.curves["off"].shape == (STEPS, len(SEEDS))
    np.testing.assert_array_equal(trained.curves["off"], 0)
    np.testing.assert_allclose(trained.curves["known"], 2 / 3, rtol=1e-6)
    for name in ("rows_0", "rows_1", "rows_2"):  # the order of the examples is that of (seed, step)
        np.testing.assert_allclose(trained.curves[name], plain[name], rtol=1e-5)
    assert (plain["rows_1"][:, 0] != plain["rows_1"][:, 1]).any()  # seeds draw rows of their own


def test_every_part_of_a_batch_follows_the_transformations():
    inputs = {"image": jnp.arange(24.0).reshape(4, 2, 3), "mask": jnp.ones((4, 2), bool)}
    batch = make_batch(inputs, {"h": jnp.zeros((4, 2), int)}, roles=("source", "target"))
    np.testing.assert_array_equal(batch.index[:, 0], np.arange(4))

    def body(total, part):
        assert part.roles == ("source", "target")
        return total + part.index.sum() + part.present.sum(), part

    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), batch)
    total, parts = jax.lax.scan(body, 0.0, stacked)
    assert total == 2 * (2 * 6 + 8) and parts.roles == batch.roles
    doubled = jax.vmap(lambda one: one.replace(present=2 * one.present))(stacked)
    assert doubled.roles == batch.roles and (doubled.present == 2).all()
    slope = jax.grad(lambda one: jnp.sum(one.inputs["image"] ** 2), allow_int=True)(batch)
    np.testing.assert_array_equal(slope.inputs["image"], 2 * inputs["image"])


def test_a_loss_of_before_is_told_what_to_write():
    batch = make_batch(jnp.zeros((2, 1)), {"h": jnp.zeros((2, 1), int)})
    with pytest.raises(TypeError, match=r"write batch\.inputs in place of batch\['inputs'\]"):
        batch["inputs"]
    with pytest.raises(TypeError, match=r"write state\.method or state\.statistics"):
        State({})["method"]
    model = models.mlp({"h": regression()}, hidden=(2,))
    with pytest.raises(TypeError, match=r"give it state\.statistics"):
        model.apply({}, State({}), jnp.zeros((2, 1)))
