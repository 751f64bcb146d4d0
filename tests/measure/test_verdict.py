"""Intervals against scipy.stats, and the three verdicts on constructed numbers."""

import numpy as np
import pytest
from scipy import stats

from jaxtl.measure.verdict import (
    MOST_SEEDS,
    differences,
    distinct,
    estimate,
    seeds_to_decide,
    unpaired,
    unpaired_verdict,
    verdict,
)
from jaxtl.plan import maximize, minimize

SCRATCH = [0.80, 0.82, 0.79, 0.85, 0.81]


def test_estimate_is_the_interval_of_a_t_test():
    values = np.random.default_rng(0).normal(0.8, 0.05, 7)
    mean, std, low, high = estimate(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose([low, high], expected, rtol=1e-12)
    np.testing.assert_allclose([mean, std], [values.mean(), values.std(ddof=1)], rtol=1e-12)


@pytest.mark.parametrize("metric, sign", [(maximize("t", "a"), 1), (minimize("t", "a"), -1)])
def test_gain_is_the_paired_t_test(metric, sign):
    rng = np.random.default_rng(1)
    arm, baseline = rng.normal(0.9, 0.02, 5), rng.normal(0.8, 0.02, 5)
    gain = estimate(metric.sign * differences(arm, baseline))
    expected = stats.ttest_rel(sign * arm, sign * baseline).confidence_interval(0.95)
    np.testing.assert_allclose([gain.low, gain.high], expected, rtol=1e-12)
    assert np.sign(gain.mean) == sign


@pytest.mark.parametrize(
    "difference, expected",
    [
        ([0.05, 0.07, 0.06, 0.04, 0.06], "positive"),
        ([-0.05, -0.07, -0.06, -0.04, -0.06], "negative"),
        ([0.05, -0.04, 0.06, -0.03, 0.01], "undecided"),
        ([0.02, 0.02, 0.02, 0.02, 0.02], "undecided"),
        ([0.02, 0.02, 0.02, 0.03, 0.03], "undecided"),
        ([0.02, 0.02, 0.02, 0.03, 0.04], "positive"),
        ([0.0, 0.0, 0.0, 0.0, 0.0], "undecided"),
    ],
)
def test_verdict(difference, expected):
    arm = np.add(SCRATCH, difference)
    assert verdict(differences(arm, SCRATCH), arm, SCRATCH) == expected


@pytest.mark.parametrize(
    "arm, baseline, different",
    [
        ([0.9, 0.8], [0.8, 0.7], 1),
        ([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], 1),  # 0.1 up to the last bit
        ([1.0, 1.0, 1.0], [0.9, 0.9, 0.9], 1),  # as good as can be
        ([1e6 + 1, 1e6 + 1.01, 1e6 + 1.02], [1e6, 1e6, 1e6], 1),  # what float32 cannot tell
        ([2.001, 2.002, 2.003], [1.0, 1.0, 1.0], 3),
        ([0.9, np.nan, 0.7], [0.8, 0.7, 0.5], 2),
        ([np.nan], [0.0], 0),
    ],
)
def test_gains_that_are_equal_up_to_rounding_are_one(arm, baseline, different):
    gain = differences(arm, baseline)
    assert distinct(gain, arm, baseline) == different
    assert (verdict(gain, arm, baseline) == "positive") == (different == 3)


def test_pairing_decides_what_unpaired_seeds_cannot():
    baseline = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    arm = baseline + np.array([0.01, 0.012, 0.009, 0.011, 0.01])
    apart, together = estimate(arm), estimate(baseline)
    assert apart.low < together.high
    assert verdict(differences(arm, baseline), arm, baseline) == "positive"


def test_equal_values_have_an_interval_of_width_zero():
    assert estimate([0.1, 0.1, 0.1]) == (0.1, 0.0, 0.1, 0.1)


def test_one_seed_has_a_mean_and_no_interval():
    gain = estimate([0.3])
    assert gain.mean == 0.3 and np.isnan(gain[1:]).all()
    assert verdict([0.3]) == "undecided"


def test_no_finite_seed_is_undefined():
    gain = estimate([np.nan, np.inf])
    assert np.isnan(gain).all() and verdict([np.nan, np.inf]) == "undecided"


def test_only_pairs_with_both_finite_count():
    gain = differences([0.9, np.nan, 0.8, np.inf], [0.8, 0.7, np.nan, 0.1])
    np.testing.assert_allclose(gain, [0.1, np.nan, np.nan, np.nan])


def with_moments(count, mean, std):
    """`count` different values of exactly this mean and standard deviation."""
    values = np.linspace(-1, 1, count) ** 3
    return mean + std * (values - values.mean()) / values.std(ddof=1)


@pytest.mark.parametrize("count", [2, 3, 5, 20])
@pytest.mark.parametrize("ratio", [0.12, -0.2, 0.43, -0.9, 1.5])
def test_seeds_to_decide_by_brute_force(count, ratio):
    """The first size at which SciPy's test of values with that mean and deviation rejects 0."""
    gain = with_moments(count, 0.03 * ratio, 0.03)
    if stats.ttest_1samp(gain, 0).pvalue < 0.05:
        assert seeds_to_decide(gain) is None
        return
    sizes = range(max(3, count), MOST_SEEDS)
    tests = (stats.ttest_1samp(with_moments(n, 0.03 * ratio, 0.03), 0).pvalue for n in sizes)
    first = next(n for n, p in zip(sizes, tests, strict=True) if p < 0.05)
    assert count < first == seeds_to_decide(gain)
    more = with_moments(first, 0.03 * ratio, 0.03)
    assert verdict(gain) == "undecided" != verdict(more)


@pytest.mark.parametrize(
    "gain, seeds",
    [
        ([], None),
        ([0.1], None),
        ([0.1, np.nan], None),
        ([np.nan, np.inf, -np.inf], None),
        ([0.1, 0.1, 0.1], None),  # no variance
        ([0.1, -0.1], None),  # no mean
        ([0.1, -0.1, 1e-6], None),  # next to none
        ([0.02, 0.02, 0.02, 0.03, 0.03], None),  # what is missing is a third distinct gain
        ([0.10, 0.11], 3),  # an interval above 0 already, of too few
        ([0.02, -0.01, 0.03, 0.03], 8),
        ([np.nan, 0.02, -0.01, 0.03, 0.03], 10),  # one in five of the new ones will fail too
    ],
)
def test_seeds_that_no_number_decides_or_few_do(gain, seeds):
    assert seeds_to_decide(gain) == seeds


def test_a_gain_below_rounding_needs_more_than_seeds():
    arm, baseline = [1e6 + 0.01, 1e6 + 0.02, 1e6], [1e6] * 3
    assert seeds_to_decide(differences(arm, baseline), arm, baseline) is None


def test_unpaired_is_welch():
    values, baseline = [0.81, 0.84, 0.80, 0.86], [0.70, 0.74, 0.71, np.nan, 0.90, 0.66]
    finite = [value for value in baseline if np.isfinite(value)]
    expected = stats.ttest_ind(values, finite, equal_var=False).confidence_interval(0.95)
    found = unpaired(values, baseline)
    np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-12)
    np.testing.assert_allclose(found.mean, np.mean(values) - np.mean(finite), rtol=1e-12)
    tiny = unpaired(1e-200 * np.array(values), 1e-200 * np.array(baseline))
    assert np.isfinite(tiny).all()  # whose variances are 0


def test_an_unpaired_verdict_needs_three_seeds_of_both_and_three_values_of_one():
    many = [0.80, 0.81, 0.82, 0.83]
    assert unpaired_verdict(many, [0.5, 0.51, 0.52]) == "positive"
    assert unpaired_verdict(many, [0.5, 0.51, 0.52], sign=-1) == "negative"
    assert unpaired_verdict(many, [0.5, 0.5, 0.5]) == "positive"  # one of them is fixed
    assert unpaired_verdict(many, [0.5, 0.5]) == "undecided"
    assert unpaired_verdict(many, [0.5, 0.51, np.nan]) == "undecided"
    assert unpaired_verdict([0.9] * 4, [0.5, 0.5, 0.51]) == "undecided"
    assert unpaired_verdict(many, [0.7, 0.8, 0.9]) == "undecided"
    assert unpaired_verdict([], many) == "undecided" and np.isnan(unpaired([], many)).all()
