"""Methods that compare gradients of domains, against loops and formulas of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from two_domains import (
    CLASSES,
    KEY,
    MODEL,
    B,
    Forward,
    assert_close,
    computed,
    cross_entropy,
    draw,
    evaluated,
    gradient_of,
    start,
)

from jaxtl.methods import generalize
from jaxtl.paths import flatten
from jaxtl.plan import StageShape, State

SGD = optax.sgd(0.1)
THREE = StageShape(("source",) * 3, (9, 9, 9), {"task": CLASSES}, B)


def three(**changes):
    return draw(3, labelled=(0, 1, 2)).replace(**changes)


def state_after(method, params, batch, state):
    def run(params, state):
        return method.updates[0].loss(MODEL, params, state, batch, KEY, 0)[1][0]

    return jax.jit(run)(params, state)


def combined(rule, jacobian):
    found, _, metrics = jax.jit(rule.update)(jacobian, jnp.ones(3), (), KEY)
    return found, metrics


JACOBIAN = {
    "a": jnp.array([[1.0, 1.0, -1.0, 0.0], [2.0, -1.0, -3.0, 4.0], [3.0, 5.0, -2.0, 1.0]]),
    "b": jnp.array([[[1.0]], [[-1.0]], [[2.0]]]),
}


def test_and_mask_by_hand():
    found, metrics = combined(generalize.and_mask(), JACOBIAN)
    # Components 0 and 2 agree, half of four: twice the sums 6 and -6.
    np.testing.assert_allclose(found["a"], [12, 0, -12, 0], rtol=1e-6)
    np.testing.assert_array_equal(found["b"], [[0]])
    assert metrics["agreement"] == pytest.approx(2 / 5)
    found, _ = combined(generalize.and_mask(2 / 3), JACOBIAN)  # 0 + 1 + 1 of three agrees too
    np.testing.assert_allclose(found["a"], np.array([6, 0, -6, 5]) * 4 / 3, rtol=1e-6)
    found, _ = combined(generalize.and_mask(0.0), JACOBIAN)
    for path, rows in JACOBIAN.items():
        np.testing.assert_allclose(found[path], rows.sum(0), rtol=1e-6)


def test_sand_mask_in_numpy():
    tau, steepness = 0.25, 3.0
    found, metrics = combined(generalize.sand_mask(tau, steepness=steepness), JACOBIAN)
    masks = {}
    for path, rows in JACOBIAN.items():
        rows = np.float64(rows)
        gap = np.abs(np.sign(rows).mean(0)) - tau
        masks[path] = np.maximum(np.tanh(steepness / rows.var(0, ddof=1) * gap), 0)
        expected = masks[path] * rows.sum(0) / max(masks[path].mean(), 1e-12)
        np.testing.assert_allclose(found[path], expected, rtol=1e-5)
    total = sum(mask.sum() for mask in masks.values()) / 5
    assert metrics["agreement"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("rule", [generalize.and_mask(), generalize.sand_mask()])
def test_masks_of_equal_and_of_no_gradients(rule):
    equal = jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * 3), JACOBIAN)
    nonzero = {path: rows[0] != 0 for path, rows in equal.items()}
    found, _ = combined(rule, equal)
    for path, rows in equal.items():
        np.testing.assert_allclose(found[path], 3 * rows[0] / nonzero[path].mean(), rtol=1e-6)
    nothing, _ = combined(rule, jax.tree.map(jnp.zeros_like, equal))
    assert all(not leaf.any() for leaf in nothing.values())
    # A domain without labels: as if it were not there.
    padded = {path: jnp.concatenate([rows, 0 * rows[:1]]) for path, rows in JACOBIAN.items()}
    for path, leaf in combined(rule, JACOBIAN)[0].items():
        np.testing.assert_allclose(combined(rule, padded)[0][path], leaf, rtol=1e-5)


def test_a_threshold_that_nothing_passes_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        generalize.sand_mask(1.0)


def only(batch, d):
    weights = {"task": batch.weights["task"].at[:, np.arange(3) != d].set(0)}
    return batch.replace(weights=weights)


@pytest.mark.parametrize(
    "inner", [pytest.param(optax.sgd(0.3), marks=pytest.mark.slow), optax.adam(0.01)]
)
def test_fish_is_a_loop_of_inner_steps(inner):
    batch = jax.tree.map(jnp.asarray, three())
    method = generalize.fish(inner, meta_step=0.5)
    params, state = start(), State({}, method.state(MODEL, start(), {}, THREE))
    order = jax.random.permutation(jax.random.split(KEY)[0], jnp.arange(3))
    fast, opt_state, total = params, state.method, 0.0
    for d in np.asarray(order):
        loss, slope = gradient_of(
            lambda p, d=d: cross_entropy(Forward(p, only(batch, d)).all_logits, only(batch, d)),
            fast,
        )
        updates, opt_state = inner.update(slope, opt_state, fast)
        fast, total = optax.apply_updates(fast, updates), total + loss
    found, _, gradient = evaluated(method, params, batch, state=state)
    np.testing.assert_allclose(found, total, rtol=1e-5)
    (_, tx) = method.optimizers["all"]
    after = optax.apply_updates(params, tx.update(gradient, tx.init(params))[0])
    assert_close(after, jax.tree.map(lambda old, new: (old + new) / 2, params, fast))
    new_state = state_after(method, params, batch, state)
    for a, b in zip(jax.tree.leaves(new_state.method), jax.tree.leaves(opt_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)


def variances_in_numpy(params, batch):
    """[source, {leaf: variance}] of gradients example by example, by jax.vmap."""

    def loss(head, features, label):
        logits = features @ head["kernel"] + head["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    features, result = computed(params, batch).all_features, []
    each = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))
    for d in range(3):
        rows = each(
            params["heads"]["task"], features[:, d], np.maximum(batch.labels["task"][:, d], 0)
        )
        weights = np.float64(batch.weights["task"][:, d])
        moments = {}
        for name, leaf in rows.items():
            leaf = np.float64(leaf)
            mean = np.average(leaf, axis=0, weights=weights)
            moments[name] = np.average((leaf - mean) ** 2, axis=0, weights=weights)
        result.append(moments)
    return result


def with_a_hidden_label(batch):
    labels, weights = (np.array(x["task"]) for x in (batch.labels, batch.weights))
    labels[1, 2], weights[1, 2] = -1, 0
    return batch.replace(labels={"task": labels}, weights={"task": weights})


def test_fishr_is_the_variance_of_the_gradients_of_examples():
    batch, params = with_a_hidden_label(three()), start()
    method = generalize.fishr(SGD, warm_up=5, weight=30.0, decay=0.9)
    zero = State({}, method.state(MODEL, params, {}, THREE))
    before = jax.tree.map(lambda leaf: 0.01 + 0 * leaf, zero)
    latest = variances_in_numpy(params, batch)
    flat = np.stack(
        [np.concatenate([0.9 * 0.01 + v[n].ravel() for n in ("kernel", "bias")]) for v in latest]
    )
    expected = ((flat - flat.mean(0)) ** 2).mean()
    loss, metrics, _ = evaluated(method, params, batch, state=before)
    task = computed(params, batch).task
    np.testing.assert_allclose(metrics["variance_gap"], expected, rtol=1e-4)
    np.testing.assert_allclose(loss, task + 30 * expected, rtol=1e-5)
    early, _, _ = evaluated(method, params, batch, state=before, step=4)
    np.testing.assert_allclose(early, task, rtol=1e-6)
    state = state_after(method, params, batch, before)
    found = state.method["task"]
    for d, moments in enumerate(latest):
        for name, value in moments.items():
            np.testing.assert_allclose(found[name][d], 0.009 + value, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_fishr_has_the_slope_of_its_loss():
    batch, params = with_a_hidden_label(three()), start()
    method = generalize.fishr(SGD, warm_up=0, weight=200.0)
    state = State({}, method.state(MODEL, params, {}, THREE))
    _, _, gradient = evaluated(method, params, batch, state=state)
    rng = np.random.default_rng(5)
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape).astype("f"), params)
    values = [
        evaluated(
            method,
            jax.tree.map(lambda p, v, s=s: p + s * v, params, direction),
            batch,
            state=state,
        )[0]
        for s in (1e-2, -1e-2)
    ]
    along = sum(jnp.vdot(a, flatten(direction)[p]) for p, a in flatten(gradient).items())
    np.testing.assert_allclose((values[0] - values[1]) / 2e-2, along, rtol=2e-2)


def test_fishr_of_equal_domains_and_of_none():
    batch = three()
    same = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)[:, 0]] * 3, 1), batch)
    method = generalize.fishr(SGD, warm_up=0)
    state = State({}, method.state(MODEL, start(), {}, THREE))
    _, metrics, _ = evaluated(method, start(), same, state=state)
    assert metrics["variance_gap"] < 1e-12
    nothing = batch.replace(weights={"task": np.zeros((B, 3), np.float32)})
    loss, _, gradient = evaluated(method, start(), nothing, state=state)
    assert loss == 0 and all(not leaf.any() for leaf in flatten(gradient).values())


def test_rsc_mutes_what_speaks_for_the_class():
    batch, params = with_a_hidden_label(three()), start()
    method = generalize.rsc(SGD, features_dropped=0.4, examples_challenged=0.5)
    kernel, bias = (np.float64(params["heads"]["task"][n]) for n in ("kernel", "bias"))
    features = np.float64(computed(params, batch).all_features)
    labels, weights = np.maximum(batch.labels["task"], 0), np.float64(batch.weights["task"])

    def log_p(rows):
        logits = rows @ kernel + bias
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    def of_class(values):
        return np.take_along_axis(values, labels[..., None], -1)[..., 0]

    muted = features.copy()
    for i in range(B):
        for d in range(3):
            gradient = kernel[:, labels[i, d]]
            muted[i, d, gradient >= np.percentile(gradient, 60)] = 0
    fall = np.exp(of_class(log_p(features))) - np.exp(of_class(log_p(muted)))
    challenged = fall >= np.percentile(fall[weights > 0], 50)
    chosen = np.where(challenged[..., None], muted, features)
    expected = -(weights * of_class(log_p(chosen))).sum() / B
    loss, metrics, _ = evaluated(method, params, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert metrics["challenged"] == pytest.approx((challenged & (weights > 0)).mean())
    plain, _, _ = evaluated(
        generalize.rsc(SGD, features_dropped=1.0, examples_challenged=1.0), params, batch
    )
    constant = -(weights * of_class(log_p(0 * features))).sum() / B  # nothing is left
    np.testing.assert_allclose(plain, constant, rtol=1e-5)
    ordinary = -(weights * of_class(log_p(features))).sum() / B
    for nothing in ({"features_dropped": 0.0}, {"examples_challenged": 0.0}):
        untouched, _, _ = evaluated(generalize.rsc(SGD, **nothing), params, batch)
        np.testing.assert_allclose(untouched, ordinary, rtol=1e-5)


@pytest.mark.parametrize("name", ["fish", "fishr"])
def test_one_source_is_refused(name):
    method = {
        "fish": lambda: generalize.fish(optax.sgd(0.1)),
        "fishr": lambda: generalize.fishr(SGD, warm_up=0),
    }[name]()
    batch = draw(2, labelled=(0,))
    state = State(
        {}, {"task": jax.tree.map(lambda x: jnp.zeros((2, *x.shape)), start()["heads"]["task"])}
    )
    with pytest.raises(ValueError, match="two sources or more"):
        method.updates[0].loss(MODEL, start(), state, batch, KEY, 0)
