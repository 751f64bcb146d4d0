"""Finite at any size, offset and degenerate shape, and there what float64 gives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_weights_contract import CASES, KEY, parts

from jaxtl import losses
from jaxtl import transferability as scores

LABELS = np.arange(6) % 3
FILLED = np.array([[1], [1], [0], [1], [0]], bool)


def per_example(loss, **options):
    return lambda s, t: loss(*parts(s), **options).mean()


def labelled(loss, **options):
    return lambda s, t: loss(parts(s)[0], LABELS[: len(s)], **options).mean()


def both(loss, **options):
    return lambda s, t: loss(s, t, **options).sum()


def queue(s, t):
    queued = s[:, 1:].reshape(len(s), 5, 1)
    return losses.queue_contrast(s[:, 0], queued, LABELS[: len(s)], FILLED).mean()


def planned(s, t):
    a, b = jnp.arange(len(s)) + 1.0, jnp.arange(6.0)
    return jnp.sum(losses.sinkhorn(s, a, b, num_steps=10) ** 2)


def adversarial(s, t):
    mix = np.eye(6, 3, dtype="f")
    return losses.virtual_adversarial(lambda x: x @ mix, KEY, s, s @ mix, radius=0.5)


def flat(s, t):
    return losses.gradient_penalty(lambda x: 0 * x.sum(1), KEY, s, t)


def steep(s, t):
    return losses.gradient_penalty(lambda x: jnp.sum(x**2, 1), KEY, s, t)


def contract(loss):
    return lambda s, t: loss(s, t, None, None)


ALL = {name: contract(case.loss) for name, case in CASES.items()} | {
    "moments by default": both(losses.central_moment_discrepancy),
    "sinkhorn": planned,
    "squared distances": both(losses.squared_distances),
    "smallest": lambda s, t: losses.smallest_singular_values(parts(s)[0]),
    "covariance": lambda s, t: losses.covariance(s).sum(),
    "hint": per_example(losses.hint),
    "softened": per_example(losses.softened_divergence, temperature=3.0),
    "sharpened": per_example(losses.softened_divergence, temperature=0.3),
    "attended": lambda s, t: losses.attended_distance(*parts(s), np.float32([0.2, 0.3, 0.5])),
    "focal": labelled(losses.focal),
    "focal below 1": labelled(losses.focal, gamma=0.5),
    "adjusted": labelled(losses.logit_adjusted, prior=np.float32([1, 10, 1000])),
    "queue": queue,
    "adversarial": adversarial,
    "penalty of no slope": flat,
    "penalty of a steep critic": steep,
    "reversed": lambda s, t: losses.reverse_gradient(s, 0.5).sum(),
    "domain logits": lambda s, t: scores.domain_logits(s, t, s).sum(),
    "a distance": lambda s, t: scores.proxy_a_distance(*(jnp.tile(x, (2, 1)) for x in (s, t))),
    "importance weights": lambda s, t: scores.importance_weights(s, t, s).sum(),
    "embedded risk": lambda s, t: scores.deep_embedded_risk(s[:, 0], jnp.abs(s[:, 1])),
    "density": lambda s, t: scores.soft_neighborhood_density(jnp.tile(s, (2, 1))),
}
QUICK = "sinkhorn", "moments by default", "confusion", "mmd fixed", "domain logits"


def some_slow(names, quick):
    """Each takes a second to compile: by default the ones that are most easily lost."""
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


named = pytest.mark.parametrize("name", some_slow(ALL, QUICK))


@functools.cache
def compiled(name):
    return jax.jit(jax.value_and_grad(ALL[name], (0, 1)))


def draw():
    rng = np.random.default_rng(3)
    return rng.normal(size=(6, 6)), rng.normal(size=(5, 6)) + 0.5


def shapes(scale, offset):
    """{what is degenerate: (source, target)}, all but the first with the programs of the first."""
    source, target = (scale * x + offset for x in draw())
    one = np.full_like(source, scale + offset), np.full_like(target, scale + offset)
    zero, constant = source.copy(), source.copy()
    zero[[2, 3]] = 0
    constant[:, [1, 4]] = offset
    return {
        "plain": (source, target),
        "far apart": (-source - offset, target),
        "small beside large": (source, 1e-6 * target),
        "equal": one,
        "zeros": (0 * source, 0 * target),
        "zero rows": (zero, target),
        "constant columns": (constant, target),
    }


@named
def test_values_and_gradients_are_finite(name):
    problems = []
    for scale in (1e-6, 1.0, 1e4, 1e6):
        for offset in (0.0, 1e4, 1e6):
            for kind, sides in shapes(scale, offset).items():
                value, gradients = compiled(name)(*(np.float32(x) for x in sides))
                if not all(np.isfinite(x).all() for x in (value, *gradients)):
                    problems.append((scale, offset, kind))
    assert not problems


@pytest.mark.parametrize("name", some_slow(ALL, QUICK[:1]))
@pytest.mark.parametrize("scale, offset", [(1e-6, 1e6), (1e6, 0.0), (1e6, 1e6)])
def test_one_example_a_side_is_finite(name, scale, offset):
    source, target = (np.float32(scale * x[:1] + offset) for x in draw())
    value, gradients = compiled(name)(source, target)
    assert all(np.isfinite(x).all() for x in (value, *gradients))


@functools.cache
def widened(name):
    return jax.jit(jax.value_and_grad(ALL[name], (0, 1)))


AGAIN = [
    *(
        "mmd",
        "mmd fixed",
        "mmd unbiased",
        "joint_mmd",
        "local_mmd",
        "contrastive",
    ),
    *("coral", "central moments", "disparity", "disagreement", "entropy", "information"),
    *("confusion", "largest", "norms", "moments by default", "squared distances"),
    *("covariance", "hint", "softened", "sharpened", "attended", "focal", "focal below 1"),
    *("adjusted", "queue"),
]


@pytest.mark.parametrize("name", some_slow(AGAIN, ("mmd fixed", "moments by default")))
@pytest.mark.parametrize("scale, offset", [(1.0, 1e4), (1.0, 1e6), (1e6, 0.0), (1e6, 1e6)])
def test_float32_gives_what_float64_does(name, scale, offset):
    sides = [np.float32(scale * x + offset) for x in draw()]
    value, gradients = compiled(name)(*sides)
    with jax.enable_x64(True):
        wide = [x.astype(float) for x in sides]
        exact, slopes = widened(name)(*wide)
        exact, slopes = np.asarray(exact), [np.asarray(x) for x in slopes]
    assert exact.dtype == np.float64
    # Values near 0 and their slopes are differences of probabilities or kernels of size 1.
    size = max(np.abs(x).max() for x in slopes) + 1e-4 / scale
    np.testing.assert_allclose(value, exact, rtol=1e-3, atol=2e-6)
    for actual, expected in zip(gradients, slopes, strict=True):  # at 1e6 float32 resolves 0.06
        np.testing.assert_allclose(actual / size, expected / size, atol=2e-2)


def test_a_regularization_that_float32_does_not_resolve_still_moves_all_the_mass():
    cost = np.float32(1e12) * np.abs(draw()[0])
    b = np.arange(1.0, 7)
    plan = losses.sinkhorn(cost, None, b)
    np.testing.assert_allclose(plan.sum(0), b / b.sum(), rtol=1e-5)


def test_sliced_wasserstein_of_a_shift_far_from_the_origin():
    source = np.float32(draw()[0]) + np.float32(1e6)
    shift = np.float32([3, -4, 0, 0, 0, 0])
    value = losses.sliced_wasserstein(KEY, source, source + shift, projections=4000)
    np.testing.assert_allclose(value, 25 / 6, rtol=0.05)


def test_domains_far_apart_are_resolved_by_kernels_of_a_small_bandwidth():
    source, target = (np.float32(x) for x in draw())
    apart = losses.mmd(source, target + 1e4, bandwidths=[4.0])
    within = [np.sum((x[:, None] - x[None]) ** 2, -1) for x in (source, target)]
    expected = sum(np.exp(-distances / 4).mean() for distances in within)
    np.testing.assert_allclose(apart, expected, rtol=2e-2)


def test_logits_beyond_1e8_have_no_rounding_in_the_exponent():
    sure = np.float32(1e12) * np.eye(3, dtype="f")
    confused = jax.jit(jax.value_and_grad(losses.class_confusion))(sure)
    assert confused[0] == 0 and not confused[1].any()
    gap = jax.jit(functools.partial(losses.softened_divergence, temperature=2.5))
    np.testing.assert_allclose(gap(sure, sure[::-1]), np.float32([1, 0, 1]) * 2.5e12, rtol=1e-6)


def test_norms_of_what_is_not_a_number_are_not_0():
    rows = np.float32([[3, np.nan], [3e30, 4e30], [0, 0], [3e-30, 4e-30]])
    np.testing.assert_allclose(losses.magnitude.norms(rows), [np.nan, 5e30, 0, 5e-30], rtol=1e-6)
    value = losses.central_moment_discrepancy(np.float32([[1e20, 2e20], [0, 0]]), rows[2:])
    assert not np.isfinite(value)  # never a smaller number
