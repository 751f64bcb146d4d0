"""What an arm would have measured at the step that each label-free criterion picks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxtl.measure.criteria import PREFIX

if TYPE_CHECKING:
    from jaxtl.plan import Direction

LAST, RANKS = "last step", "rank average"


def looks(curves: Mapping[str, np.ndarray], metric: str) -> dict[str, np.ndarray]:
    """{criterion or metric: [looks, seeds]} of a stage's logged steps; empty if it has no looks."""
    criteria = [name for name in curves if name.startswith(PREFIX)]
    if not criteria or metric not in curves:
        return {}
    seen = np.isfinite(np.stack([curves[name] for name in (*criteria, metric)])).any(axis=(0, 2))
    return {name: np.asarray(curves[name])[seen] for name in (*criteria, metric)}


def picks(curves: Mapping[str, np.ndarray], metric: str) -> dict[str, np.ndarray]:
    """The metric at the look that each rule picks, seed by seed.

    Args:
        curves: {"criteria/<name>" or metric: [steps, seeds]}, NaN where nothing was logged.
        metric: what is reported; it picks nothing.

    Returns:
        {rule: [seeds]}: the last step, each criterion by its name (the earliest of equal looks) and
        the rank average of all criteria, where the look with the best mean rank wins; NaN where a
        criterion is never finite. Empty if there are no criteria.
    """
    seen = looks(curves, metric)
    if not seen:
        return {}
    values = seen.pop(metric)
    scores = {name.removeprefix(PREFIX): score for name, score in seen.items()}
    found = {LAST: values[-1]} | {name: _best(score, values) for name, score in scores.items()}
    if len(scores) > 1:
        ranks = [_ranks(np.where(np.isnan(s), -np.inf, s)) for s in scores.values()]
        found[RANKS] = _best(np.mean(ranks, axis=0), values)
    return found


def oracle(curves: Mapping[str, np.ndarray], metric: str, better: Direction) -> np.ndarray | None:
    """[seeds], the metric at its own best look: no honest number. None if there are no looks."""
    seen = looks(curves, metric)
    if not seen:
        return None
    sign = 1 if better == "max" else -1
    return _best(sign * seen[metric], seen[metric])


def _best(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """values [looks, seeds] at the largest score of each seed."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    chosen = np.take_along_axis(values, known.argmax(axis=0)[None], axis=0)[0]
    return np.where(np.isnan(scores).all(axis=0), math.nan, chosen)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """[looks, seeds], the number of looks that are worse and half of the others that are equal."""
    worse = (scores[None] < scores[:, None]).sum(1)
    equal = (scores[None] == scores[:, None]).sum(1)
    return worse + (equal - 1) / 2
