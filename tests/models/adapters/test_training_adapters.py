"""Adapters in the engine: what trains moves, the base does not, frozen blocks are cached."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_transformers import (
    adapter_of,
    bert,
    chain,
    compiled,
    drawn,
    images,
    moved,
    target,
    text,
    vectors,
    vit,
)

from jaxtl import data, paths
from jaxtl.methods import transfer
from jaxtl.models import adapters
from jaxtl.plan import Stage, State, labelled
from jaxtl.plan.batch import make_batch
from jaxtl.train.feed.prefix import constant_prefix
from jaxtl.train.loop import train_stage
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.state import begin, group, start
from jaxtl.train.step import make_step

ALL = ("backbone/.*/kernel",)
SGD = optax.sgd(0.1)
CHAIN, BERT, VIT = (chain, vectors), (functools.partial(bert, 1), text), (vit, images)


def trains(name, tx=SGD):
    return transfer.grouped({"all": ((f"{name}/.*", "heads/.*"), tx)})


def lora(model):
    return adapters.lora(model, ALL, 2), trains("lora")


def lora_plus(model):
    return adapters.lora(model, ALL, 2), transfer.lora_plus(SGD, ratio=4.0)


def pissa(model):
    return adapters.pissa(model, ALL, 2), trains("pissa")


def dora(model):
    return adapters.dora(model, ALL, 2), trains("dora")


def adalora(model):
    return adapters.adalora(model, ALL, 2), transfer.adalora(SGD, 3, target_rank=1.5)


def vera(model):
    return adapters.vera(model, ALL, 6), trains("vera")


def ia3(model):
    return adapters.ia3(model, ALL, ()), trains("ia3")


def plain(build, name):
    return lambda model: (build(model), trains(name))


ROWS = {
    "lora": (CHAIN, lora, 2 * 25),
    "lora_plus": (CHAIN, lora_plus, 2 * 25),
    "pissa": (CHAIN, pissa, 2 * 25),
    "dora": (CHAIN, dora, 2 * 25 + 13),
    "adalora": (CHAIN, adalora, 2 * 27),
    "vera": (CHAIN, vera, 2 * 6 + 13),
    "ia3": (CHAIN, ia3, 13),
    "houlsby": (BERT, plain(adapters.houlsby, "houlsby"), 2 * (2 * 8 * 64 + 64 + 8)),
    "prefix": (BERT, plain(adapters.prefix, "prefix"), 2 * 20 * 8),
    "prompt": (BERT, plain(adapters.prompt, "prompt"), 20 * 8),
    "vpt": (VIT, plain(adapters.deep_visual_prompt, "vpt"), 2 * 10 * 8),
}


def domain(inputs, n=8):
    return labelled(data.arrays(inputs(n), np.arange(n) % 3), "target")


def staged(model, tuned, method, inputs, name):
    """A stage that adapts what a source stage left."""
    domains = [domain(inputs)]
    source = resolve(
        Stage("source", model, transfer.full(SGD), domains=domains, batch_size=8, num_steps=3), None
    )
    fresh = (f"{name}/.*", "heads/.*")
    return resolve(
        Stage("adapt", tuned, method, domains=domains, batch_size=8, num_steps=3, fresh=fresh),
        source,
    )


@pytest.mark.parametrize("row", ROWS)
def test_only_the_adapter_and_the_heads_train(row):
    (make, inputs), build, count = ROWS[row]
    name = row.removesuffix("_plus")
    model, x = make(), inputs(8)
    tuned, method = build(model)
    setup = staged(model, tuned, method, inputs, name)
    heads = sum(leaf.size for leaf in jax.tree.leaves(setup.params["heads"]))
    flat = paths.flatten(setup.params)
    assert sum(flat[path].size for path in setup.trainable) == count + heads
    assert {path.split("/")[0] for path in setup.trainable} == {name, "heads"}
    params = {**drawn(model, x)[0], name: adapter_of(tuned, name, x)}
    for adapter in setup.solvers:
        params = adapter.after_loading(params)
    before = {path: np.array(leaf) for path, leaf in paths.flatten(params).items()}
    trainable, frozen = group(setup, params)
    batch = make_batch(
        jax.tree.map(lambda leaf: leaf[:, None], x),
        {"target": np.arange(8)[:, None] % 3},
        {"target": np.ones((8, 1), np.float32)},
    )

    def three_steps(trainable, frozen):
        def body(train, step):
            train, metrics = make_step(setup)(train, batch, jax.random.key(0), step)
            return train, metrics["loss"]

        train = begin(setup, trainable, frozen, State({}))
        train, losses = jax.lax.scan(body, train, jnp.arange(3))
        return train.params, losses

    after, losses = compiled(three_steps, trainable, frozen)
    assert losses[-1] < losses[0]
    for path, leaf in paths.flatten(after).items():
        assert np.array_equal(leaf, before[path]) == (path not in setup.trainable), path


def test_pissa_in_a_run(tmp_path):
    """Two seeds, each with its own loaded kernels; the base keeps its bits to the end."""
    model = chain()
    tuned, method = pissa(model)
    setup = staged(model, tuned, method, vectors, "pissa")
    loaded = [drawn(model, vectors(), seed)[0] for seed in (1, 2)]
    loaded = jax.tree.map(lambda *leaves: jnp.stack(leaves), *loaded)
    trained = train_stage(
        over_seeds(setup, (0, 1)), (loaded, State({})), tmp_path, {"stage": "pissa"}, RunOptions()
    )
    flat, there = paths.flatten(trained.params), paths.flatten(loaded)
    for path in (path for path in there if path.startswith("backbone/")):
        np.testing.assert_array_equal(flat[path], there[path], err_msg=path)
    own = {leaf: np.asarray(flat[f"pissa/backbone/first/{leaf}"]) for leaf in ("a", "start_a", "b")}
    start_b = np.asarray(flat["pissa/backbone/first/start_b"])
    for seed in (0, 1):
        kernel = np.float64(there["backbone/first/kernel"][seed])
        left, values, right = np.linalg.svd(kernel, full_matrices=False)
        best = left[:, :2] * values[:2] @ right[:2]
        np.testing.assert_allclose(own["start_a"][seed] @ start_b[seed], best, atol=1e-5)
    assert np.all(own["a"] != own["start_a"])


def test_lora_plus_is_a_larger_rate():
    """SGD of A and B by hand; the ratio is that of the rates."""
    method = transfer.lora_plus(SGD, ratio=4.0, others=())
    params = {"lora": {"x": {"a": jnp.ones(2), "b": jnp.ones(3)}}}
    labels = paths.label(paths.flatten(params), {n: g for n, (g, _) in method.optimizers.items()})
    assert labels == {"lora/x/a": "all", "lora/x/b": "b"}
    for name, rate in (("all", 0.1), ("b", 0.4)):
        tx = method.optimizers[name][1]
        updates, _ = tx.update(jnp.full(2, 3.0), tx.init(jnp.ones(2)), jnp.ones(2))
        np.testing.assert_allclose(updates, -3 * rate, rtol=1e-6)


@pytest.mark.parametrize(
    ("tuned", "name", "cached"),
    [
        (lambda m: adapters.lora(m, [".*/layer_1/.*/query/kernel"], 2), "lora", "layer_0"),
        (adapters.prompt, "prompt", "embed"),
    ],
)
def test_what_stands_before_an_adapter_can_be_cached(tuned, name, cached):
    model = bert()
    setup = staged(model, tuned(model), trains(name), text, name)
    assert constant_prefix(setup).block == cached


def test_biases_and_norms():
    model = bert(1)
    source = resolve(
        Stage(
            "source", model, transfer.full(SGD), domains=[domain(text)], batch_size=8, num_steps=3
        ),
        None,
    )
    for method, size in ((transfer.bitfit(SGD), 8 * 10 + 4), (transfer.norm_tuning(SGD), 8 * 6)):
        setup = resolve(
            Stage("tuned", model, method, domains=[domain(text)], batch_size=8, num_steps=3), source
        )
        flat = paths.flatten(setup.params)
        chosen = {path for path in setup.trainable if not path.startswith("heads/")}
        assert sum(flat[path].size for path in chosen) == size
        assert any(path.endswith("norm_1/bias") for path in chosen)
        assert len(setup.trainable) == len(chosen) + 2


def begun(setup, params, state=None):
    """The parameters and state of one seed before the first step, after those of another stage."""
    source = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (params, State(state or {})))
    full = start(over_seeds(setup, (0,)), source)
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), (full.params, full.state))


def test_what_is_computed_after_loading():
    model = chain()
    params, calls = drawn(model, vectors())[0], []

    def own(model, params, state, domains):
        calls.append((params["dora"]["backbone"]["first"]["magnitude"], domains))
        return params, state

    tuned, method = dora(model)
    method = dataclasses.replace(method, prepare=own, solves=("heads/.*",), prepare_every=5)
    setup = staged(model, tuned, method, vectors, "dora")
    new, _ = begun(setup, params)
    norms = np.linalg.norm(params["backbone"]["first"]["kernel"], axis=0)
    np.testing.assert_allclose(calls[0][0], norms, rtol=1e-5)
    assert len(calls[0][1]) == 1
    magnitudes = {f"dora/backbone/{block}/magnitude" for block in ("first", "second")}
    assert setup.solved == magnitudes | {"heads/target/bias", "heads/target/kernel"}
    begin = compiled(functools.partial(target, tuned), new, vectors())
    new["heads"] = jax.tree.map(np.asarray, new["heads"])
    expected = compiled(
        functools.partial(target, model), {**params, "heads": new["heads"]}, vectors()
    )
    np.testing.assert_allclose(begin, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", [pissa, dora])
def test_what_the_stage_before_left_is_not_computed_again(build):
    model = chain()
    tuned, method = build(model)
    name = tuned.adapters[0].name
    first = staged(model, tuned, method, vectors, name)
    second = resolve(
        Stage("again", tuned, method, domains=[domain(vectors)], batch_size=8, num_steps=3), first
    )
    learned = {**drawn(model, vectors())[0], name: moved(adapter_of(tuned, name, vectors()))}
    new, _ = begun(second, learned)
    assert first.solvers and not second.solvers and not second.solved
    for path, leaf in paths.flatten(learned).items():
        np.testing.assert_array_equal(paths.flatten(new)[path], leaf, err_msg=path)


def test_an_adapter_of_an_arm_without_a_source_starts_from_its_own_kernels():
    tuned, method = pissa(chain())
    method = dataclasses.replace(method, fresh_frozen=True)
    setup = resolve(
        Stage("alone", tuned, method, domains=[domain(vectors)], batch_size=8, num_steps=3), None
    )
    full = start(over_seeds(setup, (0, 1)), None)
    flat = paths.flatten(full.params)
    for seed in (0, 1):
        kernel = np.float64(flat["backbone/first/kernel"][seed])
        left, values, right = np.linalg.svd(kernel, full_matrices=False)
        a, b = (np.asarray(flat[f"pissa/backbone/first/{leaf}"][seed]) for leaf in "ab")
        np.testing.assert_allclose(a @ b, left[:, :2] * values[:2] @ right[:2], atol=1e-5)
