"""Distillation, learning without forgetting: losses by NumPy, teachers from weights and start."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, rel_entr, softmax
from shapes import SHAPE

from jaxtl import models
from jaxtl.methods import transfer
from jaxtl.methods.transfer.teachers import ask_teacher
from jaxtl.models import apply_flat, classes, regression
from jaxtl.paths import flatten, join
from jaxtl.plan import Columns, State
from jaxtl.plan.batch import make_batch

SGD = optax.sgd(0.1)
ROWS, DOMAINS = 4, 2
EXAMPLE = jax.ShapeDtypeStruct((1, 5), jnp.float32)
HEADS = {"old": classes(3), "new": classes(2)}
MODEL = models.mlp(HEADS, hidden=(4,))
WIDE = models.mlp({"taught": classes(3)}, hidden=(6,))


def start(model, seed=0):
    return jax.tree.map(np.asarray, jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 5))))


def moved(params):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.7 * rng.normal(size=x.shape).astype(np.float32), params)


def batch():
    rng = np.random.default_rng(2)
    weights = np.ones((ROWS, DOMAINS), np.float32) * [1.0, 0.0]  # the second domain is unlabelled
    return make_batch(
        jnp.asarray(rng.normal(size=(ROWS, DOMAINS, 5)), jnp.float32),
        {"new": jnp.asarray(rng.integers(0, 2, (ROWS, DOMAINS)))},
        {"new": jnp.asarray(weights, jnp.float32)},
    )


def outputs(params, inputs, heads):
    """(features, {head: logits}) of a network with one hidden layer, in NumPy."""
    layer = params["backbone"]["dense_0"]
    features = np.maximum(np.asarray(inputs) @ layer["kernel"] + layer["bias"], 0)
    head = {name: params["heads"][name] for name in heads}
    return features, {name: features @ h["kernel"] + h["bias"] for name, h in head.items()}


def cross_entropy(logits, given):
    """Mean over the rows of the first domain."""
    chosen = np.take_along_axis(
        log_softmax(logits, -1), np.asarray(given.labels["new"])[..., None], -1
    )
    return -chosen[:, 0, 0].mean()


def kl(teacher, student, temperature):
    p, q = softmax(teacher / temperature, -1), softmax(student / temperature, -1)
    return temperature**2 * rel_entr(p, q).sum(-1).mean()


class Published:
    """Weights that count how often they are read."""

    name = "a file"

    def __init__(self, params):
        self.leaves, self.reads = flatten(params), 0

    def read(self, wanted):
        self.reads += 1
        return {path: np.asarray(self.leaves[path]).reshape(leaf.shape)
                for path, leaf in wanted.items()}, "all of it"  # fmt: skip


def loss_of(method, params, state, model=MODEL):
    loss = functools.partial(method.updates[0].loss, model)
    return jax.jit(loss)(params, state, batch(), jax.random.key(0), 0)


def test_lwf_is_the_new_loss_and_the_old_answers_of_the_start():
    method = transfer.lwf(SGD, heads=["old"], strength=1.5, temperature=2.0)
    begun, _ = start(MODEL)
    state = State({}, method.state(MODEL, begun, {}, SHAPE))
    now = moved(begun)
    loss, (_, metrics) = loss_of(method, now, state)
    _, student = outputs(now, batch().inputs, HEADS)
    _, teacher = outputs(begun, batch().inputs, HEADS)
    distilled = kl(teacher["old"], student["old"], 2.0)
    np.testing.assert_allclose(metrics["distillation_loss"], distilled, rtol=1e-4)
    np.testing.assert_allclose(
        loss, cross_entropy(student["new"], batch()) + 1.5 * distilled, rtol=1e-4
    )
    assert distilled > 0.05


def test_lwf_at_the_start_has_the_gradient_of_the_new_task_alone():
    """Zero gradient of the divergence at equality; the copy of the start has none at all."""
    method, plain = transfer.lwf(SGD, heads=["old"]), transfer.full(SGD)
    begun, _ = start(MODEL)

    def loss(params, kept, method):
        return loss_of(method, params, State({}, kept))[0]

    grads, taught = jax.grad(loss, (0, 1))(begun, method.state(MODEL, begun, {}, SHAPE), method)
    expected = jax.grad(loss)(begun, {}, plain)
    for path, leaf in flatten(grads).items():
        np.testing.assert_allclose(leaf, flatten(expected)[path], atol=1e-6, err_msg=path)
    assert all(not leaf.any() for leaf in flatten(taught).values())


def test_what_does_not_train_is_not_copied():
    method = transfer.lwf(SGD, heads=["old"], trainable=("heads/.*",))
    begun, _ = start(MODEL)
    assert set(flatten(method.state(MODEL, begun, {}, SHAPE)["params"])) == {
        f"heads/{head}/{leaf}" for head in HEADS for leaf in ("kernel", "bias")
    }
    now = {**begun, "heads": moved(begun)["heads"]}
    _, (_, metrics) = loss_of(method, now, State({}, method.state(MODEL, begun, {}, SHAPE)))
    teacher, student = (outputs(p, batch().inputs, ["old"])[1]["old"] for p in (begun, now))
    np.testing.assert_allclose(metrics["distillation_loss"], kl(teacher, student, 3.0), rtol=1e-4)


def taught_by_weights(method, published, reads=1):
    begun, _ = start(MODEL)
    kept = method.state(MODEL, begun, {}, SHAPE)
    assert not any(leaf.any() for leaf in jax.tree.leaves(kept))
    states = [
        method.prepare(MODEL, begun, State({}, kept), [Columns(None, {}, {}, None)])[1]
        for _ in range(2)
    ]
    assert published.reads == reads  # once for all seeds
    assert jax.tree.structure(states[0].method) == jax.tree.structure(kept)
    return states[0]


def test_logits_of_published_weights_teach_another_head():
    weights, _ = start(WIDE, 3)
    published = Published(weights)
    teacher = transfer.Teacher(WIDE, published, EXAMPLE)
    method = transfer.distill(
        SGD, heads={"old": "taught"}, teacher=teacher, weight=0.5, temperature=4.0
    )
    state, now = taught_by_weights(method, published), moved(start(MODEL)[0])
    loss, _ = loss_of(method, now, state)
    _, student = outputs(now, batch().inputs, HEADS)
    _, taught = outputs(weights, batch().inputs, ["taught"])
    expected = cross_entropy(student["new"], batch())
    expected += 0.5 * kl(taught["taught"], student["old"], 4.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_features_of_published_weights_teach_through_a_projection_that_trains():
    weights, _ = start(WIDE, 3)
    published = Published(weights)
    method = transfer.distill_features(
        SGD,
        teacher=transfer.Teacher(WIDE, published, EXAMPLE),
        weight=0.1,
        projection=models.mlp_head((), 6),
        trainable=("backbone/.*",),
    )
    assert method.optimizers["all"][0] == ("backbone/.*", "projection/.*")
    state, now = taught_by_weights(method, published), moved(start(MODEL)[0])
    output, _ = MODEL.apply(now, {}, jnp.zeros((1, 5)))
    projection = method.modules["projection"].init(jax.random.key(5), output, SHAPE)
    projection = jax.tree.map(np.asarray, projection)
    loss, _ = loss_of(method, {**now, "projection": projection}, state)
    features, logits = outputs(now, batch().inputs, HEADS)
    linear = projection["output"]
    gap = features @ linear["kernel"] + linear["bias"] - outputs(weights, batch().inputs, [])[0]
    expected = cross_entropy(logits["new"], batch()) + 0.1 * (0.5 * (gap**2).sum(-1)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_all_wrong_heads_are_told_at_once():
    teacher = transfer.Teacher(WIDE, Published({}), EXAMPLE)
    model = models.mlp({**HEADS, "size": regression()}, hidden=(4,))
    wrong = {"odl": "taught", "old": "taugth", "new": "taught", "size": "taught"}
    method = transfer.distill(SGD, heads=wrong, teacher=teacher)
    with pytest.raises(ValueError) as error:
        method.state(model, *start(model), SHAPE)
    for part in ("'odl'. Did you mean 'old'", "'taugth'. Did you mean 'taught'",
                 "'new' and 'taught' must be", "'size' and 'taught' must be"):  # fmt: skip
        assert part in str(error.value)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(4)(x))


def test_live_statistics_are_those_of_the_start_and_others_are_not_copied():
    live = models.from_linen(Normed(), HEADS)
    params, statistics = start(live)
    method = transfer.lwf(SGD, heads=["old"])
    followed = moved(statistics)
    for model in (live, dataclasses.replace(live, live=())):
        kept = method.state(model, params, statistics, SHAPE)
        taught = ask_teacher(None, model, params, State(followed, kept), batch().inputs)
        expected, _ = apply_flat(
            model, params, State(statistics if model.live else followed), batch().inputs
        )
        jax.tree.map(np.testing.assert_array_equal, taught, expected)
        assert bool(kept["statistics"]) == bool(model.live)
        assert np.isfinite(loss_of(method, params, State(followed, kept), model)[0])


def test_a_lwf_stage_keeps_its_start_in_the_engine():
    """The method's state is that of the first step, whatever later steps did."""
    from jaxtl import data
    from jaxtl.plan import Stage, labelled
    from jaxtl.train.resolve.replicas import over_seeds
    from jaxtl.train.resolve.stage import resolve
    from jaxtl.train.state import start as begin
    from jaxtl.train.step import make_step

    given = batch()
    dataset = data.arrays(np.asarray(given.inputs[:, 0]), np.asarray(given.labels["new"][:, 0]))
    method = dataclasses.replace(transfer.lwf(SGD, heads=["old"]), fresh_frozen=True)
    setup = resolve(
        Stage("s", MODEL, method, domains=[labelled(dataset, "new")], batch_size=4, num_steps=2),
        None,
    )
    full = jax.tree.map(lambda leaf: leaf[0], begin(over_seeds(setup, (0,)), None))
    first, step = flatten(join(*full.trainable.values())), jax.jit(make_step(setup))
    one = jax.tree.map(lambda leaf: leaf[:, :1], given)
    for i in range(2):
        full, _ = step(full, one, jax.random.key(0), i)
    kept, now = flatten(full.state.method["params"]), flatten(join(*full.trainable.values()))
    assert now.keys() < kept.keys() == flatten(setup.params).keys()  # the old head is not trained
    for path, leaf in first.items():
        np.testing.assert_array_equal(kept[path], leaf)
        assert np.any(np.asarray(leaf) != now[path]), path
