"""Methods that compare the risks of domains, against double loops over domains and examples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from labelled_domains import (
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
    outputs_of,
    risk,
    slopes_of,
    start,
)

from jaxtl.methods import generalize, multitask, transfer
from jaxtl.paths import flatten
from jaxtl.plan import State

STEP = 1e-4


def slope(params, batch, name, d, rows=range(B)):
    """d risk / d factor of the logits, at 1."""
    return (
        risk(params, batch, name, d, 1 + STEP, rows)[0]
        - risk(params, batch, name, d, 1 - STEP, rows)[0]
    ) / (2 * STEP)


def irm(params, batch, weight):
    total = 0.0
    for name in HEADS:
        for d in range(D):
            value, share = risk(params, batch, name, d)
            total += share * (value + weight * slope(params, batch, name, d) ** 2)
    return total


def irm_two_halves(params, batch, weight):
    total = 0.0
    for name in HEADS:
        for d in range(D):
            value, share = risk(params, batch, name, d)
            halves = (slope(params, batch, name, d, range(start, B, 2)) for start in (0, 1))
            total += share * (value + weight * np.prod(list(halves)))
    return total


def vrex(params, batch, weight):
    total = 0.0
    for name in HEADS:
        risks = [risk(params, batch, name, d) for d in range(D)]
        values, shares = (np.array(column) for column in zip(*risks, strict=True))
        mean = (values * shares).sum() / shares.sum()
        total += (shares * (values + weight * (values - mean) ** 2)).sum()
    return total


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (generalize.irm, irm),
        (generalize.irm_two_halves, irm_two_halves),
        (generalize.vrex, vrex),
    ],
)
def test_value_and_gradient_are_those_of_a_double_loop(build, expected):
    batch, params = draw(), start()
    loss, metrics, gradient = evaluated(build(SGD, weight=3.0, rescale=False), params, batch)
    np.testing.assert_allclose(loss, expected(params, batch, 3.0), rtol=1e-5)
    np.testing.assert_allclose(metrics["penalty"], (loss - metrics["task_loss"]) / 3, rtol=1e-4)
    assert_slopes(gradient, slopes_of(lambda p: expected(p, batch, 3.0), params))


@pytest.mark.parametrize(
    "build",
    [
        generalize.irm,
        pytest.param(generalize.irm_two_halves, marks=pytest.mark.slow),
        pytest.param(generalize.vrex, marks=pytest.mark.slow),
    ],
)
def test_the_weight_follows_its_schedule_and_the_loss_is_divided_with_its_l2(build):
    """The coloured MNIST of the paper of IRM."""
    batch, params = draw(), start()
    rise = optax.piecewise_constant_schedule(1.0, {190: 91_000.0})
    method = build(SGD, weight=rise, l2=1.1e-3)
    squares = sum(np.sum(np.float64(leaf) ** 2) for leaf in flatten(params).values())
    for step, factor in ((189, 1), (190, 91_000)):
        loss, metrics, _ = evaluated(method, params, batch, step=step)
        whole = metrics["task_loss"] + factor * metrics["penalty"] + 1.1e-3 * squares
        np.testing.assert_allclose(loss, whole / factor, rtol=1e-5)
        assert metrics["penalty_weight"] == factor
    task, _, slopes = evaluated(transfer.full(SGD), params, batch)
    loss, metrics, gradient = evaluated(build(SGD, weight=0.0), params, batch)
    np.testing.assert_allclose(loss, task, rtol=1e-6)
    assert_slopes(gradient, flatten(slopes), rtol=1e-5, atol=1e-6)
    assert not np.isclose(metrics["penalty"], 0)


def alike(batch, share=1.0):
    """Every domain is the first, the second with another weight."""
    same = jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)[:, 0]] * D, 1), batch)
    factors = np.array([[1.0, share, 1.0]], np.float32)
    return same.replace(weights={name: leaf * factors for name, leaf in same.weights.items()})


def test_vrex_of_equal_domains_is_ordinary_training():
    batch, params = alike(draw(), share=0.25), start()
    loss, metrics, gradient = evaluated(generalize.vrex(SGD, weight=50.0), params, batch)
    expected, _, slopes = evaluated(transfer.full(SGD), params, batch)
    assert metrics["penalty"] < 1e-10
    np.testing.assert_allclose(loss * 50, expected, rtol=1e-5)
    assert_slopes(jax.tree.map(lambda g: 50 * g, gradient), flatten(slopes), 1e-4, 1e-5)


def test_the_penalty_of_irm_is_zero_where_the_scale_is_best():
    """Least squares through the origin, of each domain: no factor is better than 1."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(B, D, 4)).astype("f")
    batch = draw(heads=("size",)).replace(inputs=inputs)
    params = start()
    head = jax.tree.map(np.asarray, params["heads"]["size"])
    outputs = inputs @ head["kernel"] + head["bias"]
    residuals = rng.normal(size=(B, D))
    weights = np.ones((B, D), np.float32)
    residuals -= outputs[..., 0] * (
        (residuals * outputs[..., 0]).sum(0) / (outputs[..., 0] ** 2).sum(0)
    )
    labels = (outputs[..., 0] + residuals).astype("f")
    batch = batch.replace(labels={"size": labels}, weights={"size": weights})
    _, metrics, _ = evaluated(generalize.irm(SGD, weight=1.0), params, batch)
    assert metrics["penalty"] < 1e-9 < metrics["task_loss"]


def test_the_product_of_two_halves_is_unbiased():
    """Over all ways to draw, it is the square of the slope that all examples have; 0 here."""
    rng, params = np.random.default_rng(0), start()
    sums = {"whole": 0.0, "halves": 0.0}
    builds = {"whole": generalize.irm, "halves": generalize.irm_two_halves}
    methods = {name: build(SGD, weight=1.0) for name, build in builds.items()}
    inputs = np.ones((200, B, D, 4), np.float32)
    head = jax.tree.map(np.asarray, params["heads"]["size"])
    outputs = np.ones(4) @ head["kernel"] + head["bias"]
    labels = (outputs + rng.choice([-1, 1], (200, B, D))).astype("f")  # the mean is right
    batch = draw(heads=("size",)).replace(weights={"size": np.ones((B, D), np.float32)})

    def penalty(method, x, y):
        part = batch.replace(inputs=x, labels={"size": y})
        return method.updates[0].loss(MODEL, params, State({}), part, KEY, 0)[1][1]["penalty"]

    for name, method in methods.items():
        each = jax.jit(jax.vmap(lambda x, y, method=method: penalty(method, x, y)))(inputs, labels)
        sums[name] = (each.mean(), each.std() / np.sqrt(200))
    assert abs(sums["halves"][0]) < 3 * sums["halves"][1]
    assert sums["whole"][0] > 10 * sums["whole"][1]


def group_losses(params, batch):
    """[domains], sums over heads of means of weighted losses over labels, / the mean weight."""
    all_weights = np.concatenate([np.ravel(batch.weights[name]) for name in HEADS])
    result, scale = np.zeros(D), all_weights[all_weights > 0].mean()
    for name in HEADS:
        for d in range(D):
            weights = np.float64(batch.weights[name][:, d])
            losses = [
                w
                * example_loss(
                    name, outputs_of(params, batch, name, i, d), batch.labels[name][i, d]
                )
                for i, w in enumerate(weights)
                if w > 0
            ]
            result[d] += sum(losses) / max(len(losses), 1) / scale
    return result


def test_group_dro_follows_its_recursion():
    batch, params = draw(), start()
    method = generalize.group_dro(SGD, rate=0.3)
    (update,) = method.updates
    loss_fn = jax.jit(lambda batch: update.loss(MODEL, params, State({}), batch, KEY, 0))
    losses, (_, metrics) = loss_fn(batch)
    expected = group_losses(params, batch)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert metrics["domain_1_loss"] == losses[1]
    state, q = update.weigh.init(params, jnp.zeros(D)), np.full(D, 1 / D)
    for factor in (1.0, 2.0, 0.5, 40.0):
        weights, state, logged = update.weigh.update(jnp.float32(factor * expected), state, KEY)
        q = q * np.exp(0.3 * factor * expected)
        q /= q.sum()
        np.testing.assert_allclose(weights, q, rtol=1e-4, atol=1e-12)
        np.testing.assert_allclose(logged["weight_2"], q[2], rtol=1e-4)
    lighter = batch.replace(weights={n: w / 8 for n, w in batch.weights.items()})
    losses, _ = loss_fn(lighter)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    half = batch.weights["kind"].copy()
    half[::2] = 0
    fewer = batch.replace(weights=batch.weights | {"kind": half})  # missing labels are no merit
    losses, _ = loss_fn(fewer)
    np.testing.assert_allclose(losses, group_losses(params, fewer), rtol=1e-5)


def test_weights_of_the_worst_stay_finite():
    rule = generalize.worst_domains(1.0)
    for losses in (jnp.zeros(3), jnp.ones(3), jnp.array([1e6, 1e6, 0.0]), jnp.ones(1)):
        state = rule.init({}, jnp.zeros_like(losses))
        for _ in range(3):
            weights, state, _ = rule.update(losses, state, KEY)
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
        if jnp.ptp(losses) == 0:
            np.testing.assert_allclose(weights, 1 / len(losses), rtol=1e-6)
    assert callable(multitask.joint(SGD, rule).updates[0].loss)


BUILDS = {
    "irm": lambda: generalize.irm(SGD, weight=2.0),
    "irm_two_halves": lambda: generalize.irm_two_halves(SGD, weight=2.0),
    "vrex": lambda: generalize.vrex(SGD, weight=2.0),
    "group_dro": lambda: generalize.group_dro(SGD),
}


@pytest.mark.parametrize("name", BUILDS)
def test_labels_of_no_one_and_one_domain(name):
    method, batch = BUILDS[name](), draw()
    nothing = batch.replace(weights={n: 0 * w for n, w in batch.weights.items()})

    def total(params):
        return jnp.sum(method.updates[0].loss(MODEL, params, State({}), nothing, KEY, 0)[0])

    loss, gradient = jax.jit(jax.value_and_grad(total))(start())
    assert loss == 0 and not any(leaf.any() for leaf in flatten(gradient).values())
    first = jax.tree.map(lambda leaf: leaf[:, :1], batch).replace(roles=("source",))
    for few, message in (
        (first, "two sources or more.*1 is one"),
        (batch.replace(roles=("source", "source", "target")), "a target has no risk"),
        (batch.replace(labels={}, weights={}), "no domain names a head"),
    ):
        with pytest.raises(ValueError, match=message):
            method.updates[0].loss(MODEL, start(), State({}), few, KEY, 0)


@pytest.mark.parametrize("inner", [optax.adam(0.1), optax.chain(optax.trace(0.9), optax.scale(-1))])
def test_an_optimizer_that_starts_anew(inner):
    params, gradients = {"x": jnp.ones(3)}, [{"x": jnp.arange(3.0) - i} for i in range(5)]
    tx = generalize.restarted(inner, 2)
    state, plain = tx.init(params), inner.init(params)
    for i, gradient in enumerate(gradients):
        plain = inner.init(params) if i == 2 else plain
        expected, plain = inner.update(gradient, plain, params)
        updates, state = tx.update(gradient, state, params)
        np.testing.assert_allclose(updates["x"], expected["x"], rtol=1e-6)
