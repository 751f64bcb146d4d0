"""The step against optax.multi_transform, plain gradients and hand-written loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Body, blobs, body, stages

from jaxtl import models
from jaxtl.methods import transfer
from jaxtl.models import classes
from jaxtl.paths import FROZEN, flatten, join, nest
from jaxtl.plan import Method, Stage, Update, labelled, stateless, unlabelled
from jaxtl.train.feed.examples import columns, gather, make_feed
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import active_heads, initialise, resolve
from jaxtl.train.state import start
from jaxtl.train.step import make_step


def first_seed(tree):
    return jax.tree.map(lambda leaf: leaf[0], tree)


def prepared(stage):
    """(setup, full state of one seed, a batch)."""
    setup = resolve(stage, None)
    full = first_seed(start(over_seeds(setup, (0,)), None))
    feed = make_feed(over_seeds(setup, (0,)), RunOptions())
    own = first_seed(feed.per_replica)
    index = jnp.arange(stage.batch_size)[:, None] * jnp.ones((1, len(stage.domains)), jnp.int32)
    return setup, full, gather(stage, feed.shared, own, index, jax.random.key(0))


def adapted(method):
    stage = stages(method)[1]
    return Stage(stage.name, stage.model, method, domains=stage.domains, batch_size=8, num_steps=6)


def whole_transformation(setup):
    """The method's optimizers as one transformation of all parameters, zero for the frozen."""
    transforms = {name: tx for name, (_, tx) in setup.stage.method.optimizers.items()}
    transforms[FROZEN] = optax.set_to_zero()
    return optax.multi_transform(transforms, nest(setup.groups))


FREEZE = ("backbone/body/(dense|norm)/.*",)


@pytest.mark.parametrize("tx", [optax.adamw(1e-2), optax.sgd(1e-2, momentum=0.9)])
def test_bits_of_multi_transform_with_zeroed_frozen_updates(tx):
    method = transfer.partial(tx, freeze=FREEZE)
    setup, full, batch = prepared(adapted(Method(**{**vars(method), "fresh_frozen": True})))
    step = jax.jit(make_step(setup))
    whole = whole_transformation(setup)

    @jax.jit
    def reference(params, opt_state, state, i):
        def loss(params):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(i), 0), 0)
            return method.updates[0].loss(setup.model, params, state, batch, key, i)

        grads, (state, _) = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = whole.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, state

    params, state = full.params, full.state
    opt_state = whole.init(params)
    for i in range(3):
        full, _ = step(full, batch, jax.random.key(i), jnp.int32(i))
        params, opt_state, state = reference(params, opt_state, state, i)
    ours = flatten(full.params)
    for path, leaf in flatten(params).items():
        np.testing.assert_array_equal(ours[path], leaf, err_msg=path)
    np.testing.assert_array_equal(
        full.state.statistics["backbone"]["body"]["norm"]["mean"],
        state.statistics["backbone"]["body"]["norm"]["mean"],
    )


def test_frozen_parameters_have_no_gradient_no_optimizer_state_and_constant_statistics():
    method = transfer.partial(optax.adam(1e-1), freeze=FREEZE)
    setup, full, batch = prepared(adapted(Method(**{**vars(method), "fresh_frozen": True})))
    moments = flatten(full.opt_state["all"][0].mu)
    assert set(moments) == setup.trainable
    assert not any(path.startswith("backbone/body/norm") for path in setup.trainable)
    carry, _ = jax.jit(make_step(setup))(full, batch, jax.random.key(0), 0)
    assert jax.tree.structure(carry.trainable) == jax.tree.structure(full.trainable)
    for path, leaf in flatten(full.state.statistics).items():
        np.testing.assert_array_equal(flatten(carry.state.statistics)[path], leaf)
    head = carry.params["heads"]["target"]["kernel"]
    assert not np.array_equal(head, full.params["heads"]["target"]["kernel"])


def test_statistics_follow_the_data_where_their_scale_trains():
    setup, full, batch = prepared(adapted(transfer.full(optax.adam(1e-2))))
    carry, _ = jax.jit(make_step(setup))(full, batch, jax.random.key(0), 0)
    mean = carry.state.statistics["backbone"]["body"]["norm"]["mean"]
    assert not np.array_equal(mean, full.state.statistics["backbone"]["body"]["norm"]["mean"])


def mlp_stage(method, **options):
    model = models.mlp({"a": classes(3), "b": classes(3)}, hidden=(8,))
    domains = [
        labelled(blobs("x", 24), "a", weight=0.5),
        labelled(blobs("y", 16, 1.0, seed=4), {"a": "label", "b": "label"}),
    ]
    return Stage("stage", model, method, domains=domains, batch_size=8, num_steps=4, **options)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_micro_batches_change_nothing_but_rounding(parts):
    setup, full, batch = prepared(mlp_stage(transfer.full(optax.sgd(0.1))))
    args = (full, batch, jax.random.key(0), 0)
    whole, cut = jax.jit(make_step(setup))(*args), jax.jit(make_step(setup, parts))(*args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), whole, cut)


def test_an_update_that_couples_examples_is_never_cut():
    seen = []

    def coupled(model, params, state, batch, rng, step):
        seen.append(batch.weights["a"].shape)
        return jnp.sum(params["heads"]["a"]["bias"] ** 2), (state, {})

    method = Method({"all": ((".*",), optax.sgd(0.1))}, (Update(coupled),))
    setup, full, batch = prepared(mlp_stage(method))
    jax.jit(make_step(setup, 4))(full, batch, jax.random.key(0), 0)
    assert set(seen) == {(8, 2)}


def test_each_update_steps_only_its_optimizers_and_repeats():
    def to_one(model, params, state, batch, rng, step):
        return 0.5 * jnp.sum((params["heads"]["a"]["bias"] - 1.0) ** 2), (state, {})

    def to_two(model, params, state, batch, rng, step):
        total = 0.5 * jnp.sum((params["heads"]["b"]["bias"] - 2.0) ** 2)
        return total + jnp.sum(params["heads"]["a"]["bias"]), (state, {"seen": total})

    optimizers = {
        "first": (("heads/a/.*",), optax.sgd(0.5)),
        "second": (("heads/b/.*",), optax.sgd(0.5)),
    }
    updates = (Update(to_one, ("first",), repeat=2), Update(to_two, ("second",)))
    setup, full, batch = prepared(mlp_stage(Method(optimizers, updates, fresh_frozen=True)))
    carry, metrics = jax.jit(make_step(setup))(full, batch, jax.random.key(0), 0)
    heads = carry.params["heads"]
    np.testing.assert_allclose(heads["a"]["bias"], 0.75)  # 1 - (1 - 0.5)^2, not moved by to_two
    np.testing.assert_allclose(heads["b"]["bias"], 1.0)
    assert {"loss_0", "loss_1", "seen", "failed_at"} == metrics.keys()
    assert metrics["loss_0"] == pytest.approx(0.5 * 3 * 0.25)  # before the second repeat


def test_combine_gets_the_jacobian_of_the_task_losses():
    def losses(model, params, state, batch, rng, step):
        bias = params["heads"]["a"]["bias"]
        return jnp.stack([bias.sum(), (3 * bias).sum()]), (state, {})

    def combine(jacobian, values):
        assert values.shape == (2,)
        return jax.tree.map(lambda leaf: leaf[0] - leaf[1], jacobian)

    method = Method(
        {"all": (("heads/a/bias",), optax.sgd(1.0))},
        (Update(losses, combine=stateless(combine)),),
        fresh_frozen=True,
    )
    setup, full, batch = prepared(mlp_stage(method))
    carry, _ = jax.jit(make_step(setup))(full, batch, jax.random.key(0), 0)
    np.testing.assert_allclose(carry.params["heads"]["a"]["bias"], 2.0)


def test_gathered_batch_has_the_layout_and_hides_what_is_not_labelled():
    stage = mlp_stage(transfer.full(optax.sgd(0.1)))
    _, _, batch = prepared(stage)
    assert active_heads(stage) == ("a", "b")
    assert batch.inputs.shape == (8, 2, 5)
    np.testing.assert_array_equal(batch.weights["a"], np.tile([0.5, 1.0], (8, 1)))
    np.testing.assert_array_equal(batch.weights["b"], np.tile([0.0, 1.0], (8, 1)))
    np.testing.assert_array_equal(batch.labels["b"][:, 0], -1)
    np.testing.assert_array_equal(batch.labels["a"][:, 1], np.arange(8) % 3)


def test_initial_values_depend_on_seed_and_path_only():
    def initial(stage):
        setup = resolve(stage, None)
        return initialise(stage, setup.inputs, setup.shape, 3)[0]

    one = initial(stages()[0])
    model = models.from_linen(Body(), {"other": classes(7), "target": classes(3)}, name="body")
    pretrain = stages()[0]
    stage = Stage(
        "x",
        model,
        pretrain.method,
        domains=[labelled(blobs("s"), "target")],
        batch_size=8,
        num_steps=1,
    )
    other = initial(stage)
    for path in set(flatten(one)) & set(flatten(other)):
        np.testing.assert_array_equal(flatten(one)[path], flatten(other)[path])
    assert "heads/target/kernel" in set(flatten(one)) & set(flatten(other))


def test_columns_of_an_unlabelled_domain_hold_no_label():
    domain = unlabelled(blobs("z"), "source")
    hidden = columns(domain, body().heads, 0)
    assert set(hidden.labels["source"]) == {-1} and set(hidden.weights["source"]) == {0.0}


def test_a_head_that_no_domain_names_does_not_train():
    setup, full, _ = prepared(adapted(transfer.full(optax.adamw(0.1))))
    assert set(flatten(full.frozen)) == {"heads/source/kernel", "heads/source/bias"}
    assert setup.sizes[1] - setup.sizes[0] == 8 * 3 + 3


def test_the_gradient_of_all_groups_is_clipped_by_one_norm():
    stage = mlp_stage(transfer.full(optax.sgd(1.0)))
    groups = {"heads": (("heads/.*",), optax.sgd(1.0)), "rest": ((".*",), optax.sgd(1.0))}
    clipped = dataclasses.replace(transfer.grouped(groups), clip_norm=0.02)
    moves = {}
    for name, method in {"free": stage.method, "clipped": clipped}.items():
        setup, full, batch = prepared(dataclasses.replace(stage, method=method))
        carry, _ = jax.jit(make_step(setup))(full, batch, jax.random.key(0), 0)
        before, after = (
            flatten(join(*full.trainable.values())),
            flatten(join(*carry.trainable.values())),
        )
        moves[name] = {path: after[path] - before[path] for path in before}
    norm = np.sqrt(sum(np.sum(np.square(move)) for move in moves["free"].values()))
    assert norm > 0.1
    for path, move in moves["free"].items():
        np.testing.assert_allclose(moves["clipped"][path], move * 0.02 / norm, 1e-4, 1e-7)


def test_frozen_parameters_do_not_count_in_the_norm():
    method = transfer.partial(optax.sgd(1.0), freeze=("backbone/.*",))
    method = dataclasses.replace(method, fresh_frozen=True, clip_norm=1e-3)
    setup, full, batch = prepared(mlp_stage(method))
    carry, _ = jax.jit(make_step(setup))(full, batch, jax.random.key(0), 0)
    moved = jax.tree.map(lambda a, b: a - b, carry.trainable, full.trainable)
    np.testing.assert_allclose(optax.tree.norm(moved), 1e-3, rtol=1e-4)


def test_the_average_follows_its_recursion():
    method = dataclasses.replace(transfer.full(optax.adam(0.1)), ema=0.7)
    setup, full, batch = prepared(mlp_stage(method))
    step, expected = jax.jit(make_step(setup)), flatten(join(*full.trainable.values()))
    for i in range(4):
        full, _ = step(full, batch, jax.random.key(0), i)
        now = flatten(join(*full.trainable.values()))
        expected = {path: 0.7 * expected[path] + 0.3 * now[path] for path in now}
    for path, leaf in flatten(join(*full.average.values())).items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-5)
        assert not np.allclose(leaf, now[path], rtol=1e-3) or not np.any(leaf)


@pytest.mark.parametrize(("start", "every"), [(2, 1), (3, 2), (1, 4), (20, 1)])
def test_swa_is_the_mean_of_the_recorded_trajectory(start, every):
    method = dataclasses.replace(transfer.full(optax.adam(0.1)), swa=(start, every))
    setup, full, batch = prepared(mlp_stage(method))
    step, recorded = jax.jit(make_step(setup)), []
    for i in range(7):
        full, _ = step(full, batch, jax.random.key(0), i)
        recorded.append(flatten(join(*full.trainable.values())))
        chosen = recorded[start - 1 :: every] if i + 1 >= start else recorded[-1:]
        for path, leaf in flatten(join(*full.average.values())).items():
            expected = np.mean([at[path] for at in chosen], 0)
            np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("wrong", [{"swa": (0, 1)}, {"swa": (1, 0)}, {"swa": (1, 1), "ema": 0.9}])
def test_swa_stands_alone_and_starts_after_a_step(wrong):
    method = dataclasses.replace(transfer.full(optax.adam(0.1)), **wrong)
    with pytest.raises(ValueError, match="swa is"):
        resolve(mlp_stage(method), None)
