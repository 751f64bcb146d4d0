"""What an arm would have measured at the step that each label-free criterion picks."""

import math
from collections.abc import Mapping

import numpy as np

from jaxtl.plan import CRITERIA, Metric, key_parts

LAST, RANKS = "last step", "rank average"


def looks(curves: Mapping[str, np.ndarray], metric: str) -> dict[str, np.ndarray]:
    """{key: [looks, seeds]} of the criteria and of the metric with this key, of a stage's steps.

    Empty if it has no looks.
    """
    criteria = [key for key in curves if key_parts(key)[0] == CRITERIA]
    if not criteria or metric not in curves:
        return {}
    values = np.stack([curves[name] for name in (*criteria, metric)])
    looked_at = np.isfinite(values).any(axis=(0, 2))
    return {name: np.asarray(curves[name])[looked_at] for name in (*criteria, metric)}


def picks(curves: Mapping[str, np.ndarray], metric: str) -> dict[str, np.ndarray]:
    """The metric at the look that each rule picks, seed by seed.

    Args:
        curves: {"criteria/<name>" or metric: [steps, seeds]}, NaN where nothing was logged.
        metric: the key of what is reported; it picks nothing.

    Returns:
        {rule: [seeds]}: the last step, each criterion by its name (the earliest of equal looks) and
        the rank average of all criteria, where the look with the best mean rank wins; NaN where a
        criterion is never finite. Empty if there are no criteria.
    """
    scores = looks(curves, metric)
    if not scores:
        return {}
    values = scores.pop(metric)
    scores = {key_parts(key)[1]: score for key, score in scores.items()}
    picked = {LAST: values[-1]} | {name: _best(score, values) for name, score in scores.items()}
    if len(scores) > 1:
        ranks = [_ranks(np.where(np.isnan(s), -np.inf, s)) for s in scores.values()]
        picked[RANKS] = _best(np.mean(ranks, axis=0), values)
    return picked


def oracle(curves: Mapping[str, np.ndarray], metric: Metric) -> np.ndarray | None:
    """[seeds], the metric at its own best look: no honest number. None if there are no looks."""
    values = looks(curves, metric.key).get(metric.key)
    return None if values is None else _best(metric.sign * values, values)


def _best(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """values [looks, seeds] at the largest score of each seed."""
    look = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=0)
    chosen = np.take_along_axis(values, look[None], axis=0)[0]
    return np.where(np.isnan(scores).all(axis=0), math.nan, chosen)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """[looks, seeds], the number of looks that are worse and half of the others that are equal."""
    worse = (scores[None] < scores[:, None]).sum(1)
    equal = (scores[None] == scores[:, None]).sum(1)
    return worse + (equal - 1) / 2
