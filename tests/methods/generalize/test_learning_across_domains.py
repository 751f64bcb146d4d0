"""Mixup, meta-learning, small logits and quantiles over sources, against loops of their own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from labelled_domains import (
    CLASSES,
    HEADS,
    KEY,
    MODEL,
    SGD,
    B,
    D,
    assert_slopes,
    draw,
    evaluated,
    example_loss,
    nested,
    outputs_of,
    risk,
    slopes_of,
    start,
)
from scipy.optimize import brentq
from scipy.stats import norm
from several_tasks import begun, stepped
from shapes import SHAPE
from tiny import assert_same

from jaxtl.methods import generalize
from jaxtl.methods.generalize.domain_mixup import mix_domains
from jaxtl.methods.generalize.eqrm import kernel_quantile
from jaxtl.paths import flatten
from jaxtl.plan import State


def loss_and_slope(params, batch, domains):
    """(sum of the domains' losses, {path: its gradient}, sum of the weights), in float64."""
    loss, total, slope = (
        0.0,
        0.0,
        {path: np.zeros(leaf.shape) for path, leaf in flatten(params).items()},
    )
    for name in HEADS:
        for d in domains:
            for i in range(B):
                if (w := np.float64(batch.weights[name][i, d]) / B) > 0:
                    outputs = outputs_of(params, batch, name, i, d)
                    label = batch.labels[name][i, d]
                    loss, total = loss + w * example_loss(name, outputs, label), total + w
                    if name == "size":
                        error = 2 * (outputs - label)
                    else:
                        error = np.exp(outputs) / np.exp(outputs).sum() - np.eye(CLASSES)[label]
                    slope[f"heads/{name}/kernel"] += w * np.outer(batch.inputs[i, d], error)
                    slope[f"heads/{name}/bias"] += w * error
    return loss, slope, total


@pytest.mark.parametrize("test_domains", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_mldg_goes_through_its_inner_step(test_domains):
    batch, params, rate = draw(), start(), 0.3
    order = np.asarray(jax.random.permutation(jax.random.split(KEY, 3)[0], D))
    tested, stepping = order[:test_domains], order[test_domains:]

    def moved(params):
        flat = {path: np.float64(leaf) for path, leaf in flatten(params).items()}
        loss, slope, total = loss_and_slope(params, batch, stepping)
        slope = {path: leaf * len(HEADS) / total for path, leaf in slope.items()}
        after = {path: leaf - rate * slope[path] for path, leaf in flat.items()}
        return loss * len(HEADS) / total, nested(after), slope

    def objective(params):
        loss, after, _ = moved(params)
        test_loss, _, total = loss_and_slope(after, batch, tested)
        return loss + 2 * test_loss * len(HEADS) / total

    arguments = {"inner_rate": rate, "weight": 2.0, "test_domains": test_domains}
    loss, _, gradient = evaluated(generalize.mldg(SGD, **arguments), params, batch)
    np.testing.assert_allclose(loss, objective(params), rtol=1e-5)
    assert_slopes(gradient, slopes_of(objective, params), rtol=1e-3, atol=1e-4)

    loss, _, gradient = evaluated(generalize.mldg_first_order(SGD, **arguments), params, batch)
    np.testing.assert_allclose(loss, objective(params), rtol=1e-5)
    _, after, first = moved(params)
    _, second, total = loss_and_slope(after, batch, tested)
    expected = {p: first[p] + 2 * second[p] * len(HEADS) / total for p in first}
    assert_slopes(gradient, expected)


def test_mldg_needs_a_domain_for_its_step():
    method = generalize.mldg(SGD, inner_rate=0.1, test_domains=3)
    with pytest.raises(ValueError, match="test_domains=3 of 3 domains leaves none"):
        method.updates[0].loss(MODEL, start(), State({}), draw(), KEY, 0)


def test_domains_are_mixed_with_their_neighbours():
    batch, params = draw(), start()
    key, _ = jax.random.split(KEY)
    share_key, order_key = jax.random.split(key)
    shares = np.asarray(jax.random.beta(share_key, 0.7, 0.7, (1, D)))[0]
    circle = [int(d) for d in jax.random.permutation(order_key, D)]
    loss, _, _ = evaluated(generalize.domain_mixup(SGD, alpha=0.7), params, batch)
    expected = 0.0
    for place, d in enumerate(circle):
        e, share = circle[(place + 1) % D], np.float64(shares[d])
        mixed = batch.inputs.copy()
        mixed[:, d] = share * batch.inputs[:, d] + (1 - share) * batch.inputs[:, e]
        for name in HEADS:
            for i in range(B):
                outputs = outputs_of(params, batch.replace(inputs=mixed), name, i, d)
                for part, domain in ((share, d), (1 - share, e)):
                    if (w := np.float64(batch.weights[name][i, domain])) > 0:
                        label = batch.labels[name][i, domain]
                        expected += part * w * example_loss(name, outputs, label) / B
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    tokens = batch.replace(inputs=np.zeros((B, D, 4), np.int32))
    with pytest.raises(ValueError, match="floats, got int32"):
        mix_domains(KEY, tokens, 0.2)


def test_spectral_decoupling():
    batch, params = draw(), start()

    def expected(params):
        total = loss_and_slope(params, batch, range(D))[0]
        for d in range(D):
            for i in range(B):
                squares = (outputs_of(params, batch, "kind", i, d) ** 2).mean()
                total += 0.4 * np.float64(batch.weights["kind"][i, d]) * squares / B
        return total

    loss, _, gradient = evaluated(generalize.spectral_decoupling(SGD, weight=0.4), params, batch)
    np.testing.assert_allclose(loss, expected(params), rtol=1e-5)
    assert_slopes(gradient, slopes_of(expected, params))
    method = generalize.spectral_decoupling(SGD, weight=0.4)
    with pytest.raises(ValueError, match="no head of the stage has classes; its heads are size"):
        method.updates[0].loss(MODEL, params, State({}), draw(heads=("size",)), KEY, 0)


def quantile(values, shares, probability):
    """By a root finder, in float64."""
    count = len(values)
    mean = (shares * values).sum()
    variance = (shares * (values - mean) ** 2).sum() * count / (count - 1)
    width = 1.06 * np.sqrt(variance) * count**-0.2

    def reached(point):
        return (shares * norm.cdf((point - values) / width)).sum() - probability

    return brentq(reached, values.min() - 9 * width, values.max() + 9 * width, xtol=1e-13)


@pytest.mark.parametrize(
    "probability",
    [pytest.param(p, marks=pytest.mark.slow if p != 0.75 else ()) for p in (0.1, 0.75, 0.99)],
)
def test_a_quantile_of_risks_and_its_gradient(probability):
    values, weights = np.array([0.3, 1.1, 0.4, 0.9]), np.array([1.0, 2.0, 0.5, 1.0])
    shares = weights / weights.sum()
    run = jax.jit(jax.value_and_grad(functools.partial(kernel_quantile, probability=probability)))
    value, slope = run(jnp.append(jnp.float32(values), 0.0), jnp.append(jnp.float32(weights), 0.0))
    np.testing.assert_allclose(value, quantile(values, shares, probability), rtol=1e-5)
    for i in range(4):
        ends = [quantile(values + s * 1e-5 * np.eye(4)[i], shares, probability) for s in (1, -1)]
        np.testing.assert_allclose(slope[i], (ends[0] - ends[1]) / 2e-5, rtol=1e-3, atol=1e-4)
    assert slope[4] == 0
    for equal in (jnp.zeros(3), jnp.full(3, 2.5)):
        value, slope = run(equal, jnp.ones(3))
        np.testing.assert_allclose(value, equal[0], atol=1e-5)
        np.testing.assert_allclose(slope, 1 / 3, rtol=1e-3)
    value, slope = run(jnp.zeros(3), jnp.zeros(3))
    assert value == 0 and not slope.any()


def test_eqrm_burns_in_and_then_looks_at_the_tail():
    batch, params = draw(), start()
    method = generalize.eqrm(SGD, burn_in=5)
    expected = 0.0
    for name in HEADS:
        risks = np.array([risk(params, batch, name, d) for d in range(D)])
        values, weights = risks[risks[:, 1] > 0].T
        expected += weights.sum() * quantile(values, weights / weights.sum(), 0.75)
    loss, _, gradient = evaluated(method, params, batch, step=5)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    early, _, slopes = evaluated(method, params, batch, step=4)
    np.testing.assert_allclose(early, loss_and_slope(params, batch, range(D))[0], rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, slopes)))


BUILDS = {
    "caus_irl_mmd": lambda tx: generalize.caus_irl_mmd(tx),
    "coral": lambda tx: generalize.coral(tx),
    "dann": lambda tx: generalize.dann(tx, reversal=1.0),
    "domain_mixup": lambda tx: generalize.domain_mixup(tx),
    "eqrm": lambda tx: generalize.eqrm(tx, burn_in=0),
    "ib_erm": lambda tx: generalize.ib_erm(tx, weight=1.0),
    "ib_irm": lambda tx: generalize.ib_irm(tx, weight=1.0, irm_weight=1.0),
    "mldg": lambda tx: generalize.mldg(tx, inner_rate=0.1),
    "mmd": lambda tx: generalize.mmd(tx),
}
SLOW = {"caus_irl_mmd", "domain_mixup", "ib_irm", "mmd"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in BUILDS]
)
def test_no_examples_and_one_domain(name):
    method, batch = BUILDS[name](SGD), draw()
    params = start()
    if method.modules:
        output = {"features": jnp.zeros((1, 4)), "logits": {}}
        shape = SHAPE._replace(roles=batch.roles)
        params = params | {n: m.init(KEY, output, shape) for n, m in method.modules.items()}
    nothing = batch.replace(
        weights={n: 0 * w for n, w in batch.weights.items()}, present=0 * batch.present
    )
    loss, _, gradient = evaluated(method, params, nothing)
    assert loss == 0 and not any(leaf.any() for leaf in jax.tree.leaves(gradient))
    first = jax.tree.map(lambda leaf: leaf[:, :1], batch).replace(roles=("source",))
    with pytest.raises(ValueError, match="two sources or more"):
        method.updates[0].loss(MODEL, params, State({}), first, KEY, 0)


@pytest.mark.parametrize(
    "name", [pytest.param("dann", marks=pytest.mark.slow), "spectral_decoupling"]
)
def test_parts_of_a_batch_add_up(name):
    """With two heads, one of values."""
    builds = BUILDS | {
        "spectral_decoupling": lambda tx: generalize.spectral_decoupling(tx, weight=1.0)
    }
    setup, state, batch = begun(builds[name](SGD), domains=3)
    whole, _ = stepped(setup, state, batch)
    parts, _ = stepped(setup, state, batch, 4)
    assert_same(whole.params, parts.params, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generalize.irm(SGD, weight=1.0, l2=-1.0), "l2"),
        (lambda: generalize.group_dro(SGD, rate=-1.0), "rate"),
        (lambda: generalize.eqrm(SGD, burn_in=0, probability=1.0), "probability"),
        (lambda: generalize.domain_mixup(SGD, alpha=0.0), "alpha"),
        (lambda: generalize.mldg(SGD, inner_rate=0.1, test_domains=0), "test_domains"),
        (lambda: generalize.restarted(optax.adam(1e-3), -1), "at"),
    ],
)
def test_arguments_out_of_range(call, message):
    with pytest.raises(ValueError, match=message):
        call()
