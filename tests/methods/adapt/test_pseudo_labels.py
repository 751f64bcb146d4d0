"""Self-training, FixMatch and mean teacher against their formulas in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import SHAPE
from unlabelled_streams import (
    KEY,
    MODEL,
    SGD,
    assert_gradient,
    cross_entropy,
    draw,
    forward,
    normed,
    softmax,
    start,
    task,
    value_and_gradient,
)

from jaxtl.methods import adapt
from jaxtl.methods.adapt.self_training import confident_cross_entropy
from jaxtl.paths import flatten
from jaxtl.plan import State


def pseudo(logits, believed, threshold):
    p = softmax(believed)
    used = p.max(-1) >= threshold
    return (used * cross_entropy(logits, believed.argmax(-1))).mean(), used.mean()


def test_confident_cross_entropy_of_a_hand_made_case():
    believed = jnp.log(jnp.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]))
    logits = jnp.log(jnp.array([[0.5, 0.5], [0.01, 0.99], [0.75, 0.25]]))
    loss, share = confident_cross_entropy(logits, believed, 0.75, jnp.ones(3))
    np.testing.assert_allclose(loss, (np.log(2) + np.log(4)) / 3, rtol=1e-6)
    np.testing.assert_allclose(share, 2 / 3, rtol=1e-6)


def test_self_training_learns_the_labels_of_its_copy_and_renews_it():
    (params, _), (old, _), batch = start(), start(seed=5), draw()
    method = adapt.self_training(SGD, threshold=0.5, weight=0.7, every=3)
    kept = State({}, method.state(MODEL, old, {}, SHAPE))

    def expected(now, copy):
        target = (forward(p, batch.inputs)[1][:, 1] for p in (now, copy))
        loss, share = pseudo(*target, 0.5)
        return task(now, batch) + 0.7 * loss, share

    value, state, metrics, gradient = value_and_gradient(method, params, kept, batch, step=1)
    np.testing.assert_allclose(value, expected(params, old)[0], rtol=1e-5)
    np.testing.assert_allclose(metrics["pseudo_share"], expected(params, old)[1], rtol=1e-6)
    assert 0 < metrics["pseudo_share"] < 1
    assert_gradient(gradient, lambda now: expected(now, old)[0], params)
    for path, leaf in flatten(state.method["params"]).items():
        np.testing.assert_array_equal(leaf, flatten(old)[path], err_msg=path)

    value, state, _, _ = value_and_gradient(method, params, kept, batch, step=3)
    np.testing.assert_allclose(value, expected(params, params)[0], rtol=1e-5)
    for path, leaf in flatten(state.method["params"]).items():
        np.testing.assert_array_equal(leaf, flatten(params)[path], err_msg=path)


def test_self_training_copies_batch_statistics_too():
    model, batch = normed(), draw()
    params, state = start(model)
    method = adapt.self_training(SGD, every=2)
    kept = method.state(model, params, state.statistics, SHAPE)
    moved = State(jax.tree.map(lambda x: x + 1.0, state.statistics), kept)
    _, new, _, _ = value_and_gradient(method, params, moved, batch, 1,
                                      model)  # fmt: skip
    assert np.all(flatten(new.method["statistics"])["backbone/body/norm/mean"] == 0)
    _, new, _, _ = value_and_gradient(method, params, moved, batch, 2,
                                      model)  # fmt: skip
    assert np.all(flatten(new.method["statistics"])["backbone/body/norm/mean"] == 1)


def test_self_training_needs_a_positive_interval():
    with pytest.raises(ValueError, match="at least 1"):
        adapt.self_training(SGD, every=0)


def test_fix_match_labels_strong_views_by_weak_ones():
    (params, _), batch = start(), draw()

    def strong(rng, inputs):
        return -2 * inputs + 0.3

    method = adapt.fix_match(SGD, strong=strong, threshold=0.5, weight=0.7)
    weak = forward(params, batch.inputs)[1][:, 1]

    def expected(now):
        view = forward(now, strong(None, batch.inputs))[1][:, 1]
        loss, share = pseudo(view, weak, 0.5)
        return task(now, batch) + 0.7 * loss, share

    value, _, metrics, gradient = value_and_gradient(method, params, State({}), batch)
    np.testing.assert_allclose(value, expected(params)[0], rtol=1e-5)
    np.testing.assert_allclose(metrics["pseudo_share"], expected(params)[1], rtol=1e-6)
    assert 0 < metrics["pseudo_share"] < 1
    assert_gradient(gradient, lambda now: expected(now)[0], params)


def test_fix_match_normalises_all_views_together():
    model, batch = normed(), draw(domains=3, unknown=1)
    params, state = start(model)
    method = adapt.fix_match(SGD, strong=lambda rng, x: 3 * x)
    new = value_and_gradient(method, params, state, batch, model=model)[1]
    dense = params["backbone"]["body"]["dense"]
    seen = np.concatenate([batch.inputs.reshape(-1, 4), 3 * batch.inputs[:, 2]])
    mean = (seen @ dense["kernel"] + dense["bias"]).mean(0)
    np.testing.assert_allclose(
        new.statistics["backbone"]["body"]["norm"]["mean"], 0.2 * mean, atol=1e-6
    )


def agreement(student, teacher, confidence):
    sure = teacher.max(-1) > confidence
    gap = (sure * ((student - teacher) ** 2).mean(-1)).mean()
    mean, share = student.mean(0), 1 / student.shape[-1]
    balance = -(share * np.log(mean) + (1 - share) * np.log(1 - mean)).sum() * sure.mean()
    return gap, balance, sure.mean()


def test_mean_teacher_agrees_with_the_average_on_other_views():
    (params, _), (old, _), batch = start(), start(seed=5), draw()

    def augment(rng, inputs):
        return inputs + jax.random.normal(rng, inputs.shape)

    method = adapt.mean_teacher(
        SGD, augment=augment, decay=0.75, confidence=0.45, weight=2.0, class_balance=0.3
    )
    average = jax.tree.map(lambda one, other: 0.75 * one + 0.25 * other, old, params)
    views = [augment(key, batch.inputs[:, 1]) for key in jax.random.split(KEY, 5)[:2]]
    teacher = softmax(forward(average, views[1])[1])

    def expected(now):
        student = softmax(forward(now, views[0])[1])
        gap, balance, share = agreement(student, teacher, 0.45)
        return task(now, batch) + 2.0 * gap + 0.3 * balance, share

    state = State({}, method.state(MODEL, old, {}, SHAPE))
    value, new, metrics, gradient = value_and_gradient(method, params, state, batch)
    np.testing.assert_allclose(value, expected(params)[0], rtol=1e-5)
    np.testing.assert_allclose(metrics["confident_share"], expected(params)[1], rtol=1e-6)
    assert 0 < metrics["confident_share"] < 1
    assert_gradient(gradient, lambda now: expected(now)[0], params)
    output = method.predict(MODEL, params, new, batch.inputs[:, 0])
    np.testing.assert_allclose(
        output["logits"]["c"], forward(average, batch.inputs[:, 0])[1], atol=1e-5
    )


def test_the_teacher_after_three_steps():
    """old d^3 + (1 - d) (d^2 one + d two + three)."""
    method, batch = adapt.mean_teacher(SGD, decay=0.9), draw()
    students = [start(seed=seed)[0] for seed in range(4)]
    state = State({}, method.state(MODEL, students[0], {}, SHAPE))
    loss = jax.jit(functools.partial(method.updates[0].loss, MODEL))
    for step, params in enumerate(students[1:]):
        state = loss(params, state, batch, KEY, step)[1][0]
    shares = (0.9**3, 0.1 * 0.81, 0.1 * 0.9, 0.1)
    for path, leaf in flatten(state.method["params"]).items():
        expected = sum(w * flatten(p)[path] for w, p in zip(shares, students, strict=True))
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, err_msg=path)


def test_domains_are_normalised_apart_and_the_teacher_sees_targets_only():
    model, batch = normed(), draw()
    params, state = start(model)
    method = adapt.mean_teacher(SGD)
    state = state._replace(method=method.state(model, params, state.statistics, SHAPE))
    new = value_and_gradient(method, params, state, batch, model=model)[1]
    dense = params["backbone"]["body"]["dense"]
    source, target = ((batch.inputs[:, d] @ dense["kernel"] + dense["bias"]).mean(0)
                      for d in range(2))  # fmt: skip
    means = [
        one["backbone"]["body"]["norm"]["mean"]
        for one in (new.statistics, new.method["statistics"])
    ]
    np.testing.assert_allclose(means[0], 0.8 * 0.2 * source + 0.2 * target, atol=1e-6)
    np.testing.assert_allclose(means[1], 0.2 * target, atol=1e-6)
