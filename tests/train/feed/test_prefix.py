"""What may run once per example: which blocks, and for which losses."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from frozen_blocks import FIRST, MLP, SEEDS, Dropped, Normed, chain, frozen, replaced, stage
from tiny import blobs

from jaxtl import data
from jaxtl.losses import supervised
from jaxtl.methods import transfer
from jaxtl.models import Adapter, apply_flat
from jaxtl.paths import flatten
from jaxtl.plan import Method, labelled
from jaxtl.train.feed.cache import cache_features
from jaxtl.train.feed.prefix import constant_prefix, needs_only_features
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve


def refused(plan, directory, **options):
    """Whether there is no cache, which is decided without the state of the stage."""
    replicas = over_seeds(resolve(plan, None), SEEDS)
    return cache_features(replicas, None, RunOptions(**options), directory) is None


def mixup(model, params, state, batch, rng, step):
    x = batch.inputs
    output, state = apply_flat(model, params, state, 0.5 * (x + x[::-1]), rng=rng, train=True)
    return supervised(model.heads, output["logits"], batch)[0], (state, {})


def reconstruction(model, params, state, batch, rng, step):
    output, state = apply_flat(model, params, state, batch.inputs, rng=rng, train=True)
    return jnp.mean((output["features"][..., :5] - batch.inputs) ** 2), (state, {})


def shuffled_columns(model, params, state, batch, rng, step):
    inputs = jnp.concatenate([batch.inputs[..., 1:], batch.inputs[..., :1]], -1)
    output, state = apply_flat(model, params, state, inputs, rng=rng, train=True)
    return supervised(model.heads, output["logits"], batch)[0], (state, {})


def other_prefix(model, params, state, batch, rng, step):
    moved = jax.tree.map(lambda leaf: leaf * 1.1, params)
    output, _ = apply_flat(model, moved, state, batch.inputs, rng=rng, train=True)
    return supervised(model.heads, output["logits"], batch)[0], (state, {})


def first_block(model, params, state, batch, rng, step):
    features = apply_flat(model.cut("a")[0], params, state, batch.inputs)[0]["features"]
    return jnp.mean(features) * jnp.sum(params["heads"]["target"]["bias"]), (state, {})


@pytest.mark.parametrize(
    "loss", [mixup, reconstruction, shuffled_columns, other_prefix, first_block]
)
def test_a_loss_that_would_see_the_difference_gets_the_whole_model(loss, tmp_path):
    plan = replaced(loss)
    assert constant_prefix(resolve(plan, None)).block == "a"
    assert refused(plan, tmp_path)


def augmented():
    domain = labelled(blobs("target", 24), "target", augment=data.gaussian_noise(0.1))
    return stage(domains=[domain])


def moving_statistics():
    """The scale of the first block's BatchNorm trains, nothing else of it."""
    return stage(chain(Normed(), nn.Dense(7)), frozen("backbone/a/d/.*"))


@pytest.mark.parametrize(
    "plan",
    [
        augmented(),
        moving_statistics(),
        stage(chain(Dropped(), nn.Dense(7)), frozen(*FIRST)),
        stage(method=frozen("backbone/b/.*")),
        stage(method=transfer.full(optax.adam(1e-2))),
    ],
    ids=["augment", "live statistics", "dropout", "first block trains", "all trains"],
)
def test_not_cached_where_features_change(plan, tmp_path):
    assert constant_prefix(resolve(plan, None)) is None
    assert refused(plan, tmp_path)


@pytest.mark.parametrize(
    ("layers", "freeze", "block"),
    [
        ((nn.Dense(6), nn.Dense(6), nn.Dense(6)), ("backbone/.*",), "c"),
        ((nn.Dense(6), nn.Dense(6), nn.Dense(6)), ("backbone/[ac]/.*",), "a"),
        ((nn.Dense(6), Dropped(), nn.Dense(6)), ("backbone/.*",), "a"),
        ((Normed(), Normed(), nn.Dense(6)), ("backbone/(a|b/d)/.*",), "a"),
    ],
)
def test_the_longest_prefix_is_found(layers, freeze, block):
    setup = resolve(stage(chain(*layers), frozen(*freeze)), None)
    prefix = constant_prefix(setup)
    assert prefix.block == block and needs_only_features(setup, prefix)
    blocks = tuple(f"backbone/{name}/" for name in "abc"[: "abc".index(block) + 1])
    every = {
        path
        for path in flatten(setup.params) | flatten(setup.state.statistics)
        if path.startswith(blocks)
    }
    assert prefix.reads == every


def adapted(model):
    """The model on inputs that a parameter outside its blocks scales."""

    def start(model, params, state, inputs, key):
        return {"all": jnp.ones(())}

    def change(call):
        scale = call.params["scale"]["all"] if call.block.name == "a" else 1
        return call._replace(inputs=call.inputs * scale)

    return dataclasses.replace(model, adapters=(Adapter("scale", start, change),))


def test_a_parameter_outside_the_blocks_counts_where_they_read_it():
    def prefix(*freeze):
        return constant_prefix(resolve(stage(adapted(MLP), frozen(*freeze)), None))

    assert prefix("backbone/.*") is None
    assert "scale/all" in prefix("backbone/.*", "scale/.*").reads


def test_switched_off_or_without_steps_there_is_none(tmp_path):
    assert refused(stage(), tmp_path, feature_cache=False)
    assert refused(stage(steps=0), tmp_path)
    assert refused(stage(method=Method(fresh_frozen=True)), tmp_path)
    with pytest.raises(ValueError, match="feature_cache_mb"):
        RunOptions(feature_cache_mb=-1)
