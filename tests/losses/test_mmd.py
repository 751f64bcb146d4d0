import functools

import jax
import numpy as np
import pytest
from differences import assert_derivatives
from scipy.spatial.distance import pdist

from jaxtl.losses import joint_mmd, mean_bandwidths, mmd

RNG = np.random.default_rng(0)
SOURCE = RNG.normal(size=(5, 3)).astype(np.float32)
TARGET = RNG.normal(size=(4, 3)).astype(np.float32) + 0.5
A, B = np.array([1, 2, 1, 3, 1]), np.array([2, 1, 1, 2])
WIDTHS = np.array([0.7, 2.0, 9.0])


def kernel(x, y, widths=WIDTHS):
    return np.mean([np.exp(-np.sum((x - y) ** 2) / width) for width in widths])


def loops(k, source, target, unbiased):
    """Squared MMD of lists of examples, by the definition."""
    n, m = len(source), len(target)
    total = -2 * sum(k(x, y) for x in source for y in target) / (n * m)
    for side in (source, target):
        pairs = [
            (i, j) for i in range(len(side)) for j in range(len(side)) if not unbiased or i != j
        ]
        total += sum(k(side[i], side[j]) for i, j in pairs) / len(pairs)
    return total


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_mmd_is_that_of_loops_over_repeated_examples(unbiased, weighted):
    a, b = (A, B) if weighted else (np.ones_like(A), np.ones_like(B))

    def reference(source, target):
        return loops(kernel, np.repeat(source, a, 0), np.repeat(target, b, 0), unbiased)

    weights = (a, b) if weighted else (None, None)
    loss = functools.partial(mmd, bandwidths=WIDTHS, unbiased=unbiased)
    assert_derivatives(lambda s, t: loss(s, t, *weights), reference, SOURCE, TARGET)


def test_a_rule_finds_its_bandwidths_in_the_pooled_sample_and_has_no_gradient():
    width = np.mean(pdist(np.concatenate([SOURCE, TARGET]).astype(float)) ** 2)
    widths = width * np.array([0.5, 2.0])

    def reference(source, target):
        return loops(functools.partial(kernel, widths=widths), source, target, False)

    loss = functools.partial(mmd, bandwidths=mean_bandwidths((0.5, 2.0)))
    assert_derivatives(loss, reference, SOURCE, TARGET)


def test_bandwidths_of_weighted_pairs_by_hand():
    distances = np.array([[0, 1, 5, 9], [1, 0, 4, 8], [5, 4, 0, 7], [9, 8, 7, 0]], np.float32)
    weights = np.outer([1, 2, 1, 0], [1, 2, 1, 0]).astype(np.float32)
    # 1 twice, 5 once and 4 twice, both ways; the last point is not there.
    np.testing.assert_allclose(mean_bandwidths([1, 3])(distances, weights), [3, 9])
    equal = mean_bandwidths()(np.zeros((3, 3), "f"), np.ones((3, 3), "f"))
    np.testing.assert_array_equal(equal, 0)


def test_repeats_do_not_change_a_bandwidth():
    repeated = np.concatenate([SOURCE, SOURCE])
    np.testing.assert_allclose(
        mmd(repeated, TARGET, None, 2 * B), mmd(SOURCE, TARGET, None, B), rtol=1e-5
    )


def gaussians(shift, width, features):
    """E k(x, y) for x - y normal of covariance 2 I about the shift, in closed form."""
    return (width / (width + 4)) ** (features / 2) * np.exp(-(shift**2) / (width + 4))


def test_normal_samples_come_near_the_closed_form():
    loss = functools.partial(mmd, unbiased=True)
    x, y = np.random.default_rng(1).normal(size=(2, 1500, 2)).astype(np.float32)
    y[:, 0] += 1.5
    expected = 2 * gaussians(0, 2.0, 2) - 2 * gaussians(1.5, 2.0, 2)
    np.testing.assert_allclose(loss(x, y, bandwidths=[2.0]), expected, atol=0.03)
    np.testing.assert_allclose(loss(x, y - np.float32([1.5, 0]), bandwidths=[2.0]), 0, atol=0.02)


def test_mmd_far_from_the_origin():
    far = mmd(SOURCE + 1000, TARGET + 1000)
    np.testing.assert_allclose(far, mmd(SOURCE, TARGET), rtol=1e-3)


def test_rounding_below_zero_is_cut_off_and_keeps_its_gradient():
    compiled, cut = jax.jit(jax.value_and_grad(mmd)), 0
    for seed in range(20):
        x = jax.random.normal(jax.random.key(seed), (7, 3))
        assert 0 <= compiled(x, x[::-1])[0] < 1e-6
        value, gradient = compiled(x, x[::-1] + 1e-5)
        assert value >= 0 and gradient.any()
        cut += value == 0
    assert cut > 0
    assert mmd(SOURCE, SOURCE[:4], unbiased=True) < 0


@pytest.mark.parametrize("unbiased", [False, True])
def test_joint_mmd_is_that_of_the_product_kernel(unbiased):
    second = [np.array([0.5]), np.array([1.0, 3.0])]

    def product(x, y):
        return kernel(x[:2], y[:2], second[0]) * kernel(x[2:], y[2:], second[1])

    def reference(source, target):
        return loops(product, np.repeat(source, A, 0), np.repeat(target, B, 0), unbiased)

    def loss(source, target):
        layers = ([x[:, :2], x[:, 2:]] for x in (source, target))
        return joint_mmd(*layers, A, B, bandwidths=second, unbiased=unbiased)

    assert_derivatives(loss, reference, SOURCE, TARGET)


def test_joint_mmd_of_one_layer_is_mmd():
    np.testing.assert_allclose(
        joint_mmd([SOURCE], [TARGET], A, B), mmd(SOURCE, TARGET, A, B), rtol=1e-6
    )
    with pytest.raises(ValueError, match="each layer expected, got 1, 2 and 1"):
        joint_mmd([SOURCE], [TARGET, TARGET])
