"""What all alignment losses do with weights, with few examples and with equal ones."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl import losses

KEY = jax.random.key(0)
N_SOURCE, N_TARGET, WIDTH, CLASSES = 6, 5, 3, 3


class Case(NamedTuple):
    """A loss of rows [n, 6], of which some take the last 3 columns for something else.

    Attributes:
        loss: (source, target, source_weights, target_weights) -> [].
        equal: the value where all rows are 0.7.
        sides: 1 if only the source counts.
        repeats: a weight of 2 is a row that is there twice.
        scale: only the proportions of the weights count.
    """

    loss: object
    equal: float = 0.0
    sides: int = 2
    repeats: bool = True
    scale: bool = True


def parts(rows):
    return rows[:, :WIDTH], rows[:, WIDTH:]


def pair(loss, **options):
    return lambda s, t, a, b: loss(parts(s)[0], parts(t)[0], a, b, **options)


def alone(loss, **options):
    return lambda s, t, a, b: loss(parts(s)[0], weights=a, **options)


def joint(s, t, a, b):
    return losses.joint_mmd(parts(s), parts(t), a, b)


def local(s, t, a, b):
    (x, p), (y, q) = parts(s), parts(t)
    p = jax.nn.one_hot(p.argmax(1), CLASSES)
    return losses.local_mmd(x, y, p, jax.nn.softmax(q), a, b)


def contrastive(s, t, a, b):
    (x, p), (y, q) = parts(s), parts(t)
    labels = p.argmax(1), q.argmax(1)
    return losses.contrastive_domain_discrepancy(x, y, *labels, a, b, num_classes=CLASSES)


def penalty(s, t, a, b):
    return losses.gradient_penalty(
        lambda x: jnp.sin(x).sum(1), KEY, *parts(s)[:1], parts(t)[0], a, b
    )


def sliced(s, t, a, b):
    return losses.sliced_wasserstein(KEY, parts(s)[0], parts(t)[0], a, b, projections=7)


def disparity(s, t, a, b):
    return losses.margin_disparity(*parts(s), *parts(t), a, b)


def disagreement(s, t, a, b):
    return losses.classifier_discrepancy(*parts(s), a)


log = float(np.log(CLASSES))
CASES = {
    "mmd": Case(pair(losses.mmd)),
    "mmd fixed": Case(pair(losses.mmd, bandwidths=[1.0, 4.0])),
    "mmd unbiased": Case(pair(losses.mmd, unbiased=True), scale=False),
    "joint_mmd": Case(joint),
    "local_mmd": Case(local),
    "contrastive": Case(contrastive),
    "coral": Case(pair(losses.coral), scale=False),
    "central moments": Case(pair(losses.central_moment_discrepancy, low=-3.0, high=3.0)),
    "sliced": Case(sliced),
    "penalty": Case(penalty, (3**0.5 * np.cos(0.7) - 1) ** 2, repeats=False),
    "disparity": Case(disparity, 4 * log - np.log(2 / 3)),
    "disagreement": Case(disagreement, sides=1),
    "entropy": Case(alone(losses.entropy), log, sides=1),
    "information": Case(alone(losses.information_maximization), sides=1),
    "confusion": Case(alone(losses.class_confusion), 2 / 3, sides=1),
    "nuclear": Case(
        alone(losses.batch_nuclear_norm), -((1 / CLASSES / N_SOURCE) ** 0.5), sides=1, scale=False
    ),
    "largest": Case(
        alone(losses.largest_singular_values), 0.49 * N_SOURCE * WIDTH, sides=1, scale=False
    ),
    "norms": Case(alone(losses.adaptive_feature_norm, increment=0.5), 0.25, sides=1),
}
named = pytest.mark.parametrize("name", CASES)


@functools.cache
def compiled(name):
    return jax.jit(jax.value_and_grad(CASES[name].loss, (0, 1)))


def draw():
    rng = np.random.default_rng(3)
    source, target = rng.normal(size=(N_SOURCE, 6)), rng.normal(size=(N_TARGET, 6)) + 0.5
    return source.astype("f"), target.astype("f")


def weights(*values):
    return np.array(values, np.float32)


def assert_close(actual, expected, rtol=2e-4, atol=2e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected
    )


@named
def test_a_row_of_weight_0_is_not_there_whatever_it_holds(name):
    source, target = draw()
    kept = (np.arange(N_SOURCE) < 4, np.arange(N_TARGET) < 4)
    expected = compiled(name)(source[kept[0]], target[kept[1]], None, None)
    hidden = [
        np.where(k[:, None], x, bad)
        for x, k, bad in zip((source, target), kept, (np.nan, np.inf), strict=True)
    ]
    value, gradients = compiled(name)(*hidden, *(k.astype("f") for k in kept))
    if name == "penalty":  # other random places
        assert np.isfinite(value) and value > 0
    else:
        assert_close((value, tuple(g[:4] for g in gradients)), expected)
    assert not any(np.any(np.asarray(g)[4:]) for g in gradients)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.repeats])
def test_a_weight_of_2_is_a_row_that_is_there_twice(name):
    source, target = draw()
    source[5], target[4] = source[1], target[0]
    value, gradients = compiled(name)(source, target, np.ones(6, "f"), np.ones(5, "f"))
    once = compiled(name)(source, target, weights(1, 2, 1, 1, 1, 0), weights(2, 1, 1, 1, 0))
    gradients = [np.array(g) for g in gradients]
    for gradient, row, copy in zip(gradients, (1, 0), (5, 4), strict=True):
        gradient[row] += gradient[copy]
        gradient[copy] = 0
    assert_close(once, (value, tuple(gradients)))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.scale])
def test_only_the_proportions_of_weights_count(name):
    source, target = draw()
    a, b = weights(1, 2, 0.5, 1, 1, 0), weights(2, 0.3, 1, 1, 0)
    assert_close(compiled(name)(source, target, 3 * a, 3 * b), compiled(name)(source, target, a, b))


@named
def test_nothing_costs_nothing(name):
    source, target = draw()
    a, b = np.ones(N_SOURCE, "f"), np.ones(N_TARGET, "f")
    empty = [(0 * a, 0 * b)]
    if CASES[name].sides == 2 and name != "disparity":  # which is a sum over the sides
        empty += [(0 * a, b), (a, 0 * b)]
    for a, b in empty:
        hidden = [np.where(w[:, None] > 0, x, np.nan) for x, w in ((source, a), (target, b))]
        value, gradients = compiled(name)(*hidden, a, b)
        assert value == 0 and not any(np.any(g) for g in gradients)


@named
def test_equal_examples_have_a_known_value_and_a_finite_gradient(name):
    for size in (0.7, 0.0) if CASES[name].equal == 0 else (0.7,):
        rows = np.full((N_SOURCE, 6), size, "f"), np.full((N_TARGET, 6), size, "f")
        a, b = np.ones(N_SOURCE, "f"), np.ones(N_TARGET, "f")
        value, gradients = compiled(name)(*rows, a, b)
        np.testing.assert_allclose(value, CASES[name].equal, rtol=1e-5, atol=1e-6)
        assert all(np.isfinite(g).all() and np.abs(g).max() < 10 for g in gradients)


@named
def test_one_example_a_side(name):
    source, target = draw()
    value, gradients = compiled(name)(source[:1], target[:1], None, None)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)
    if name in ("mmd unbiased", "coral"):  # which need two
        assert value == 0 and not any(np.any(g) for g in gradients)


@named
def test_bfloat16_is_summed_in_float32(name):
    rows = [jax.ShapeDtypeStruct(x.shape, jnp.bfloat16) for x in draw()]
    assert jax.eval_shape(CASES[name].loss, *rows, None, None).dtype == jnp.float32


@pytest.mark.parametrize("name", ["mmd", "coral", "sliced", "entropy", "nuclear"])
def test_weights_of_another_shape_are_an_error(name):
    source, target = draw()
    with pytest.raises(ValueError, match=r"expected weights \[6\], got \[6, 1\]"):
        CASES[name].loss(source, target, np.ones((N_SOURCE, 1)), np.ones(N_TARGET))
