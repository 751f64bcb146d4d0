"""Adaptation from several sources, against loops and closed forms of its own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from two_domains import (
    CLASSES,
    MODEL,
    WIDTH,
    B,
    Forward,
    assert_close,
    computed,
    draw,
    evaluated,
    gradient_of,
    initial,
)

from jaxtl.methods import adapt
from jaxtl.methods.adapt.darn import smallest_bound_shares
from jaxtl.methods.adapt.m3sda import moment_distance
from jaxtl.models import mlp_head
from jaxtl.plan import StageShape, State

SGD = optax.sgd(0.1)
SHAPE = StageShape(("source", "source", "target"), (9, 9, 9), {"task": CLASSES}, B)
FACTOR, COEFFICIENT, GAMMA = 0.3, 0.7, 2.0


def batch_of_three(present=None):
    batch = draw(3, labelled=(0, 1))
    return batch if present is None else batch.replace(present=present)


def unequal():
    present = np.random.default_rng(2).uniform(0.5, 2, (B, 3)).astype(np.float32)
    present[1, 0] = present[2, 2] = 0
    return present


def terms(params, batch, linear):
    """(task losses [2], domain losses [2]) by loops over sources and examples."""
    values = Forward(params, batch)
    log_p = jax.nn.log_softmax(values.all_logits)
    tasks, domains = [], []
    for d in (0, 1):
        own = jnp.take_along_axis(log_p[:, d], jnp.asarray(batch.labels["task"])[:, d, None], 1)
        tasks.append(-jnp.sum(batch.weights["task"][:, d] * own[:, 0]) / B)
        kernel, bias = linear["kernel"][d, :, 0], linear["bias"][d, 0]
        source, target = (values.all_features[:, j] @ kernel + bias for j in (d, 2))
        of_source = -jnp.sum(batch.present[:, d] * jax.nn.log_sigmoid(-source)) / B
        of_target = -jnp.sum(batch.present[:, 2] * jax.nn.log_sigmoid(target)) / B
        domains.append((of_source + of_target) / 2)
    return jnp.stack(tasks), jnp.stack(domains)


WEIGHTS = {
    "mdan": lambda bounds: np.exp(GAMMA * bounds) / np.exp(GAMMA * bounds).sum(),
    "mdan_hard": lambda bounds: np.eye(2)[np.argmax(bounds)],
    "darn": lambda bounds: np.asarray(smallest_bound_shares(jnp.float32(bounds), GAMMA)),
}
BUILDERS = {
    "mdan": lambda **rest: adapt.mdan(SGD, sharpness=GAMMA, **rest),
    "mdan_hard": lambda **rest: adapt.mdan_hard(SGD, **rest),
    "darn": lambda **rest: adapt.darn(SGD, temperature=GAMMA, **rest),
}


@pytest.mark.parametrize(
    "name", ["darn", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mdan", "mdan_hard"))]
)
def test_adversaries_of_the_sources(name):
    method = BUILDERS[name](weight=FACTOR, reversal=COEFFICIENT)
    batch = batch_of_three(unequal())
    params = initial(method, SHAPE)
    linear = params["discriminator"]["output"]
    assert linear["kernel"].shape == (2, WIDTH, 1)
    tasks, domains = jax.jit(lambda params: terms(params, batch, linear))(params)
    weights = WEIGHTS[name](np.float64(tasks - FACTOR * np.minimum(domains, np.log(2))))
    loss, metrics, gradient = evaluated(method, params, batch)
    np.testing.assert_allclose(loss, weights @ (tasks + FACTOR * domains), rtol=1e-5)
    np.testing.assert_allclose([metrics[f"source_weight_{i}"] for i in (0, 1)], weights, rtol=1e-4)

    def reversed_objective(params):
        against = params["discriminator"]["output"]
        constant = jax.lax.stop_gradient(params["backbone"])
        own_tasks, of_features = terms(params, batch, jax.lax.stop_gradient(against))
        _, of_networks = terms({**params, "backbone": constant}, batch, against)
        mixed = own_tasks + FACTOR * (of_networks - COEFFICIENT * of_features)
        return jnp.sum(jnp.asarray(weights, jnp.float32) * mixed)

    assert_close(gradient, gradient_of(reversed_objective, params)[1])


@pytest.mark.parametrize("temperature", [1e-12, 0.2, 1.0, 30.0])
@pytest.mark.parametrize("bounds", [[0.3], [1.0, 1.0, 1.0], [0.2, -0.4, 0.1, 0.9], [5.0, 0.0]])
def test_shares_of_sources_are_the_minimum(bounds, temperature):
    found = np.asarray(jax.jit(smallest_bound_shares)(jnp.array(bounds), temperature))
    assert found.min() >= 0 and found.sum() == pytest.approx(1, abs=1e-6)

    def objective(w):
        return w @ np.array(bounds) + temperature * np.linalg.norm(w)

    least = scipy.optimize.minimize(
        objective,
        np.full(len(bounds), 1 / len(bounds)),
        bounds=[(0, 1)] * len(bounds),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert objective(np.float64(found)) <= least.fun + 1e-5


def moments_in_loops(sources, target, source_weights, target_weights):
    def moment(rows, weights, k):
        return sum(w * np.float64(row) ** k for row, w in zip(rows, weights, strict=True)) / sum(
            weights
        )

    total, count = 0.0, len(sources)
    for k in (1, 2):
        own = [moment(x, w, k) for x, w in zip(sources, source_weights, strict=True)]
        there = moment(target, target_weights, k)
        total += sum(np.linalg.norm(m - there) for m in own) / count
        pairs = list(itertools.combinations(own, 2))
        total += sum(np.linalg.norm(a - b) for a, b in pairs) / len(pairs)
    return total


def test_distance_of_moments():
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(3, 7, 4)).astype(np.float32) + np.arange(3)[:, None, None]
    sources, target = np.float32(sources), rng.normal(size=(5, 4)).astype(np.float32)
    weights = [rng.uniform(0.5, 2, shape).astype(np.float32) for shape in ((3, 7), (5,))]
    distance = jax.jit(jax.value_and_grad(moment_distance))
    expected = moments_in_loops(sources, target, *weights)
    np.testing.assert_allclose(distance(sources, target, *weights)[0], expected, rtol=1e-5)
    same, ones = np.stack([target] * 3), np.ones((3, 5), np.float32)
    value, slope = distance(same, target, ones, ones[0])
    assert abs(value) < 1e-6 and np.isfinite(slope).all()
    weights[0][1, 2] = 0
    with_hole = moments_in_loops(sources, target, *weights)
    sources[1, 2] = np.nan
    np.testing.assert_allclose(distance(sources, target, *weights)[0], with_hole, rtol=1e-5)


def classifier_logits(params, batch, name="first"):
    """{source: logits [batch, domains, classes]}"""
    features = computed(params, batch).all_features
    kernels, biases = (np.asarray(params[name]["output"][n]) for n in ("kernel", "bias"))
    return [features @ kernels[d] + biases[d] for d in (0, 1)]


def own_losses(params, batch, name="first"):
    total = 0.0
    for d, logits in enumerate(classifier_logits(params, batch, name)):
        log_p = np.float64(jax.nn.log_softmax(logits[:, d]))
        for i, label in enumerate(batch.labels["task"][:, d]):
            total -= batch.weights["task"][i, d] * log_p[i, label] / B
    return total


def distance_of(params, batch):
    features = np.swapaxes(computed(params, batch).all_features, 0, 1)
    present = np.swapaxes(np.asarray(batch.present), 0, 1)
    return moments_in_loops(features[:2], features[2], present[:2], present[2])


def test_every_source_has_its_classifier():
    method = adapt.m3sda(SGD, weight=0.4, votes=(1, 3))
    batch, params = batch_of_three(unequal()), initial(method, SHAPE)
    loss, _, gradient = evaluated(method, params, batch)
    expected = own_losses(params, batch) + 0.4 * distance_of(params, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert not any(leaf.any() for leaf in gradient["heads"]["task"].values())
    inputs = batch.inputs[:, 2]
    output = jax.jit(lambda p: method.predict(MODEL, p, State({}), inputs))(params)
    chances = [jax.nn.softmax(logits[:, 2]) for logits in classifier_logits(params, batch)]
    found = np.exp(output["logits"]["task"])
    np.testing.assert_allclose(found, 0.25 * chances[0] + 0.75 * chances[1], rtol=1e-5)


@pytest.mark.slow
def test_pairs_of_classifiers_disagree_on_the_target():
    method = adapt.m3sda_beta(SGD, weight=0.4)
    batch, params = batch_of_three(unequal()), initial(method, SHAPE)
    tasks = sum(own_losses(params, batch, name) for name in ("first", "second"))
    pairs = zip(*(classifier_logits(params, batch, n) for n in ("first", "second")), strict=True)
    shares, apart = batch.present[:, 2] / batch.present[:, 2].sum(), 0.0
    for first, second in pairs:
        gap = np.abs(jax.nn.softmax(first[:, 2]) - jax.nn.softmax(second[:, 2]))
        apart += shares @ gap.mean(1)
    found = [evaluated(method, params, batch, index)[0] for index in range(3)]
    expected = [tasks + 0.4 * distance_of(params, batch), tasks - apart, apart]
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert method.updates[2].repeat == 4 and "classifiers" not in method.updates[2].optimizers


@pytest.mark.parametrize("name", ["mdan", "mdan_hard", "darn", "m3sda", "m3sda_beta"])
def test_one_source_is_refused(name):
    method = getattr(adapt, name)(SGD)
    alone = SHAPE._replace(roles=("source", "target"))
    with pytest.raises(ValueError, match="several sources needs two or more"):
        initial(method, alone)


def test_what_does_not_fit_is_refused():
    method = adapt.mdan(SGD, discriminator=mlp_head((), 2))
    with pytest.raises(ValueError, match="1 output, this one has 2"):
        evaluated(method, initial(method, SHAPE), batch_of_three())
    method = adapt.m3sda(SGD, votes=(1.0,))
    with pytest.raises(ValueError, match="for each of 2 sources"):
        method.predict(MODEL, initial(method, SHAPE), State({}), jnp.zeros((1, 4)))
