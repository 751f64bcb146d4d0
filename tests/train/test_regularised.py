"""Contract of the regularised ways of fine-tuning with the engine, one row a method."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import OPTIONS, assert_same, blobs, train

from jaxtl import models
from jaxtl.methods import transfer
from jaxtl.models import Block, classes, from_blocks
from jaxtl.paths import flatten
from jaxtl.plan import Stage, labelled, unlabelled
from jaxtl.train.feed.examples import gather, make_feed
from jaxtl.train.feed.prefix import constant_prefix, needs_only_features
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.state import start
from jaxtl.train.step import make_step

HEADS = {"source": classes(3), "target": classes(2)}
ROWS = {
    "bi_tuning": functools.partial(transfer.bi_tuning, head="target", projection=5, queue=3),
    "bss": functools.partial(transfer.bss, penalty=0.1, count=2),
    "co_tuning": functools.partial(transfer.co_tuning, source="source", target="target"),
    "delta": functools.partial(transfer.delta, blocks={"second": 6, "third": 7}, examples=5),
    "l2_sp": transfer.l2_sp,
    "layerwise": lambda groups: transfer.grouped(
        {name: (p, transfer.layerwise(model(), tx, 0.5)) for name, (p, tx) in groups.items()}
    ),
    "mixup": transfer.mixup,
    "sam": lambda groups: transfer.sam(transfer.grouped(groups)),
    "sam of bi_tuning": lambda groups: transfer.sam(ROWS["bi_tuning"](groups)),
    "stoch_norm": transfer.grouped,
}


class Normed(nn.Module):
    size: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(self.size, name="dense")(x)
        return nn.BatchNorm(use_running_average=not train, name="norm")(x)


def model(name=""):
    layers = {"first": Normed(8), "second": Normed(6), "third": nn.Dense(7)}
    whole = from_blocks([Block(n, layer, nn.relu) for n, layer in layers.items()], HEADS)
    return models.stoch_norm(whole) if name == "stoch_norm" else whole


def groups():
    frozen = (("backbone/first/.*",), optax.set_to_zero())
    return {"frozen": frozen, "all": ((".*",), optax.adam(0.01))}


def adapt(name, **changes):
    """The first block is frozen; one domain has labels, another has not."""
    domains = [
        labelled(blobs("target", 21, 1.0, 2, seed=1), "target", weight=0.5),
        unlabelled(blobs("more", 10, 1.0, 2, seed=2), "target"),
    ]
    stage = Stage(
        "adapt",
        model(name),
        ROWS[name](groups()),
        domains=domains,
        batch_size=8,
        num_steps=2,
        fresh=("heads/target/.*",),
    )
    return dataclasses.replace(stage, **changes)


@functools.cache
def source():
    """(resolved stage, (params, state)) of an untrained source."""
    domains = [labelled(blobs("source"), "source")]
    setup = resolve(
        Stage(
            "pretrain",
            model(),
            transfer.full(optax.sgd(0.1)),
            domains=domains,
            batch_size=8,
            num_steps=3,
        ),
        None,
    )
    full = start(over_seeds(setup, (0,)), None)
    return setup, (full.params, full.state)


def two_steps(setup, step):
    """All leaves before the stage's first step and after its second, and the losses."""
    stage, replicas = setup.stage, over_seeds(setup, (0,))
    full, feed = start(replicas, source()[1]), make_feed(replicas, OPTIONS)
    full, own = jax.tree.map(lambda leaf: leaf[0], (full, feed.per_replica))
    first, losses = full, []
    for i in range(2):
        index = jnp.tile(8 * i + jnp.arange(8)[:, None], (1, 2)) % 10
        batch = gather(stage, feed.shared, own, index, jax.random.key(0))
        full, metrics = step(full, batch, jax.random.key(i), jnp.int32(i))
        losses.append(metrics["loss"])
    leaves = [flatten(one.params) | flatten(one.state.statistics) for one in (first, full)]
    return *leaves, losses


LONG = ("bi_tuning", "sam of bi_tuning", "bss")


@pytest.mark.parametrize(
    "name", [pytest.param(row, marks=[pytest.mark.slow] * (row in LONG)) for row in ROWS]
)
def test_steps_move_what_trains_and_nothing_else_with_the_same_bits_again(name):
    setup = resolve(adapt(name), source()[0])
    step = jax.jit(make_step(setup))
    before, after, losses = two_steps(setup, step)
    assert np.isfinite(losses).all() and losses[0] != losses[1]
    for path, leaf in after.items():
        frozen = path.startswith(("backbone/first/", "heads/source/"))
        assert np.array_equal(leaf, before[path]) == frozen, path
    _, again, repeated = two_steps(setup, step)
    assert losses == repeated
    assert_same(after, again)


@pytest.mark.parametrize("name", ROWS)
def test_frozen_features_are_cached_unless_the_loss_could_tell(name):
    setup = resolve(adapt(name), source()[0])
    prefix = constant_prefix(setup)
    assert prefix.block == "first"
    assert needs_only_features(setup, prefix) == (name != "mixup")


def test_the_feature_map_of_a_frozen_block_needs_the_inputs():
    method = transfer.delta(groups(), blocks={"first": 8, "third": 7})
    setup = resolve(adapt("delta", method=method), source()[0])
    assert not needs_only_features(setup, constant_prefix(setup))


def test_a_source_head_that_a_domain_names_trains_without_labels():
    def nothing(table):
        return np.full(len(table), -1)

    few = blobs("target", 21, 1.0, 2, seed=1).relabel("none", nothing, [*"abc"])
    both = [labelled(few, {"target": "label", "source": "none"})] * 2
    setup = resolve(adapt("co_tuning", domains=both), source()[0])
    before, after, _ = two_steps(setup, jax.jit(make_step(setup)))
    for leaf in ("kernel", "bias"):
        path = f"heads/source/{leaf}"
        assert not np.array_equal(before[path], after[path])


def test_cached_features_give_the_same(tmp_path):
    def run(cache):
        options = dataclasses.replace(OPTIONS, feature_cache=cache)
        more = {"source": source()[1], "parent": source()[0], "options": options}
        return train(adapt("delta"), tmp_path / str(cache), seeds=(0,), **more)

    cached, recomputed = run(True), run(False)
    assert cached.note and not recomputed.note
    assert_same(cached.params, recomputed.params, rtol=2e-4, atol=2e-6)
    assert_same(cached.state, recomputed.state, rtol=2e-4, atol=2e-6)
