"""Mixup, meta-learning, alignment and bottlenecks over sources, against loops of their own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import two_domains
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
from two_domains import Forward, cross_entropy

from jaxtl.losses import mmd
from jaxtl.methods import adapt, generalize
from jaxtl.methods.generalize.cdann import balanced
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


def three(seed=0):
    batch = two_domains.draw(3, labelled=(0, 1, 2), seed=seed)
    present = np.random.default_rng(5).uniform(0.5, 2, batch.present.shape).astype("f")
    present[2, 1] = 0
    return batch.replace(present=present)


def deep(method, batch):
    shape = SHAPE._replace(roles=batch.roles, classes={"task": two_domains.CLASSES})
    params = two_domains.initial(method, shape)
    return params, *two_domains.evaluated(method, params, batch)


def test_pairs_of_domains():
    batch = three()
    params, loss, metrics, _ = deep(generalize.coral(SGD, weight=3.0), batch)
    numbers = two_domains.computed(params, batch)
    features, present = np.float64(numbers.all_features), np.float64(batch.present)
    covariances = []
    for d in range(3):
        rows, weights = features[:, d], present[:, d]
        gaps = rows - np.average(rows, axis=0, weights=weights)
        covariances.append((weights[:, None] * gaps).T @ gaps / (weights.sum() - 1))
    pairs = [(0, 1), (0, 2), (1, 2)]
    distance = np.mean([((covariances[i] - covariances[j]) ** 2).sum() for i, j in pairs])
    distance /= 4 * features.shape[-1] ** 2
    np.testing.assert_allclose(metrics["coral"], distance, rtol=1e-4)
    np.testing.assert_allclose(loss, numbers.task + 3 * distance, rtol=1e-5)

    widths = (0.5, 2.0)
    _, loss, metrics, _ = deep(generalize.mmd(SGD, weight=3.0, bandwidths=widths), batch)
    sides = [(numbers.all_features[:, d], batch.present[:, d]) for d in range(3)]
    values = [
        mmd(sides[i][0], sides[j][0], sides[i][1], sides[j][1], bandwidths=widths) for i, j in pairs
    ]
    np.testing.assert_allclose(metrics["mmd"], np.mean(values), rtol=1e-4)
    np.testing.assert_allclose(loss, numbers.task + 3 * np.mean(values), rtol=1e-5)


@pytest.mark.slow
def test_two_sources_are_aligned_like_a_source_and_a_target():
    batch = two_domains.draw(2, labelled=(0, 1))
    sides = batch.replace(roles=("source", "target"))
    for here, there in (
        (generalize.coral(SGD), adapt.deep_coral_features(SGD)),
        (generalize.mmd(SGD), adapt.dan(SGD)),
    ):
        params = two_domains.start()
        loss, _, gradient = two_domains.evaluated(here, params, batch)
        expected, _, slopes = two_domains.evaluated(there, params, sides)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        two_domains.assert_close(gradient, slopes)


@pytest.mark.parametrize(
    "build", [pytest.param(generalize.dann, marks=pytest.mark.slow), generalize.cdann]
)
def test_the_adversary_of_sources(build):
    batch = three()
    method = build(SGD, reversal=2.0, weight=0.5)
    params, loss, metrics, gradient = deep(method, batch)
    labels, weights = batch.labels["task"], np.float64(batch.present)
    layers = sorted(params["discriminator"])  # hidden ones first
    layers = [name for name in layers if name != "output"] + ["output"]
    if build is generalize.cdann:
        scale = np.zeros((B, 3))
        cells = {(d, c) for d in range(3) for c in labels[:, d][weights[:, d] > 0]}
        for d, c in cells:
            rows = (labels[:, d] == c) * weights[:, d]
            scale[:, d] += rows / rows.sum() / len(cells)
    else:
        scale = weights / weights.size

    def confusion(params):
        features = Forward(params, batch).all_features
        if build is generalize.cdann:
            one_hot = jax.nn.one_hot(labels, two_domains.CLASSES)
            features = (features[..., :, None] * one_hot[..., None, :]).reshape(B, 3, -1)
        logits = two_domains.dense(
            params["discriminator"], features.reshape(B * 3, -1), tuple(layers)
        )
        log_p = jax.nn.log_softmax(logits).reshape(B, 3, 3)
        return -jnp.sum(scale * jnp.diagonal(log_p, axis1=1, axis2=2))

    value, slopes = two_domains.gradient_of(confusion, params)
    task, task_slopes = two_domains.gradient_of(
        lambda p: cross_entropy(Forward(p, batch).all_logits, batch), params
    )
    np.testing.assert_allclose(metrics["domain_loss"], value, rtol=1e-4)
    np.testing.assert_allclose(loss, task + 0.5 * value, rtol=1e-5)
    for path, leaf in flatten(gradient).items():
        factor = 0.5 if path.startswith("discriminator") else -1.0
        expected = flatten(task_slopes)[path] + factor * flatten(slopes)[path]
        np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=1e-5, err_msg=path)


def test_classes_of_domains_weigh_the_same_and_the_mean_is_1():
    weights = jnp.array([[1.0, 2.0], [3.0, 0.0], [1.0, 2.0]])
    classes = jax.nn.one_hot(jnp.array([[0, 1], [0, 1], [1, -1]]), 2)
    scale = balanced(classes, weights)
    expected = np.array([[0.25, 1], [0.75, 0], [1, 0]]) * 2  # three cells of six examples
    np.testing.assert_allclose(scale, expected, rtol=1e-6)
    assert not balanced(classes, 0 * weights).any()


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


def test_information_bottlenecks():
    batch = three()
    params, loss, metrics, _ = deep(generalize.ib_erm(SGD, weight=4.0), batch)
    numbers = two_domains.computed(params, batch)
    spread = 0.0
    for d in range(3):
        rows, weights = np.float64(numbers.all_features[:, d]), np.float64(batch.present[:, d])
        mean = np.average(rows, axis=0, weights=weights)
        spread += np.average((rows - mean) ** 2, axis=0, weights=weights).mean() / 3
    np.testing.assert_allclose(metrics["feature_variance"], spread, rtol=1e-4)
    np.testing.assert_allclose(loss, numbers.task + 4 * spread, rtol=1e-5)
    _, both, metrics, _ = deep(generalize.ib_irm(SGD, weight=4.0, irm_weight=3.0), batch)
    _, irm, more, _ = deep(generalize.irm(SGD, weight=3.0, rescale=False), batch)
    np.testing.assert_allclose(both, irm + 4 * spread, rtol=1e-5)
    np.testing.assert_allclose(metrics["penalty"], more["penalty"], rtol=1e-5)


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
    "coral": lambda tx: generalize.coral(tx),
    "dann": lambda tx: generalize.dann(tx, reversal=1.0),
    "domain_mixup": lambda tx: generalize.domain_mixup(tx),
    "eqrm": lambda tx: generalize.eqrm(tx, burn_in=0),
    "ib_erm": lambda tx: generalize.ib_erm(tx, weight=1.0),
    "ib_irm": lambda tx: generalize.ib_irm(tx, weight=1.0, irm_weight=1.0),
    "mldg": lambda tx: generalize.mldg(tx, inner_rate=0.1),
    "mmd": lambda tx: generalize.mmd(tx),
}
SLOW = {"domain_mixup", "ib_irm", "mmd"}


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
