"""Did it help, by how much, and are we sure: Student-t intervals over seeds, paired by seed."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit  # scipy.stats takes half a second to import

Direction = Literal["max", "min"]
Verdict = Literal["positive", "negative", "undecided"]

LOWER_IS_BETTER = frozenset({"loss", "mse", "rmse", "mae", "ece", "nll", "brier", "error"})


class Estimate(NamedTuple):
    """A mean over seeds; NaN is undefined, [low, high] holds the mean with 95% confidence."""

    mean: float
    std: float
    low: float
    high: float


def direction(metric: str) -> Direction:
    """Which way `<evaluation>/<metric>` is better, by the name of the metric."""
    return "min" if metric.rpartition("/")[2] in LOWER_IS_BETTER else "max"


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
    half = stdtrit(values.size - 1, 0.975) * std / np.sqrt(values.size)
    return Estimate(float(mean), float(std), float(mean - half), float(mean + half))


def gains(values: ArrayLike, baseline: ArrayLike, better: Direction) -> np.ndarray:
    """Gain of each seed over the same seed of the baseline, positive when better.

    Args:
        values, baseline: [seeds] float, in the same order of seeds.
        better: direction of the metric.

    Returns:
        [seeds] float64, NaN where either is not finite.
    """
    values, baseline = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    paired = np.isfinite(values) & np.isfinite(baseline)
    gain = np.full(values.shape, np.nan)
    gain[paired] = values[paired] - baseline[paired]
    return gain if better == "max" else -gain


def verdict(gain: Estimate) -> Verdict:
    """The side of zero on which the whole interval lies; undecided if it has none."""
    if gain.low > 0:
        return "positive"
    return "negative" if gain.high < 0 else "undecided"
