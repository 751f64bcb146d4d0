"""Methods that add one term: the whole objective and its gradient against a network by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_domains import (
    KEY,
    MODEL,
    SGD,
    B,
    Forward,
    assert_close,
    computed,
    draw,
    evaluated,
    gradient_of,
    initial,
)

from jaxtl import losses
from jaxtl.methods import adapt
from jaxtl.plan import State


def ramp(step):
    return 0.1 * step


def softmax(logits):
    return jax.nn.softmax(logits)


def one_hot(labels):
    return (labels[:, None] == np.arange(3)[None]).astype(np.float32)


def transported(f):
    """The cost of a plan that is a constant, written out."""
    log_p = jax.nn.log_softmax(f.zt)
    gaps = jnp.sum((f.fs[:, None] - f.ft[None]) ** 2, -1)
    cost = 2.0 * gaps - 3.0 * jnp.stack([log_p[:, y] for y in f.labels])
    fixed = jax.lax.stop_gradient(cost)
    plan = losses.sinkhorn(fixed / fixed.mean(), regularization=0.5, num_steps=20)
    return jnp.sum(jax.lax.stop_gradient(plan) * cost)


def grown(f):
    """(|f| - (|f| then + 1.5))^2, source and target."""
    return sum(
        jnp.mean((length - jax.lax.stop_gradient(length) - 1.5) ** 2)
        for length in (jnp.sqrt(jnp.sum(x**2, -1)) for x in (f.fs, f.ft))
    )


WIDE = np.array([0.5, 2.0], np.float32)
SOFTER = np.array([2 * 0.92**2], np.float32)
TERMS = {
    "mmd": (
        lambda: adapt.dan(SGD, weight=ramp, bandwidths=WIDE),
        lambda f: 0.7 * losses.mmd(f.fs, f.ft, bandwidths=WIDE),
    ),
    "joint_mmd": (
        lambda: adapt.jan(SGD, weight=2.0),
        lambda f: 2 * losses.joint_mmd(
            (f.fs, softmax(f.zs)),
            (f.ft, softmax(f.zt)),
            bandwidths=(losses.mean_bandwidths(), SOFTER),
        ),
    ),
    "local_mmd": (
        lambda: adapt.dsan(SGD, weight=ramp),
        lambda f: 0.7 * losses.local_mmd(
            f.fs, f.ft, one_hot(f.labels), jax.lax.stop_gradient(softmax(f.zt))
        ),
    ),
    "coral": (
        lambda: adapt.deep_coral(SGD, weight=3.0),
        lambda f: 3 * jnp.sum((jnp.cov(f.zs.T) - jnp.cov(f.zt.T)) ** 2) / 36,
    ),
    "moment_discrepancy": (
        lambda: adapt.cmd(SGD, weight=0.5, order=3),
        lambda f: 0.5 * losses.central_moment_discrepancy(
            1 / (1 + jnp.exp(-f.fs)), 1 / (1 + jnp.exp(-f.ft)), order=3
        ),
    ),
    "class_confusion": (
        lambda: adapt.mcc(SGD, weight=ramp),
        lambda f: 0.7 * losses.class_confusion(f.zt, temperature=2.5),
    ),
    "nuclear_norm_loss": (
        lambda: adapt.bnm(SGD, weight=2.0),
        lambda f: -2 * jnp.linalg.svd(softmax(f.zt), compute_uv=False).sum() / B,
    ),
    "entropy": (
        lambda: adapt.entropy_minimization(SGD, weight=ramp),
        lambda f: -0.7 * jnp.sum(softmax(f.zt) * jax.nn.log_softmax(f.zt)) / B,
    ),
    "information_loss": (
        lambda: adapt.information_maximization(SGD, weight=2.0),
        lambda f: 2 * (
            jnp.sum(softmax(f.zt).mean(0) * jnp.log(softmax(f.zt).mean(0)))
            - jnp.sum(softmax(f.zt) * jax.nn.log_softmax(f.zt)) / B
        ),
    ),
    "joint_cost": (
        lambda: adapt.deep_jdot(
            SGD, feature_weight=2.0, label_weight=3.0, regularization=0.5, num_steps=20
        ),
        transported,
    ),
    "target_norm": (lambda: adapt.afn(SGD, weight=0.2, increment=1.5), lambda f: 0.2 * grown(f)),
}  # fmt: skip


@pytest.mark.parametrize("name", TERMS)
def test_objective_and_gradient_by_hand(name):
    method, term = TERMS[name][0](), TERMS[name][1]
    batch, params = draw(), initial(method)
    loss, metrics, gradient = evaluated(method, params, batch)

    def expected(params):
        forward = Forward(params, batch)
        return forward.task + term(forward)

    value, by_hand = gradient_of(expected, params)
    np.testing.assert_allclose(loss, value, rtol=1e-4)
    assert_close(gradient, by_hand)
    task, plain = gradient_of(lambda params: Forward(params, batch).task, params)
    np.testing.assert_allclose(metrics["task_loss"], task, rtol=1e-5)
    assert np.isfinite(metrics[name])
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), gradient, plain)
    assert max(jax.tree.leaves(moved)) > 1e-3  # the term is felt
    assert not method.updates[0].per_example or name in ("entropy", "target_norm")


def test_coral_of_the_features():
    method = adapt.deep_coral_features(SGD, weight=2.0)
    batch, params = draw(), initial(method)
    forward = computed(params, batch)
    gap = np.cov(forward.fs, rowvar=False) - np.cov(forward.ft, rowvar=False)
    loss, metrics, _ = evaluated(method, params, batch)
    np.testing.assert_allclose(metrics["coral"], np.sum(gap**2) / 100, rtol=1e-4)
    np.testing.assert_allclose(loss, forward.task + 2 * metrics["coral"], rtol=1e-5)


ROLES = ("source", "source", "target", "target")


def test_several_sources_are_pooled_and_so_are_targets():
    method = adapt.dan(SGD, bandwidths=WIDE)
    batch, params = draw(4, (0, 1, 2), roles=ROLES), initial(method)
    forward = computed(params, batch)
    assert len(forward.fs) == len(forward.ft) == 2 * B
    loss, metrics, _ = evaluated(method, params, batch)
    expected = losses.mmd(forward.fs, forward.ft, bandwidths=WIDE)
    np.testing.assert_allclose(metrics["mmd"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, forward.task + expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["local_mmd", "joint_cost"])
def test_source_examples_without_a_label_belong_to_no_class(name):
    """A hidden source label changes nothing but its example's own part."""
    method = TERMS[name][0]()
    batch, params = draw(), initial(method)
    batch.labels["task"][0, 0], batch.weights["task"][0, 0] = -1, 0
    first = evaluated(method, params, batch)[1][name]
    batch.inputs[0, 0] = 1e3
    np.testing.assert_allclose(evaluated(method, params, batch)[1][name], first, rtol=1e-3)


def test_a_side_must_be_left():
    method = adapt.mcc(SGD)
    with pytest.raises(ValueError, match="2 of 2 domains are sources"):
        method.updates[0].loss(MODEL, initial(method), State({}), draw(labelled=(0, 1)), KEY, 0)
