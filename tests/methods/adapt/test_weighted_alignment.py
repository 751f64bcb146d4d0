"""A weight of 2 is an example that is there twice, in every term of every method of adaptation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shapes import SHAPE
from two_domains import CLASSES, KEY, MODEL, WIDTH, draw, initial

from jaxtl.losses import virtual_adversarial
from jaxtl.methods import adapt, transfer
from jaxtl.methods.adapt.class_centres import class_centres, spherical_k_means
from jaxtl.models import mlp_head
from jaxtl.plan import State

TX, TWO = optax.sgd(0.1), mlp_head((4,), 2)
ROWS = np.array([[0, 0, 1, 2, 3, 4], [0, 1, 1, 1, 2, 3]])  # of source and target, some twice
COUNTS = np.array([[2, 1, 1, 1, 1, 0], [1, 3, 1, 1, 0, 0]], np.float32)  # how often each is there

AFTER = {  # {name: (method, which update)}
    "adda": (adapt.adda(TX, discriminator=TWO), 0),
    "adda, encoder": (adapt.adda(TX, discriminator=TWO), 1),
    "afn": (adapt.afn(TX), 0),
    "bnm": (adapt.bnm(TX), 0),
    "bsp": (adapt.bsp(TX, reversal=0.5, discriminator=TWO), 0),
    "can": (adapt.can(TX, every=5, largest_distance=1.0), 0),
    "cdan": (adapt.cdan(TX, reversal=0.5, discriminator=TWO), 0),
    "cdan_e": (adapt.cdan_e(TX, reversal=0.5, discriminator=TWO), 0),
    "cmd": (adapt.cmd(TX), 0),
    "dan": (adapt.dan(TX), 0),
    "dan, unbiased": (adapt.dan(TX, unbiased=True), 0),
    "dann": (adapt.dann(TX, reversal=0.5, discriminator=TWO), 0),
    "deep_coral": (adapt.deep_coral(TX), 0),
    "deep_coral_features": (adapt.deep_coral_features(TX), 0),
    "deep_jdot": (adapt.deep_jdot(TX, num_steps=5), 0),
    "distill": (transfer.distill(TX, heads=["task"]), 0),
    "dsan": (adapt.dsan(TX, weight=0.5), 0),
    "entropy_minimization": (adapt.entropy_minimization(TX), 0),
    "fix_match": (adapt.fix_match(TX, strong=lambda rng, x: 1.5 * x, threshold=0.4), 0),
    "information_maximization": (adapt.information_maximization(TX), 0),
    "iwan": (adapt.iwan(TX, reversal=0.5, discriminator=TWO, estimator=TWO), 0),
    "jan": (adapt.jan(TX), 0),
    "mcc": (adapt.mcc(TX), 0),
    "mcd": (adapt.mcd(TX), 1),
    "mcd, encoder": (adapt.mcd(TX), 2),
    "mdd": (adapt.mdd(TX, reversal=0.5), 0),
    "mean_teacher": (adapt.mean_teacher(TX, confidence=0.4), 0),
    "osbp": (adapt.osbp(TX), 0),
    "pada": (adapt.pada(TX, reversal=0.5, discriminator=TWO), 0),
    "self_training": (adapt.self_training(TX, threshold=0.4), 0),
    "tent": (adapt.tent(TX), 0),
    "wdgrl": (adapt.wdgrl(TX, critic=mlp_head((4,), 1)), 1),
}


def weighted(counts):
    """A batch whose examples have these weights [domains, batch]."""
    batch = draw()
    counts = np.asarray(counts, np.float32).T
    known = (batch.weights["task"] > 0).astype(np.float32)
    return batch.replace(weights={"task": known * counts}, present=counts)


def repeated():
    """The same examples, each there as often as it weighs."""
    batch = weighted(np.ones_like(COUNTS))

    def rows(leaf):
        return np.stack([leaf[rows, d] for d, rows in enumerate(ROWS)], 1)

    return jax.tree.map(rows, batch)


def moved(tree):
    """Off the zeros at which a method's state begins; booleans become true."""
    rng = np.random.default_rng(2)
    return jax.tree.map(
        lambda leaf: (
            jnp.ones_like(leaf)
            if leaf.dtype == bool
            else leaf + rng.normal(size=leaf.shape).astype("f")
        ),
        tree,
    )


def value_of(name):
    """batch -> the loss, or for AFN, whose value is constant, a component of its gradient."""
    method, update = AFTER[name]
    params = initial(method)
    state = State({}, moved(method.state(MODEL, params, {}, SHAPE)) if method.state else None)

    def loss(params, batch):
        return method.updates[update].loss(MODEL, params, state, batch, KEY, 7)[0]

    def slope(batch):
        return jax.jvp(lambda p: loss(p, batch), (params,), (moved(params),))[1]

    return jax.jit(slope if name == "afn" else functools.partial(loss, params))


QUICK = {
    "afn",
    "cmd",
    "dan",
    "dann",
    "deep_coral",
    "deep_jdot",
    "dsan",
    "mcc",
    "mdd",
    "shot",
    "wdgrl",
}


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in AFTER],
)
def test_an_example_of_weight_two_is_there_twice(name):
    value = value_of(name)
    batch = weighted(COUNTS)
    alike = batch.replace(present=np.ones_like(batch.present))  # as if only labels weighed
    once, twice, alike = map(value, (batch, repeated(), alike))
    np.testing.assert_allclose(once, twice, rtol=2e-4, atol=1e-5)
    assert abs(once - alike) > 1e-4 * abs(alike)


SIDES = ("adda", "can", "dan", "fix_match", "iwan", "mean_teacher", "osbp", "pada", "self_training")


@pytest.mark.parametrize("name", SIDES)
def test_domains_of_one_role_need_not_be_neighbours(name):
    value, batch = value_of(name), draw(3, (0, 2))
    assert batch.roles == ("source", "target", "source")
    neighbours = jax.tree.map(lambda leaf: leaf[:, [0, 2, 1]], batch)
    expected = value(neighbours.replace(roles=("source", "source", "target")))
    np.testing.assert_allclose(value(batch), expected, rtol=1e-5)
    others = value(batch.replace(roles=("source", "target", "target")))
    assert abs(others - expected) > 1e-4 * abs(expected)


def test_smoothness_weighs_examples():
    """That of VADA and DIRT-T, by itself since its random directions differ by row."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 3), (3, 2)))

    def smoothness(x, weights):
        predict = functools.partial(jnp.matmul, b=kernel)
        return virtual_adversarial(predict, KEY, x, x @ kernel, weights, radius=0.5)

    each = [smoothness(x, jnp.eye(4)[i]) for i in range(4)]
    np.testing.assert_allclose(smoothness(x, None), sum(each), rtol=1e-5)
    counts = jnp.array([2.0, 0.0, 1.0, 0.5])
    broken = x.at[1].set(jnp.nan)
    np.testing.assert_allclose(smoothness(broken, counts), counts @ jnp.stack(each), rtol=1e-5)


@pytest.mark.slow
def test_the_other_terms_of_vada_weigh_examples():
    method = adapt.vada(TX, radius=0.5, discriminator=TWO)
    params = initial(method)

    @jax.jit
    def terms(batch):
        metrics = method.updates[0].loss(MODEL, params, State({}), batch, KEY, 7)[1][1]
        return metrics["domain_loss"], metrics["target_entropy"]

    for once, twice in zip(terms(weighted(COUNTS)), terms(repeated()), strict=True):
        np.testing.assert_allclose(once, twice, rtol=1e-4)


def test_clusters_weigh_examples():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(6, WIDTH)), rng.integers(0, CLASSES, 6)
    rows, counts = ROWS[0], COUNTS[0]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    centres = class_centres(features, labels, CLASSES)
    once, _ = spherical_k_means(features[:5], centres, counts[:5])
    twice, _ = spherical_k_means(features[rows], centres)
    np.testing.assert_allclose(once, twice, rtol=1e-12)


def test_methods_that_take_no_weights_say_so():
    alike = [adapt.shot(TX), adapt.shot_im(TX), adapt.t3a(), adapt.meda(dim=2), adapt.unaligned()]
    assert all(method.unweighted for method in alike)
    weighing = [method for method, _ in AFTER.values()] + [adapt.kmm(), adapt.tradaboost()]
    assert not any(method.unweighted for method in weighing)
