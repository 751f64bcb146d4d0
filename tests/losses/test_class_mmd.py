import jax
import numpy as np
import pytest
from differences import assert_derivatives

from jaxtl.losses import contrastive_domain_discrepancy, local_mmd, mmd

RNG = np.random.default_rng(0)
SOURCE = RNG.normal(size=(6, 3)).astype(np.float32)
TARGET = RNG.normal(size=(5, 3)).astype(np.float32) + 0.5
A, B = np.array([1, 2, 1, 3, 1, 1.0]), np.array([2, 1, 1, 2, 1.0])
WIDTHS = np.array([1.0, 5.0])


def kernel(x, y):
    return np.mean([np.exp(-np.sum((x - y) ** 2) / width) for width in WIDTHS])


def mean(x, y, a, b):
    """The mean kernel between samples of weights a and b."""
    total = sum(a[i] * b[j] * kernel(x[i], y[j]) for i in range(len(x)) for j in range(len(y)))
    return total / (np.sum(a) * np.sum(b))


def distance(x, y, a, b):
    return mean(x, x, a, a) + mean(y, y, b, b) - 2 * mean(x, y, a, b)


def test_local_mmd_is_the_mean_of_class_distances():
    labels, shares = np.eye(4)[[0, 1, 2, 1, 0, 1]], RNG.dirichlet(np.ones(4), size=5)

    def reference(source, target):
        # Nobody in the source is of the fourth class: it adds 0, and counts.
        return (
            sum(distance(source, target, A * labels[:, c], B * shares[:, c]) for c in range(3)) / 4
        )

    def loss(source, target):
        return local_mmd(source, target, labels, shares, A, B, bandwidths=WIDTHS)

    assert_derivatives(loss, reference, SOURCE, TARGET)


def test_local_mmd_of_one_class_is_mmd():
    one = np.ones((6, 1)), np.ones((5, 1))
    value = jax.jit(local_mmd)(SOURCE, TARGET, *one)
    np.testing.assert_allclose(value, jax.jit(mmd)(SOURCE, TARGET), rtol=1e-5)


@pytest.mark.parametrize("seen", [(0, 1, 2), (0, 1)], ids=["all classes", "one absent"])
def test_contrastive_domain_discrepancy_is_within_minus_between(seen):
    labels = np.array([0, 1, 2, 1, 0, -1]), np.array([0, 1, 1, 0, seen[-1]])

    def reference(source, target):
        def d(c, other):
            return distance(source, target, A * (labels[0] == c), B * (labels[1] == other))

        within = [d(c, c) for c in seen]
        between = [d(c, other) for c in range(3) for other in seen if c != other]
        return np.mean(within) - np.mean(between)

    def loss(source, target):
        return contrastive_domain_discrepancy(
            source, target, *labels, A, B, num_classes=3, bandwidths=WIDTHS
        )

    assert_derivatives(loss, reference, SOURCE, TARGET)


def test_contrastive_domain_discrepancy_of_apart_classes():
    # Equal within classes, and so far between them that the kernels are 0: 0 - (1 + 1 - 0).
    x, labels = np.float32([[0, 0], [100, 0]]), np.array([0, 1])
    loss = contrastive_domain_discrepancy(x, x, labels, labels, num_classes=2, bandwidths=[1.0])
    np.testing.assert_allclose(loss, -2, rtol=1e-6)
