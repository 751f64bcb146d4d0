"""A stage on cached features against the same stage without the cache."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frozen_blocks import (
    EVALUATED,
    FIRST,
    HEADS,
    SEEDS,
    Counted,
    Dropped,
    Normed,
    chain,
    frozen,
    replaced,
    several_domains,
    stage,
)
from full_disk import disk_of
from tiny import blobs

from jaxtl import data, models
from jaxtl.features import FeatureStore, feature_store, shared
from jaxtl.losses import supervised
from jaxtl.models import apply_flat
from jaxtl.paths import flatten
from jaxtl.plan import labelled
from jaxtl.train.dispatch.programs import make_program
from jaxtl.train.dispatch.running import running
from jaxtl.train.feed.cache import cache_features
from jaxtl.train.feed.examples import make_streams, page
from jaxtl.train.feed.order import index_block
from jaxtl.train.feed.prefix import constant_prefix
from jaxtl.train.loop import train_stage
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.state import start


def train(stage, directory, source=None, progress=lambda step, metrics: None, **options):
    directory.mkdir(parents=True, exist_ok=True)
    options = {"steps_per_dispatch": 4, **options}
    setup, options = resolve(stage, None), RunOptions(**options)
    return train_stage(over_seeds(setup, SEEDS), source, directory, {"stage": 1}, options, progress)


STARTED = {}


def started(plan):
    """(setup, full state) of a stage; the state of equal models and patterns is computed once."""
    setup = resolve(plan, None)
    key = (id(plan.model), setup.trainable)
    if key not in STARTED:
        STARTED[key] = (plan.model, start(over_seeds(setup, SEEDS), None))
    return setup, STARTED[key][1]


def steps_of(plan, full, cache=None):
    """({metric: [seeds, steps]}, parameters) after all steps, four a dispatch."""
    setup, options = resolve(plan, None), RunOptions(steps_per_dispatch=4)
    full, logged = jax.tree.map(jnp.copy, full), []  # dispatches donate it
    program = make_program(over_seeds(setup, SEEDS), full, options, cache)
    count, streams = program.schedule.steps, program.streams
    with running(program, full) as calls:
        for step in range(0, plan.num_steps, count):
            rows = page(program.feed, index_block(streams, step, count, plan.batch_size))
            if not step:
                calls.compile(*rows)
            logged.append(dict(calls.advance(*rows, step, count)))
        metrics = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *logged)
        return metrics, flatten(calls.train.params)


def compare(plan, directory, **options):
    """The features of a stage, after its steps were found to be those without them."""
    setup, full = started(plan)
    cache = cache_features(over_seeds(setup, SEEDS), full, RunOptions(**options), directory)
    expected, steps = steps_of(plan, full), steps_of(plan, full, cache)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-7), steps, expected)
    assert len(np.unique(steps[0]["loss"])) == steps[0]["loss"].size
    return cache, steps


def cache_of(plan, directory, **options):
    setup, full = started(plan)
    return cache_features(over_seeds(setup, SEEDS), full, RunOptions(**options), directory)


def assert_same_bits(one, other):
    for name, values in one.curves.items():
        np.testing.assert_array_equal(values, other.curves[name], err_msg=name)
    for path, leaf in flatten(one.params).items():
        np.testing.assert_array_equal(leaf, flatten(other.params)[path], err_msg=path)


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(stage(), id="one domain", marks=pytest.mark.slow),
        pytest.param(stage(domains=several_domains(), batch=3), id="several domains"),
        pytest.param(
            stage(chain(Normed(), nn.Dense(7)), frozen(*FIRST)),
            id="constant statistics",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            stage(chain(nn.Dense(8), Dropped()), frozen(*FIRST)),
            id="dropout behind",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            stage(models.from_linen(nn.Dense(9), HEADS), frozen("backbone/.*")),
            id="linen probe",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_losses_and_parameters_are_those_without_the_cache(plan, tmp_path):
    compare(plan, tmp_path)


@pytest.mark.slow
def test_features_on_disk_change_no_bit_and_leave_no_file(tmp_path):
    plan = stage(domains=several_domains(), batch=3)
    memory, steps = compare(plan, tmp_path)
    disk = cache_of(plan, tmp_path, feature_cache_mb=0)
    assert "in memory" in memory.note and "on disk" in disk.note
    full = started(plan)[1]
    jax.tree.map(np.testing.assert_array_equal, steps_of(plan, full, disk), steps)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_convolution_is_cached_and_images_are_scaled_first(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 1), np.uint8)
    dataset = data.arrays(images, np.arange(12) % 3, name="images")
    plan = stage(models.conv_net(HEADS), frozen("backbone/conv_.*"), [labelled(dataset, "target")])
    assert "conv_2" in compare(plan, tmp_path)[0].note


@pytest.mark.parametrize(
    ("on", "expected"),
    [(True, 32 * len(SEEDS)), (False, 12 * 8 * 2)],  # 24 rows are two batches of the store
)
def test_the_prefix_is_evaluated_once_per_example_and_seed(tmp_path, on, expected):
    plan = stage(chain(Counted(), nn.Dense(7)))
    full = started(plan)[1]
    EVALUATED.clear()
    steps_of(plan, full, cache_of(plan, tmp_path) if on else None)
    jax.effects_barrier()
    assert EVALUATED["examples"] == expected


def by_domain(model, params, state, batch, rng, step):
    model = dataclasses.replace(model, heads={"target": HEADS["target"]})
    logits = [
        model.apply(params, state.statistics, batch.inputs[:, d], rng=rng, train=True)[0]["logits"]
        for d in range(batch.inputs.shape[1])
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), *logits)
    return supervised(model.heads, stacked, batch)[0], (state, {})


def second_block(model, params, state, batch, rng, step):
    before, after = model.cut("b")
    inner, _ = apply_flat(before, params, state, batch.inputs, rng=rng, train=True)
    output, _ = apply_flat(after, params, state, inner["features"], rng=rng, train=True)
    loss = supervised(model.heads, output["logits"], batch)[0]
    return loss + jnp.mean(inner["features"] ** 2), (state, {})


@pytest.mark.parametrize("loss", [pytest.param(by_domain, marks=pytest.mark.slow), second_block])
def test_a_loss_may_regroup_examples_and_cut_the_rest(loss, tmp_path):
    model = chain(nn.Dense(8), nn.Dense(7), nn.Dense(7))
    domains = [labelled(blobs(n, 16, seed=i), "target") for i, n in enumerate("xy")]
    plan = dataclasses.replace(replaced(loss), model=model, domains=domains)
    assert "after a" in compare(plan, tmp_path)[0].note


def test_features_are_those_of_each_seeds_prefix_and_rows(tmp_path):
    plan = stage(domains=several_domains(), batch=3)
    setup, full = started(plan)
    cache = cache_features(over_seeds(setup, SEEDS), full, RunOptions(), tmp_path)
    assert jax.tree.leaves(cache.feed.per_replica)[0].shape[0] == len(SEEDS)
    first = setup.model.cut("a")[0]
    block = index_block(make_streams(over_seeds(setup, SEEDS)), 0, 12, 3)
    renumbered = index_block(cache.streams, 0, 12, 3)
    for s in range(len(SEEDS)):
        params = jax.tree.map(lambda leaf, s=s: leaf[s], full.params)
        for d, domain in enumerate(plan.domains):
            rows, places = block[s, ..., d].ravel(), renumbered[s, ..., d].ravel()
            inputs = domain.dataset.table().inputs[rows]
            expected = first.apply(params, {}, inputs, train=True)[0]["features"]
            features = cache.feed.per_replica[d]["inputs"][s][places]
            np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    drawn = [columns["inputs"].shape[1] for columns in cache.feed.per_replica]
    assert drawn[0] < 60 and drawn[1:] == [12, 10]


def test_a_prefix_that_all_seeds_share_is_kept_once(tmp_path):
    setup, full = started(stage(domains=several_domains(), batch=3))
    source = jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * len(SEEDS)), full.frozen)
    same = full._replace(frozen=source)
    cache = cache_features(over_seeds(setup, SEEDS), same, RunOptions(), tmp_path)
    assert not any("inputs" in columns for columns in cache.feed.per_replica)
    rows = np.union1d(*(setup.stage.domains[1].dataset.rows(seed) for seed in SEEDS))
    assert len(cache.feed.shared[1]["inputs"]) == len(rows)
    np.testing.assert_array_equal(
        cache.feed.per_replica[1]["weights"]["target"],
        [np.isin(rows, setup.stage.domains[1].dataset.rows(seed)) for seed in SEEDS],
    )
    apart = cache_features(over_seeds(setup, SEEDS), full, RunOptions(), tmp_path)
    block, own = (index_block(c.streams, 0, 12, 3) for c in (cache, apart))
    for d, columns in enumerate(cache.feed.shared):
        np.testing.assert_allclose(  # the first seed's features are the same either way
            columns["inputs"][block[0, ..., d]],
            apart.feed.per_replica[d]["inputs"][0][own[0, ..., d]],
            rtol=1e-6,
        )


def test_pages_hold_the_rows_of_their_dispatch(tmp_path):
    plan = stage(domains=several_domains(), batch=3)
    memory, disk = (cache_of(plan, tmp_path, feature_cache_mb=mb) for mb in (2048, 0))
    block = index_block(memory.streams, 4, 4, 3)
    assert page(memory.feed, block)[0] is memory.feed
    feed, places = page(disk.feed, index_block(disk.streams, 4, 4, 3))
    for s in range(len(SEEDS)):
        for d, columns in enumerate(feed.per_replica):
            jax.tree.map(
                lambda paged, whole, s=s, d=d: np.testing.assert_array_equal(
                    paged[s][places[s, ..., d]], whole[s][block[s, ..., d]]
                ),
                columns,
                memory.feed.per_replica[d],
            )


def test_a_full_disk_means_no_cache(tmp_path, caplog):
    with disk_of(16):
        assert cache_of(stage(), tmp_path, feature_cache_mb=0) is None
    assert "no features after a" in caplog.text


@pytest.mark.slow
def test_nothing_frozen_moves_and_the_next_stage_loads_all(tmp_path):
    plan = stage(chain(Normed(), nn.Dense(7)))
    setup, before = started(plan)
    done = train(plan, tmp_path / "one")
    assert "after a" in done.note
    for path, leaf in flatten(before.frozen).items():
        np.testing.assert_array_equal(flatten(done.params)[path], leaf)
    jax.tree.map(np.testing.assert_array_equal, done.state, before.state)
    assert set(flatten(done.params)) == set(flatten(setup.params))
    following = dataclasses.replace(plan, name="next", fresh=("heads/target/.*",))
    setup = resolve(following, setup)
    (tmp_path / "two").mkdir()
    source = (done.params, done.state)
    after = train_stage(
        over_seeds(setup, SEEDS), source, tmp_path / "two", {"stage": 2}, RunOptions()
    )
    np.testing.assert_array_equal(
        flatten(after.params)["backbone/a/d/kernel"], flatten(done.params)["backbone/a/d/kernel"]
    )


def new_process(monkeypatch, folder):
    """As if what follows were in a process of its own."""
    monkeypatch.setattr(shared, "_store", FeatureStore(folder))
    return shared.store()


@pytest.mark.slow
@pytest.mark.parametrize("budget", [2048, 0])
@pytest.mark.parametrize("kept", [False, True])
def test_a_stage_stopped_in_the_middle_ends_with_the_same_bits(tmp_path, monkeypatch, budget, kept):
    class Killed(Exception):
        pass

    def kill(step, metrics):
        if step >= 8:
            raise Killed

    monkeypatch.setattr(feature_store, "WRITE_SECONDS", 0)
    monkeypatch.setattr(feature_store, "READ_BYTES_PER_SECOND", 1e30)
    folder = tmp_path / "features" if kept else None
    plan = stage(domains=several_domains(), batch=3)
    options = {"checkpoint_every": 4, "feature_cache_mb": budget}
    new_process(monkeypatch, None)
    whole = train(plan, tmp_path / "whole", **options)
    first = new_process(monkeypatch, folder)
    with pytest.raises(Killed):
        train(plan, tmp_path / "killed", progress=kill, **options)
    first.flush()
    again, second = [], new_process(monkeypatch, folder)
    resumed = train(
        plan, tmp_path / "killed", progress=lambda step, _: again.append(step), **options
    )
    assert again[0] > 4  # goes on from a checkpoint
    assert_same_bits(resumed, whole)
    assert second.counts.computed == (0 if kept else first.counts.computed)
    assert train(plan, tmp_path / "killed", **options).note == whole.note


def test_stages_and_seeds_with_equal_weights_share_their_features(tmp_path, monkeypatch):
    keeper, plan = new_process(monkeypatch, None), stage()
    setup, full = started(plan)
    cache_features(over_seeds(setup, SEEDS), full, RunOptions(), tmp_path)
    assert keeper.counts.computed == 48  # two seeds, whose weights differ
    other = dataclasses.replace(plan, name="other", method=frozen(*FIRST, "heads/source/.*"))
    cache_features(over_seeds(resolve(other, None), SEEDS), full, RunOptions(), tmp_path)
    same = full._replace(frozen=jax.tree.map(lambda leaf: jnp.stack([leaf[1]] * 2), full.frozen))
    cache_features(over_seeds(setup, SEEDS), same, RunOptions(), tmp_path)
    once = full._replace(frozen=jax.tree.map(lambda leaf: leaf[1:], full.frozen))
    cache_features(over_seeds(setup, SEEDS), once, RunOptions(), tmp_path)
    assert keeper.counts.computed == 48


def test_a_periodic_pass_gets_the_whole_model_and_the_inputs(tmp_path):
    seen = []

    def prepare(model, params, state, domains):
        seen.append((model.blocks, domains[0].inputs.shape))
        return params, state

    plan = stage()
    method = dataclasses.replace(plan.method, prepare=prepare, prepare_every=4, fresh_frozen=True)
    assert constant_prefix(resolve(dataclasses.replace(plan, method=method), None)) is None  # fresh
    setup = resolve(plan, None)
    following = dataclasses.replace(plan, method=method, fresh=("heads/target/.*",))
    setup = resolve(following, setup)
    full = started(plan)[1]
    source = (full.params, full.state)
    (tmp_path / "run").mkdir()
    options = RunOptions(steps_per_dispatch=4)
    seen.clear()
    done = train_stage(over_seeds(setup, SEEDS), source, tmp_path / "run", {}, options)
    assert "after a" in done.note
    assert seen == [(("a", "b"), (24, 5))] * 3 * len(SEEDS)
