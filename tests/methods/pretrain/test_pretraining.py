"""Methods without labels: losses by hand, what has a gradient, what a stage of them leaves."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtl import data, models
from jaxtl.measure.analyses.representation import has_collapsed
from jaxtl.methods import pretrain, transfer
from jaxtl.methods.pretrain.views import encode, other_views, two_views, unit
from jaxtl.models import Block, classes, from_blocks, mlp_head
from jaxtl.paths import flatten
from jaxtl.plan import Stage, State, labelled, unlabelled
from jaxtl.plan.batch import make_batch
from jaxtl.train.feed.examples import columns
from jaxtl.train.loop import train_stage
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import initialise, resolve
from jaxtl.train.state import start
from jaxtl.transferability import effective_rank

N, SIDE = 6, 4
SGD, KEY, OPTIONS = optax.sgd(0.1), jax.random.key(2), RunOptions()
MODEL = models.mlp({"c": classes(3)}, hidden=(8,))
NOISE = data.gaussian_noise(0.3)
LINEAR = mlp_head((), 5)
METHODS = {
    "autoencoder": functools.partial(pretrain.autoencoder, corrupt=NOISE),
    "barlow_twins": functools.partial(pretrain.barlow_twins, augment=NOISE),
    "byol": functools.partial(pretrain.byol, augment=NOISE),
    "deep_cluster": functools.partial(pretrain.deep_cluster, clusters=4, every=2, augment=NOISE),
    "masked_autoencoder": functools.partial(pretrain.masked_autoencoder, patch=2),
    "rotation": pretrain.rotation,
    "scarf": pretrain.scarf,
    "simclr": functools.partial(pretrain.simclr, augment=NOISE),
    "simsiam": functools.partial(pretrain.simsiam, augment=NOISE),
    "vicreg": functools.partial(pretrain.vicreg, augment=NOISE),
}


def images(n=40, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(size=(n, SIDE, SIDE, 1)).astype(np.float32)
    return data.arrays(inputs, np.arange(n) % 3, name="images")


def stage_of(method, *, model=MODEL, domain=None, steps=3):
    domain = domain or unlabelled(images())
    return Stage("blind", model, method, domains=[domain], batch_size=N, num_steps=steps)


def begun(method, model=MODEL, domain=None):
    """(params off zero, state, batch)."""
    setup = resolve(stage_of(method, model=model, domain=domain), None)
    params, statistics = initialise(setup.stage, setup.inputs, setup.shape, 0)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype("f"), params)
    memory = None
    if method.state is not None:
        memory = method.state(model, params, statistics, setup.shape)
    table = images().table()
    batch = make_batch(table.inputs[:N, None], {}, {}, roles=("target",))
    return params, State(statistics, memory), batch


def evaluated(method, params, state, batch, model=MODEL, step=0):
    (update,) = method.updates

    def run(params):
        return update.loss(model, params, state, batch, KEY, step)

    (value, (state, metrics)), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(params)
    return value, state, metrics, gradient


def dense(params, rows):
    return rows @ np.float64(params["kernel"]) + np.float64(params["bias"])


def features_of(params, inputs):
    rows = np.float64(inputs).reshape(len(inputs), -1)
    return np.maximum(dense(params["backbone"]["dense_0"], rows), 0)


def projected(params, inputs, name="projector"):
    return dense(params[name]["output"], features_of(params, inputs))


def noisy_views(batch):
    keys = jax.random.split(jax.random.fold_in(KEY, 1))
    return [np.asarray(NOISE(key, batch.inputs[:, 0])) for key in keys]


def swapped_views(batch):
    inputs = batch.inputs[:, 0]
    return [inputs, np.asarray(pretrain.swap_values(0.5)(jax.random.fold_in(KEY, 1), inputs))]


def cosines(first, second):
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
    return (first * second).sum(1)


def test_autoencoder_by_hand():
    method = pretrain.autoencoder(SGD, corrupt=NOISE, decoder=pretrain.dense_decoder(()))
    params, state, batch = begun(method)
    inputs = batch.inputs[:, 0]
    spoilt = NOISE(jax.random.fold_in(KEY, 1), inputs)
    decoded = projected(params, spoilt, "decoder")
    expected = np.mean((decoded - inputs.reshape(N, -1)) ** 2)
    np.testing.assert_allclose(evaluated(method, params, state, batch)[0], expected, rtol=1e-5)


def test_masked_autoencoder_counts_what_is_hidden_alone():
    method = pretrain.masked_autoencoder(
        SGD, share=0.4, patch=2, decoder=pretrain.dense_decoder(())
    )
    params, state, batch = begun(method)
    inputs = np.float64(batch.inputs[:, 0])
    coarse = jax.random.bernoulli(jax.random.fold_in(KEY, 1), 0.4, (N, SIDE // 2, SIDE // 2, 1))
    hidden = np.kron(np.asarray(coarse)[..., 0], np.ones((2, 2)))[..., None]
    assert 0 < hidden.mean() < 1
    decoded = projected(params, inputs * (1 - hidden), "decoder").reshape(inputs.shape)
    expected = np.sum(hidden * (decoded - inputs) ** 2) / (0.4 * inputs.size)
    np.testing.assert_allclose(evaluated(method, params, state, batch)[0], expected, rtol=1e-5)


def test_rotation_by_hand():
    method = pretrain.rotation(SGD)
    params, state, batch = begun(method)
    losses, right = [], []
    for turns in range(4):
        logits = projected(params, np.rot90(batch.inputs[:, 0], turns, (1, 2)), "turns")
        losses += list(np.log(np.exp(logits).sum(1)) - logits[:, turns])
        right += list(logits.argmax(1) == turns)
    value, _, metrics, _ = evaluated(method, params, state, batch)
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(metrics["rotation_accuracy"], np.mean(right), rtol=1e-6)


def test_barlow_twins_and_vicreg_by_hand():
    projector = {"augment": NOISE, "projector": LINEAR}
    method = pretrain.barlow_twins(SGD, redundancy=0.3, **projector)
    params, state, batch = begun(method)
    first, second = (projected(params, view) for view in noisy_views(batch))
    correlations = np.corrcoef(first, second, rowvar=False)[:5, 5:]
    diagonal = np.diag(correlations)
    rest = (correlations**2).sum() - (diagonal**2).sum()
    expected = ((1 - diagonal) ** 2).sum() + 0.3 * rest
    np.testing.assert_allclose(evaluated(method, params, state, batch)[0], expected, rtol=1e-4)

    method = pretrain.vicreg(SGD, invariance=2.0, variance=3.0, covariance=0.5, **projector)
    expected = 2 * np.mean((first - second) ** 2)
    for view in (first, second):
        deviation = np.sqrt(np.var(view, 0, ddof=1) + 1e-4)
        expected += 3 / 2 * np.maximum(0, 1 - deviation).mean()
        square = np.cov(view, rowvar=False) ** 2
        expected += 0.5 * (square.sum() - np.diag(square).sum()) / 5
    np.testing.assert_allclose(evaluated(method, params, state, batch)[0], expected, rtol=1e-4)


def test_simsiam_holds_the_other_view_still():
    """Its gradient is that of a loss whose targets were computed beforehand."""
    method = pretrain.simsiam(SGD, augment=NOISE, projector=LINEAR, predictor=mlp_head((), 5))
    params, state, batch = begun(method)
    views = noisy_views(batch)
    targets = [projected(params, view) for view in views]

    def by_hand(params):
        predictions = [dense(params["predictor"]["output"], projected(params, v)) for v in views]
        return -np.mean([cosines(p, t) for p, t in zip(predictions, targets[::-1], strict=True)])

    value, _, _, gradient = evaluated(method, params, state, batch)
    np.testing.assert_allclose(value, by_hand(params), rtol=1e-5)
    assert_slopes(gradient, by_hand, params)


def test_byol_predicts_the_copy_which_has_no_gradient():
    method = pretrain.byol(
        SGD, augment=NOISE, decay=0.75, projector=LINEAR, predictor=mlp_head((), 5)
    )
    params, state, batch = begun(method)
    old = jax.tree.map(lambda x: 0.5 * x + 0.1, params)
    state = state._replace(method={"params": old, "statistics": {}})
    average = jax.tree.map(lambda new, old: 0.75 * old + 0.25 * new, params, old)
    views = noisy_views(batch)
    targets = [projected(average, view) for view in views]

    def by_hand(params):
        predictions = [dense(params["predictor"]["output"], projected(params, v)) for v in views]
        each = [cosines(p, t) for p, t in zip(predictions, targets[::-1], strict=True)]
        return 2 - 2 * np.mean(each)

    value, new, _, gradient = evaluated(method, params, state, batch)
    np.testing.assert_allclose(value, by_hand(params), rtol=1e-5)
    assert_slopes(gradient, by_hand, params)
    for path, leaf in flatten(new.method["params"]).items():
        np.testing.assert_allclose(leaf, flatten(average)[path], rtol=1e-5, atol=1e-7)


def assert_slopes(gradient, value_of, params):
    """The largest number of each leaf's gradient against central differences in float64."""
    flat = {path: np.float64(leaf) for path, leaf in flatten(params).items()}
    for path, leaf in flatten(gradient).items():
        if path.startswith("heads/"):
            assert not np.any(leaf)
            continue
        index = np.unravel_index(np.argmax(np.abs(leaf)), leaf.shape)
        ends = []
        for sign in (1, -1):
            moved = flat[path].copy()
            moved[index] += sign * 1e-5
            room, *names = path.split("/")
            tree = jax.tree.map(np.float64, params)
            place = functools.reduce(dict.__getitem__, [room, *names[:-1]], tree)
            place[names[-1]] = moved
            ends.append(value_of(tree))
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(leaf[index], slope, rtol=2e-3, atol=1e-5, err_msg=path)


def test_simclr_and_scarf_contrast_their_views():
    contrast = {"temperature": 0.2, "projector": LINEAR}
    pairs = [
        (pretrain.simclr(SGD, augment=NOISE, **contrast), noisy_views),
        (pretrain.scarf(SGD, share=0.5, **contrast), swapped_views),
    ]
    for method, views_of in pairs:
        params, state, batch = begun(method)
        views = views_of(batch)
        rows = np.concatenate([projected(params, view) for view in views])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        logits = rows @ rows.T / 0.2
        np.fill_diagonal(logits, -np.inf)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        expected = -np.mean([log_p[i, (i + N) % (2 * N)] for i in range(2 * N)])
        value = evaluated(method, params, state, batch)[0]
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_deep_cluster_labels_by_the_centres_of_its_copy():
    method = pretrain.deep_cluster(SGD, clusters=4, every=2)
    params, state, batch = begun(method)
    rows = columns(unlabelled(images()), MODEL.heads, 0)
    host, kept = method.prepare(MODEL, jax.tree.map(np.asarray, params), state, [rows])
    assert not any(map(np.any, flatten(host["clusters"]).values()))
    moved = jax.tree.map(lambda x: x + 0.1, params)
    features = features_of(params, batch.inputs[:, 0]) - kept.method["mean"]
    centres = kept.method["centres"]
    labels = (features @ centres.T / np.linalg.norm(features, axis=1, keepdims=True)).argmax(1)
    assert len(set(labels)) > 1
    logits = projected(moved, batch.inputs[:, 0], "clusters")
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(N), labels]
    value = evaluated(method, moved, kept, batch)[0]
    np.testing.assert_allclose(value, losses.mean(), rtol=1e-5)
    with pytest.raises(ValueError, match="at least 2 clusters"):
        pretrain.deep_cluster(SGD, clusters=1, every=2)
    big = pretrain.deep_cluster(SGD, clusters=50, every=2)
    with pytest.raises(ValueError, match="40 examples cannot be 50 clusters"):
        big.prepare(MODEL, begun(big)[0], state, [rows])


SLOW = METHODS.keys() - {"deep_cluster", "masked_autoencoder"}  # seen above already


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in METHODS]
)
def test_the_heads_wait_and_all_else_has_a_gradient(name):
    method = METHODS[name](SGD)
    params, state, batch = begun(method)
    value, new, metrics, gradient = evaluated(method, params, state, batch)
    assert np.isfinite(value) and all(np.isfinite(m) for m in metrics.values())
    assert jax.tree.structure(new) == jax.tree.structure(state)
    moving = {path for path, leaf in flatten(gradient).items() if np.any(leaf)}
    biases = {p for p in flatten(params) if p.endswith("/bias")}
    rooms = {path.split("/")[0] for path in moving}
    assert rooms == {"backbone", *method.modules}
    assert flatten(params).keys() - moving - biases <= {"heads/c/kernel"}
    setup = resolve(stage_of(method), None)
    assert {p for p, group in setup.groups.items() if group == "frozen"} == {
        "heads/c/kernel",
        "heads/c/bias",
    }


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match=r"trains no head, .* names c: write unlabelled\(dataset\)"
    ):
        method = pretrain.rotation(SGD)
        params, state, batch = begun(method)
        evaluated(method, params, state, batch.replace(labels={"c": jnp.zeros((N, 1), int)}))
    bad = pretrain.simsiam(SGD, augment=NOISE, predictor=mlp_head((4,), 9))
    with pytest.raises(ValueError, match="predictor has 9 outputs, the projector 128"):
        resolve(stage_of(bad), None)
    ids = {"ids": np.zeros((9, 4), np.int32), "mask": np.ones((9, 4), np.float32)}
    with pytest.raises(ValueError, match=r"one array of floats, got int32\[4\], float32\[4\]"):
        pretrain.autoencoder(SGD).modules["decoder"].init(
            KEY, {"features": jnp.zeros((1, 3)), "inputs": ids}, None
        )
    with pytest.raises(ValueError, match="unknown block"):
        pretrain.block_autoencoder(SGD, model=MODEL, block="dense_9")


def a_stack(table):
    """(two stages, their model) of stacked autoencoders."""
    blocks = [Block("first", nn.Dense(6), nn.tanh), Block("second", nn.Dense(5), nn.tanh)]
    model = from_blocks(blocks, {"c": classes(2)})
    stage = stage_of(pretrain.autoencoder(SGD), model=model, domain=unlabelled(table))
    return pretrain.stacked_autoencoders(stage, SGD), model


def four_columns():
    return data.arrays(np.random.default_rng(0).normal(size=(20, 4)).astype("f"), [0, 1] * 10)


def test_a_stack_learns_one_block_after_the_other():
    table = four_columns()
    chain, model = a_stack(table)
    assert [stage.name for stage in chain] == ["blind_first", "blind_second"]
    setups = [None]
    for stage in chain:
        setups.append(resolve(stage, setups[-1]))
        block = stage.name.removeprefix("blind_")
        leaves = ("kernel", "bias")
        trained = {
            f"{name}/{x}" for name in (f"backbone/{block}", "decoder/output") for x in leaves
        }
        assert setups[-1].trainable == trained

    params, state, _ = begun(chain[1].method, model, unlabelled(table))
    batch = make_batch(table.table().inputs[:N, None], {}, {}, roles=("target",))
    given = np.tanh(dense(params["backbone"]["first"], np.float64(batch.inputs[:, 0])))
    coded = np.tanh(dense(params["backbone"]["second"], given))
    expected = np.mean((dense(params["decoder"]["output"], coded) - given) ** 2)
    value, _, _, gradient = evaluated(chain[1].method, params, state, batch, model)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert not np.any(gradient["backbone"]["first"]["kernel"])

    few = labelled(table, "c")
    last = Stage(
        "last",
        model,
        transfer.probe(SGD),
        domains=[few],
        batch_size=4,
        num_steps=2,
        fresh=("heads/.*",),
    )
    assert resolve(last, setups[-1]).trainable == {"heads/c/kernel", "heads/c/bias"}


@pytest.mark.slow
def test_the_engine_trains_a_stack(tmp_path):
    chain, _ = a_stack(four_columns())
    setup = source = None
    starts, ends = [], []
    for stage in chain:
        setup = resolve(stage, setup)
        replicas = over_seeds(setup, (0,))
        starts.append(flatten(start(replicas, source).params))
        run = train_stage(replicas, source, tmp_path / stage.name, {"stage": "s"}, OPTIONS)
        source = run.params, run.state
        ends.append(flatten(run.params))
    moved = [
        {path.rpartition("/")[0] for path in new if not np.array_equal(old[path], new[path])}
        for old, new in zip(starts, ends, strict=True)
    ]
    both = {"decoder/output"}
    assert moved == [{"backbone/first"} | both, {"backbone/second"} | both]


def test_collapse_is_seen_by_the_effective_rank():
    """SimSiam keeps its features apart; where the targets have a gradient they become one."""
    method = pretrain.simsiam(SGD, augment=NOISE)
    params, state, _ = begun(method)
    inputs = images(64).table().inputs
    batch = make_batch(inputs[:, None], {}, {}, roles=("target",))

    def without_a_target(model, params, state, batch, rng, step):
        views = two_views(NOISE, jax.random.fold_in(rng, 1), batch.inputs[:, 0])
        features, state = encode(model, params, state, views, rng)
        return -jnp.mean(jnp.sum(unit(features) * unit(other_views(features)), -1)), (state, {})

    def rank_after(loss_fn):
        tx = optax.adam(1e-2)

        def step(carry, i):
            params, moments = carry
            loss = functools.partial(loss_fn, MODEL)
            key = jax.random.fold_in(KEY, i)
            gradient = jax.grad(lambda p: loss(p, state, batch, key, i)[0])(params)
            changes, moments = tx.update(gradient, moments, params)
            return (optax.apply_updates(params, changes), moments), None

        (trained, _), _ = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(200))
        return effective_rank(MODEL.apply(trained, {}, inputs)[0]["features"])

    apart, collapsed = (
        float(jax.jit(rank_after, static_argnums=0)(loss))
        for loss in (method.updates[0].loss, without_a_target)
    )
    assert apart > 2 * collapsed and has_collapsed({"effective rank, c": np.array([collapsed])})
    assert not has_collapsed({"effective rank, c": np.array([apart])})
