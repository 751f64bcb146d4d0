"""Did it help, by how much, and are we sure: Student-t intervals over seeds, paired by seed."""

import functools
import math
from typing import Literal, NamedTuple

import numpy as np
import scipy  # whose parts are imported when they are asked for: each takes a while
from numpy.typing import ArrayLike

Verdict = Literal["positive", "negative", "undecided"]

FEWEST_VALUES = 3  # distinct gains without which an interval says nothing
ROUNDING = 1e-7  # of a metric, which float32 sums make
MOST_SEEDS = 1_000  # that anybody would train to decide


class Estimate(NamedTuple):
    """A mean over seeds; NaN is undefined, [low, high] holds the mean with 95% confidence."""

    mean: float
    std: float
    low: float
    high: float


def estimate(values: ArrayLike) -> Estimate:
    """Mean, standard deviation (n - 1) and 95% Student-t interval of the finite values.

    Args:
        values: [seeds] float. Those that are not finite are left out. Equal values have an
            interval of width 0; one value has no interval, none has no mean.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return Estimate(np.nan, np.nan, np.nan, np.nan)
    centred = values - values[0]  # exactly zero where all values are equal
    mean = values[0] + centred.mean()
    if values.size == 1:
        return Estimate(float(mean), np.nan, np.nan, np.nan)
    std = centred.std(ddof=1)
    half = scipy.special.stdtrit(values.size - 1, 0.975) * std / np.sqrt(values.size)
    return Estimate(float(mean), float(std), float(mean - half), float(mean + half))


def differences(values: ArrayLike, baseline: ArrayLike) -> np.ndarray:
    """Difference of each seed from the same seed of the baseline: times a metric's sign, its gain.

    Args:
        values, baseline: [seeds] float, in the same order of seeds.

    Returns:
        [seeds] float64, NaN where either is not finite.
    """
    values, baseline = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    paired = np.isfinite(values) & np.isfinite(baseline)
    difference = np.full(values.shape, np.nan)
    difference[paired] = values[paired] - baseline[paired]
    return difference


def unpaired(values: ArrayLike, baseline: ArrayLike) -> Estimate:
    """Difference of the means of two groups of other seeds, with Welch's 95% interval.

    Args:
        values: [seeds] float, baseline: [other seeds] float; those that are not finite are left
            out. With fewer than two in either group there is no interval.

    Returns:
        the standard deviation is that of the difference of two single values.
    """
    values, baseline = (_finite(each) for each in (values, baseline))
    difference = estimate(values).mean - estimate(baseline).mean
    if min(values.size, baseline.size) < 2:
        return Estimate(difference, np.nan, np.nan, np.nan)
    squares = np.array([estimate(each).std ** 2 for each in (values, baseline)])
    parts = squares / (values.size, baseline.size)  # of the variance of the difference of means
    half = 0.0
    if error := np.sqrt(parts.sum()):
        # Welch-Satterthwaite; shares, as squares of small parts would be 0
        shares = parts / parts.sum()
        freedom = 1 / np.sum(shares**2 / (values.size - 1, baseline.size - 1))
        half = scipy.special.stdtrit(freedom, 0.975) * error
    std = float(np.sqrt(squares.sum()))
    return Estimate(difference, std, float(difference - half), float(difference + half))


def unpaired_verdict(values: ArrayLike, baseline: ArrayLike, sign: int = 1) -> Verdict:
    """The side of zero on which the whole interval of `unpaired` lies.

    Undecided if there is none, below three values in either group, and where neither group has
    three distinct ones.

    Args:
        values, baseline: as in `unpaired`.
        sign: 1 where larger values are better, else -1.
    """
    groups = [_finite(each) for each in (values, baseline)]
    low, high = unpaired(*groups)[2:]
    if sign < 0:
        low, high = -high, -low
    few = min(group.size for group in groups) < FEWEST_VALUES
    if few or max(distinct(group) for group in groups) < FEWEST_VALUES:
        return "undecided"
    return "positive" if low > 0 else "negative" if high < 0 else "undecided"


def _finite(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return values[np.isfinite(values)]


def distinct(gain: ArrayLike, *metrics: ArrayLike) -> int:
    """How many of the finite gains differ by more than rounding.

    Args:
        gain: [seeds] float.
        metrics: what the gains are differences of. Gains closer than the rounding of the largest
            of these are equal, as are those of 0.9 over 0.8 and of 0.7 over 0.6.
    """
    values = np.asarray(gain, np.float64)
    values = np.sort(values[np.isfinite(values)])
    if not values.size:
        return 0
    numbers = np.concatenate(
        [np.ravel(np.asarray(each, np.float64)) for each in (*metrics, values)]
    )
    closest = ROUNDING * np.abs(numbers[np.isfinite(numbers)]).max()
    return 1 + int(np.sum(np.diff(values) > closest))


def verdict(gain: ArrayLike, *metrics: ArrayLike) -> Verdict:
    """The side of zero on which the whole 95% interval of the mean gain lies.

    Undecided if it has none, and below three distinct gains: two seeds that happen to agree, or
    metrics that are all 1.0, have an interval of width 0, which is no certainty.

    Args:
        gain: [seeds] float, or of the points of a sweep; those that are not finite do not count.
        metrics: as in `distinct`.
    """
    low, high = estimate(gain)[2:]
    if distinct(gain, *metrics) < FEWEST_VALUES or not (low > 0 or high < 0):
        return "undecided"
    return "positive" if low > 0 else "negative"


@functools.cache
def _quantiles() -> np.ndarray:
    """Of Student's t, by degrees of freedom."""
    return scipy.special.stdtrit(np.arange(MOST_SEEDS), 0.975)


def seeds_to_decide(gain: ArrayLike, *metrics: ArrayLike) -> int | None:
    """About how many seeds, those there are included, would decide what is undecided.

    The smallest number whose 95% interval excludes 0 if mean and standard deviation of the gains
    stay as they are. Where some seeds have no gain, as large a part of the new ones will have none.

    Args:
        gain: [seeds] float; those that are not finite do not count.
        metrics: as in `distinct`.

    Returns:
        None for what is decided, for fewer than two different gains, for a mean of 0, and where it
        would take more than `MOST_SEEDS`.
    """
    values = np.asarray(gain, np.float64)
    mean, std, low, high = estimate(values)
    count, different = int(np.isfinite(values).sum()), distinct(values, *metrics)
    wide = low <= 0 <= high
    # An interval of two seeds may exclude 0 already, but a verdict needs more. Of more seeds with
    # two different gains between them, nobody knows when a third gain comes.
    if different < 2 or mean == 0 or not (wide or count < FEWEST_VALUES):
        return None
    sizes = np.arange(max(FEWEST_VALUES, count + 1), MOST_SEEDS + 1)
    excluded = abs(mean) > _quantiles()[sizes - 1] * std / np.sqrt(sizes)
    if not excluded.any():
        return None
    seeds = math.ceil(int(sizes[excluded.argmax()]) * values.size / count)
    return seeds if seeds <= MOST_SEEDS else None
