import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxtl.transferability import domain_logits, importance_weights, proxy_a_distance

RNG = np.random.default_rng(0)


def clouds(n_source=40, n_target=25, shift=1.0, features=3):
    source = RNG.normal(size=(n_source, features)).astype(np.float32)
    target = (shift + RNG.normal(size=(n_target, features)) * 2).astype(np.float32)
    return source, target


def test_logits_are_those_of_scikit_learn():
    source, target = clouds()
    pooled = np.concatenate([source, target])
    standard = (pooled - pooled.mean(0)) / pooled.std(0)
    share = np.where(np.arange(len(pooled)) < len(source), 0.5 / len(source), 0.5 / len(target))
    model = LogisticRegression(C=1 / (0.1 * share.sum()), tol=1e-10, max_iter=1000)
    model.fit(standard, np.arange(len(pooled)) >= len(source), sample_weight=share)
    found = domain_logits(source, target, pooled, penalty=0.1)
    np.testing.assert_allclose(found, model.decision_function(standard), rtol=1e-3, atol=1e-4)


def test_constant_features_and_separable_domains_are_finite():
    source, target = clouds(shift=50.0)
    source, target = (np.pad(x, ((0, 0), (0, 1)), constant_values=3.0) for x in (source, target))
    logits = np.asarray(domain_logits(source, target, np.concatenate([source, target])))
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(logits > 0, np.arange(65) >= 40)


def test_a_distance_of_equal_and_of_separable_domains():
    source, target = clouds(400, 300, shift=0.0, features=2)
    both = np.concatenate([source, source])
    assert abs(proxy_a_distance(both[:400], both[400:])) < 0.3
    assert proxy_a_distance(source, target + 100) == 2.0


def test_a_distance_by_hand():
    # One feature, alternating rows: learned from rows 0, 2, ..., tested on the others.
    source = np.array([[0.0], [0.0], [0.0], [9.0]], np.float32)
    target = np.array([[9.0], [9.0], [9.0], [9.0]], np.float32)
    # Held out: sources 0 and 9, of which the second is missed; targets 9 and 9.
    np.testing.assert_allclose(proxy_a_distance(source, target), 2 * (1 - 0.5), rtol=1e-6)


def test_importance_weights_are_the_ratio_of_gaussian_densities():
    rng = np.random.default_rng(1)
    source = rng.normal(size=(20_000, 1)).astype(np.float32)
    target = (0.7 + rng.normal(size=(10_000, 1))).astype(np.float32)
    at = np.linspace(-1, 2, 7, dtype=np.float32)[:, None]
    expected = np.exp(0.7 * at[:, 0] - 0.7**2 / 2)
    np.testing.assert_allclose(
        importance_weights(source, target, at, penalty=1e-6), expected, rtol=0.06
    )


@pytest.mark.parametrize("n_source,n_target", [(2, 2), (3, 50)])
def test_few_examples_are_no_error(n_source, n_target):
    source, target = clouds(n_source, n_target)
    assert np.isfinite(jax.jit(proxy_a_distance)(source, target))
