import numpy as np
import pytest

from jaxtl.transferability import (
    deep_embedded_risk,
    mixed_agreement,
    soft_neighborhood_density,
)

RNG = np.random.default_rng(0)


def test_weighted_risk_is_the_risk_on_the_target():
    # Two kinds of examples, 80:20 in the source and 50:50 in the target, errors 0.1 and 0.6.
    kind = RNG.random(200_000) < 0.2
    losses = (RNG.random(len(kind)) < np.where(kind, 0.6, 0.1)).astype(np.float32)
    weights = np.where(kind, 0.5 / 0.2, 0.5 / 0.8).astype(np.float32)
    np.testing.assert_allclose(deep_embedded_risk(losses, weights), 0.35, atol=0.01)


def test_the_control_variate_is_the_regression_on_the_weights():
    losses, weights = RNG.random(30).astype(np.float32), RNG.gamma(2, 1, 30).astype(np.float32)
    products = np.float64(losses) * weights
    cov = np.cov(products, weights, bias=True)
    expected = products.mean() - cov[0, 1] / cov[1, 1] * (weights.mean() - 1)
    np.testing.assert_allclose(deep_embedded_risk(losses, weights), expected, rtol=1e-5)
    np.testing.assert_allclose(deep_embedded_risk(losses, np.ones(30)), losses.mean(), rtol=1e-6)
    # A loss that is proportional to nothing but 1 is known exactly from the mean of the weights.
    np.testing.assert_allclose(deep_embedded_risk(np.full(30, 0.3), weights), 0.3, rtol=1e-5)


def test_density_is_the_entropy_of_similarities():
    logits = RNG.normal(size=(6, 4)).astype(np.float32) * 2
    p = np.exp(logits - logits.max(1, keepdims=True))
    p = p / p.sum(1, keepdims=True)
    total = 0.0
    for i in range(6):
        cosines = [
            p[i] @ p[j] / np.linalg.norm(p[i]) / np.linalg.norm(p[j]) for j in range(6) if j != i
        ]
        q = np.exp(np.array(cosines) / 0.05)
        q = q / q.sum()
        total -= (q * np.log(q)).sum() / 6
    np.testing.assert_allclose(soft_neighborhood_density(logits), total, rtol=1e-4)


def test_density_of_a_collapsed_model_is_the_largest():
    np.testing.assert_allclose(soft_neighborhood_density(np.ones((7, 3))), np.log(6), rtol=1e-5)
    apart = 100 * np.eye(3, dtype=np.float32)  # similar to none: all others are alike
    np.testing.assert_allclose(soft_neighborhood_density(apart), np.log(2), rtol=1e-5)


@pytest.mark.parametrize("same", [True, False])
def test_mixtures_by_hand(same):
    logits = 5 * np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2]]
    partners = np.array([1, 2, 3, 4, 0])  # pairs 0-0, 0-1, 1-1, 1-2, 2-0
    mixed = 5 * np.eye(3, dtype=np.float32)[[0, 1, 0, 1, 2]]
    within, between = mixed_agreement(logits, partners, mixed)
    found, expected = (within, 1 / 2) if same else (between, 2 / 3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_pairs_of_a_kind_the_agreement_is_0():
    logits = 5 * np.eye(2, dtype=np.float32)[[0, 0]]
    within, between = mixed_agreement(logits, np.array([1, 0]), logits)
    assert within == 1 and between == 0
