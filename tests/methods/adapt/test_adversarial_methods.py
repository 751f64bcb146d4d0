"""Adversarial methods: what the opponent minimises, the features learn against, times a factor."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shapes import SHAPE
from two_domains import (
    CLASSES,
    KEY,
    MODEL,
    SGD,
    WIDTH,
    B,
    Forward,
    assert_close,
    computed,
    cross_entropy,
    dense,
    draw,
    evaluated,
    gradient_of,
    initial,
)

from jaxtl.methods import adapt
from jaxtl.methods.adapt.cdan import certainty, conditioned
from jaxtl.models import mlp_head
from jaxtl.paths import flatten, label
from jaxtl.plan import State

COEFFICIENT, WEIGHT = 0.35, 0.6
SMALL = ("dense_0", "output")


def rising(step):
    return 0.05 * step  # 0.35 at step 7


def told_apart(params, x, weights=None, domains=2):
    """Mean cross-entropy of the domain classifier: its first B rows are of domain 0, and so on."""
    log_p = jax.nn.log_softmax(dense(params["discriminator"], x, SMALL))
    nats = -jnp.concatenate([log_p[i * B : (i + 1) * B, i] for i in range(domains)])
    return jnp.mean(nats if weights is None else weights * nats)


def domain_objective(params, f):
    return told_apart(params, jnp.concatenate([f.fs, f.ft]))


def products(f):
    """Features times probabilities, example by example; the probabilities are constants."""
    features = jnp.concatenate([f.fs, f.ft])
    p = jax.lax.stop_gradient(jax.nn.softmax(jnp.concatenate([f.zs, f.zt])))
    return jnp.stack([jnp.outer(x, q).ravel() for x, q in zip(features, p, strict=True)])


def sure(f):
    """1 + exp(-entropy), of mean 1 in each domain."""
    found = []
    for logits in (f.zs, f.zt):
        p = jax.lax.stop_gradient(jax.nn.softmax(logits))
        weights = 1 + jnp.exp(jnp.sum(p * jnp.log(p), -1))
        found.append(weights / jnp.mean(weights))
    return jnp.concatenate(found)


def disparity(params, f):
    adversary = [dense(params["adversary"], x) for x in (f.fs, f.ft)]
    ours = [jax.lax.stop_gradient(z.argmax(-1)) for z in (f.zs, f.zt)]
    p = [jax.nn.softmax(z)[jnp.arange(B), y] for z, y in zip(adversary, ours, strict=True)]
    return -3.0 * jnp.mean(jnp.log(p[0])) - jnp.mean(jnp.log(1 - p[1]))


def largest(params, f):
    norms = [jnp.linalg.svd(x, compute_uv=False)[:2] for x in (f.fs, f.ft)]
    return 0.02 * sum(jnp.sum(values**2) for values in norms)


MODULE = mlp_head((7,), 2)
OPTIONS = {"reversal": rising, "discriminator": MODULE}
# name: (builder, what the opponent minimises, what is added without a reversal)
METHODS = {
    "dann": (lambda: adapt.dann(SGD, weight=WEIGHT, **OPTIONS), domain_objective, None),
    "cdan": (
        lambda: adapt.cdan(SGD, weight=WEIGHT, **OPTIONS),
        lambda params, f: told_apart(params, products(f)),
        None,
    ),
    "cdan_e": (
        lambda: adapt.cdan_e(SGD, weight=WEIGHT, **OPTIONS),
        lambda params, f: told_apart(params, products(f), sure(f)),
        None,
    ),
    "bsp": (
        lambda: adapt.bsp(SGD, weight=0.02, count=2, domain_weight=WEIGHT, **OPTIONS),
        domain_objective,
        largest,
    ),
    "mdd": (
        lambda: adapt.mdd(SGD, reversal=rising, weight=WEIGHT, margin=3.0),
        disparity,
        None,
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_features_learn_against_what_the_opponent_minimises(name):
    builder, against, plain = METHODS[name]
    method, batch = builder(), draw()
    params = initial(method)
    loss, metrics, gradient = evaluated(method, params, batch)

    def own(params):
        f = Forward(params, batch)
        return f.task + (0.0 if plain is None else plain(params, f))

    task, own_gradient = gradient_of(own, params)
    rival, rival_gradient = gradient_of(lambda p: against(p, Forward(p, batch)), params)
    np.testing.assert_allclose(loss, task + WEIGHT * rival, rtol=1e-4)
    np.testing.assert_allclose(metrics["reversal"], COEFFICIENT, rtol=1e-6)
    rivals = set(method.modules)
    factor = {k: WEIGHT * (1 if k in rivals else -COEFFICIENT) for k in params}
    expected = {
        k: jax.tree.map(lambda a, b, k=k: a + factor[k] * b, own_gradient[k], rival_gradient[k])
        for k in params
    }
    assert_close(gradient, expected)
    felt = jnp.abs(rival_gradient["backbone"]["first"]["kernel"]).max()
    assert felt > 1e-3
    heads = jax.tree.leaves(rival_gradient["heads"])
    assert not any(leaf.any() for leaf in heads)  # no head moves against the rival


def test_accuracy_of_the_domain_classifier_and_its_classes():
    """With three domains each is a class of its own, whichever side it is on."""
    method = adapt.dann(SGD, reversal=0.5, discriminator=mlp_head((7,), 3))
    batch = draw(domains=3, labelled=(0, 1))
    params = initial(method, SHAPE._replace(roles=batch.roles))
    f = computed(params, batch)
    flat = f.all_features.reshape(-1, WIDTH)
    logits = np.asarray(
        jax.jit(dense, static_argnums=2)(params["discriminator"], flat, SMALL)
    ).reshape(B, 3, 3)
    truth = np.broadcast_to(np.arange(3), (B, 3))
    loss, metrics, _ = evaluated(method, params, batch)
    np.testing.assert_allclose(metrics["domain_accuracy"], np.mean(logits.argmax(-1) == truth))
    log_p = np.asarray(jax.nn.log_softmax(logits))
    expected = -np.mean(np.take_along_axis(log_p, truth[..., None], -1))
    np.testing.assert_allclose(metrics["domain_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, f.task + expected, rtol=1e-5)


def test_random_features_estimate_the_inner_products_of_outer_products():
    """<T(f, p), T(f', p')> is about <f, f'> <p, p'>, as for the outer products."""
    keys = jax.random.split(jax.random.key(0))
    features = jax.random.normal(keys[0], (4, WIDTH))
    p = jax.nn.softmax(jax.random.normal(keys[1], (4, CLASSES)))
    exact, estimate = (conditioned(features, p, width) for width in (None, 4_000))
    np.testing.assert_allclose(exact @ exact.T, (features @ features.T) * (p @ p.T), rtol=1e-5)
    np.testing.assert_allclose(estimate @ estimate.T, exact @ exact.T, atol=0.6)
    method = adapt.cdan(SGD, reversal=1.0, random_features=11, discriminator=mlp_head((7,), 2))
    assert initial(method)["discriminator"]["dense_0"]["kernel"].shape == (11, 7)


def test_sure_predictions_weigh_up_to_twice_as_much():
    logits = jnp.array([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]])
    unsure, sure = certainty(logits, jnp.ones(2))
    np.testing.assert_allclose(sure / unsure, 2 / (1 + 1 / 3), rtol=1e-5)
    np.testing.assert_allclose(unsure + sure, 2, rtol=1e-6)


CASES = {
    "dann": "domains",
    "bsp": "domains",
    "cdan": "domains",
    "cdan_e": "domains",
    "mdd": "classes",
}


@pytest.mark.parametrize("name", CASES)
def test_a_network_has_the_outputs_that_its_stage_needs(name):
    builder = functools.partial(getattr(adapt, name), SGD, reversal=1.0)
    shape = SHAPE._replace(roles=("source", "source", "target"), classes={"task": CLASSES})
    (network,) = builder().modules
    assert initial(builder(), shape)[network]["output"]["bias"].shape == (3,)
    argument = "adversary" if name == "mdd" else "discriminator"
    wrong = builder(**{argument: mlp_head((), 4)})
    with pytest.raises(ValueError, match=f"has 4 outputs, its stage has 3 {CASES[name]}"):
        initial(wrong, shape)


CRITIC = mlp_head((7,), 1)


def scores(params, f):
    return [dense(params["critic"], x, SMALL)[:, 0] for x in (f.fs, f.ft)]


def test_wdgrl_trains_a_critic_then_the_features():
    method = adapt.wdgrl(SGD, weight=rising, penalty=3.0, critic=CRITIC, critic_steps=2)
    batch, params = draw(), initial(method)
    first, second = method.updates
    assert (first.repeat, first.optimizers, second.optimizers) == (2, ("critic",), ("all",))

    def distance(params):
        source, target = scores(params, Forward(params, batch))
        return jnp.mean(source) - jnp.mean(target)

    gap, slope = gradient_of(distance, params)
    loss, metrics, gradient = evaluated(method, params, batch, 0)
    np.testing.assert_allclose(loss, 3 * metrics["gradient_penalty"] - gap, rtol=1e-4)
    without = adapt.wdgrl(SGD, penalty=0.0, critic=CRITIC)
    gradient = evaluated(without, params, batch, 0)[2]
    assert_close(gradient["critic"], jax.tree.map(lambda x: -x, slope["critic"]))

    loss, metrics, gradient = evaluated(method, params, batch, 1)
    task, plain = gradient_of(lambda params: Forward(params, batch).task, params)
    np.testing.assert_allclose(metrics["wasserstein"], gap, rtol=1e-4)
    np.testing.assert_allclose(loss, task + COEFFICIENT * gap, rtol=1e-4)
    expected = jax.tree.map(lambda a, b: a + COEFFICIENT * b, plain, slope)
    assert_close(gradient["backbone"], expected["backbone"])


def test_the_penalty_of_a_linear_critic_is_that_of_its_slope():
    method = adapt.wdgrl(SGD, critic=mlp_head((), 1))
    params = initial(method)
    metrics = evaluated(method, params, draw(), 0)[1]
    norm = np.linalg.norm(params["critic"]["output"]["kernel"])
    np.testing.assert_allclose(metrics["gradient_penalty"], (norm - 1) ** 2, rtol=1e-4)


def classifiers(params, f):
    second = params["classifier"]["output"]
    other = jnp.einsum("bdi,io->bdo", f.all_features, second["kernel"])
    return f.all_logits, other + second["bias"][None, None]


def three_steps(params, batch, balance):
    """(A, B, C) of maximum classifier discrepancy, by hand."""
    f = Forward(params, batch)
    ours, theirs = classifiers(params, f)
    task = f.task + cross_entropy(theirs, batch)
    p, q = (jax.nn.softmax(z[:, 1]) for z in (ours, theirs))
    uneven = -sum(jnp.mean(jnp.log(x.mean(0) + 1e-6)) for x in (p, q))
    gap = jnp.mean(jnp.abs(p - q))
    return task + balance * uneven, task + balance * uneven - gap, gap


@pytest.mark.parametrize("step", [0, 1, 2])
def test_mcd_has_three_steps(step):
    method = adapt.mcd(SGD, balance=0.3, encoder_steps=3)
    batch, params = draw(), initial(method)
    loss, _, gradient = evaluated(method, params, batch, step)
    value, by_hand = gradient_of(lambda params: three_steps(params, batch, 0.3)[step], params)
    np.testing.assert_allclose(loss, value, rtol=1e-4)
    assert_close(gradient, by_hand)
    update = method.updates[step]
    groups = {name: patterns for name, (patterns, _) in method.optimizers.items()}
    labels = label(flatten(params), groups)
    moving = {path.split("/")[0] for path, group in labels.items() if group in update.optimizers}
    assert moving == [
        {"backbone", "heads", "classifier"},
        {"heads", "classifier"},
        {"backbone"},
    ][step]  # fmt: skip
    assert update.repeat == (3 if step == 2 else 1)


def test_adda_discriminates_a_kept_encoder_from_the_one_that_trains():
    method = adapt.adda(SGD, discriminator=mlp_head((7,), 2))
    batch, before = draw(), initial(method)
    state = State({}, method.state(MODEL, before, {}, SHAPE))
    assert set(flatten(state.method["encoder"])) == {
        f"backbone/{block}/{leaf}" for block in ("first", "second") for leaf in ("bias", "kernel")
    }
    params = jax.tree.map(lambda x: x + 0.1, before)

    def discriminate(params):
        kept, now = Forward(before, batch), Forward(params, batch)
        return told_apart(params, jnp.concatenate([kept.fs, now.ft]))

    def deceive(params):
        log_p = jax.nn.log_softmax(dense(params["discriminator"], Forward(params, batch).ft, SMALL))
        return -jnp.mean(log_p[:, 0])

    for index, by_hand, name in ((0, discriminate, "discriminator"), (1, deceive, "backbone")):
        loss, _, gradient = evaluated(method, params, batch, index, state)
        value, expected = gradient_of(by_hand, params)
        np.testing.assert_allclose(loss, value, rtol=1e-5)
        assert_close(gradient[name], expected[name])
    groups = {name: patterns for name, (patterns, _) in method.optimizers.items()}
    labels = label(flatten(params), groups)
    assert {labels[f"heads/task/{leaf}"] for leaf in ("bias", "kernel")} == {"frozen"}
    assert [update.optimizers for update in method.updates] == [("discriminator",), ("all",)]


def test_adda_weighs_both_sides_alike():
    """With two sources and one target the loss is still the mean of the two sides' means."""
    method = adapt.adda(SGD, discriminator=mlp_head((7,), 2))
    batch, params = draw(domains=3, labelled=(0, 1)), initial(method)
    state = State({}, method.state(MODEL, params, {}, SHAPE))
    f = computed(params, batch)
    log_p = [jax.nn.log_softmax(dense(params["discriminator"], x, SMALL)) for x in (f.fs, f.ft)]
    expected = -(jnp.mean(log_p[0][:, 0]) + jnp.mean(log_p[1][:, 1])) / 2
    np.testing.assert_allclose(evaluated(method, params, batch, 0, state)[0], expected, rtol=1e-5)


def test_groups_need_an_optimizer_for_the_opponent():
    groups = {"frozen": (("backbone/first/.*",), SGD), "rest": ((".*",), optax.adam(1e-3))}
    with pytest.raises(ValueError, match="the critic needs an optax transformation of its own"):
        adapt.wdgrl(groups)
    method = adapt.wdgrl(groups, critic_tx=SGD)
    assert tuple(method.optimizers) == ("frozen", "critic", "rest")
    assert [update.optimizers for update in method.updates] == [("critic",), ("rest",)]
    adda = adapt.adda(groups, discriminator_tx=SGD)
    assert adda.optimizers["frozen"][0] == ("backbone/first/.*", "heads/.*")


def test_adda_needs_a_target():
    method = adapt.adda(SGD)
    params = initial(method)
    state = State({}, method.state(MODEL, params, {}, SHAPE))
    with pytest.raises(ValueError, match="at least one source and one target"):
        method.updates[0].loss(MODEL, params, state, draw(labelled=(0, 1)), KEY, 0)
