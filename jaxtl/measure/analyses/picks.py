"""What an arm would have measured at the step that each label-free criterion picks."""

import math
from collections.abc import Mapping

import numpy as np

from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.plan import CRITERIA, Analysis, Metric, Panel, Table, key_parts

LAST, RANKS, ORACLE = "last step", "rank average", "oracle (test labels)"

Curves = Mapping[str, np.ndarray]
"""{"criteria/<name>" or metric: [steps, seeds]}, NaN where nothing was logged."""


def picks() -> Analysis:
    """The primary metric at the validation that each criterion picks."""
    return Analysis("picks", measure_picks, panels, in_summary=True)


def oracle() -> Analysis:
    """The primary metric at its own best validation: no honest number, shown when asked for."""
    return Analysis("oracle", measure_oracle)


def measure_picks(arm: TrainedArm) -> dict[str, np.ndarray]:
    return at_picks(arm.last.curves, arm.experiment.primary.key)


def measure_oracle(arm: TrainedArm) -> np.ndarray | None:
    values = at_best(arm.last.curves, arm.experiment.primary)
    return None if values is None else np.where(arm.failed, math.nan, values)


def validations(curves: Curves, metric: str) -> dict[str, np.ndarray]:
    """{key: [validations, seeds]} of the criteria and of the metric with this key.

    Empty if there were none.
    """
    criteria = [key for key in curves if key_parts(key)[0] == CRITERIA]
    if not criteria or metric not in curves:
        return {}
    values = np.stack([curves[name] for name in (*criteria, metric)])
    rows = np.isfinite(values).any(axis=(0, 2))
    return {name: np.asarray(curves[name])[rows] for name in (*criteria, metric)}


def at_picks(curves: Curves, metric: str) -> dict[str, np.ndarray]:
    """The metric with this key at the validation that each rule picks, seed by seed.

    Returns:
        {rule: [seeds]}: the last step, each criterion by its name (the earliest of equal ones) and
        the rank average of all criteria, where the validation with the best mean rank wins; NaN
        where a criterion is never finite. Empty if there are no criteria. The metric picks nothing.
    """
    scores = validations(curves, metric)
    if not scores:
        return {}
    values = scores.pop(metric)
    scores = {key_parts(key)[1]: score for key, score in scores.items()}
    picked = {LAST: values[-1]}
    picked |= {name: _at_largest(score, values) for name, score in scores.items()}
    if len(scores) > 1:
        ranks = [_ranks(np.where(np.isnan(s), -np.inf, s)) for s in scores.values()]
        picked[RANKS] = _at_largest(np.mean(ranks, axis=0), values)
    return picked


def at_best(curves: Curves, metric: Metric) -> np.ndarray | None:
    """[seeds], the metric at its own best validation; None if there was none."""
    values = validations(curves, metric.key).get(metric.key)
    return None if values is None else _at_largest(metric.sign * values, values)


def _at_largest(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """values [validations, seeds] at the largest score of each seed."""
    row = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=0)
    chosen = np.take_along_axis(values, row[None], axis=0)[0]
    return np.where(np.isnan(scores).all(axis=0), math.nan, chosen)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """[validations, seeds], how many are worse, and half of the others that are equal."""
    worse = (scores[None] < scores[:, None]).sum(1)
    equal = (scores[None] == scores[:, None]).sum(1)
    return worse + (equal - 1) / 2


def panels(
    arms: Mapping[str, Mapping[str, np.ndarray]], comparison: Comparison
) -> dict[str, Panel]:
    note = (
        f"{comparison.primary.key} at the step that each rule picks without target labels, mean "
        f"over seeds. The arms above are measured at: {comparison.selection}."
    )
    rows = {name: dict(values) for name, values in arms.items()}
    for name, row in rows.items():
        if comparison.oracle and "oracle" in comparison.arms[name].analyses:
            row[ORACLE] = comparison.arms[name].analyses["oracle"]
    if any(ORACLE in row for row in rows.values()):
        note += " The oracle picks by the labels that it is measured on; it decides nothing."
    title, metric = "Chosen without target labels", comparison.primary.key
    return {"picks": Table(title, note, rows, metric=metric, printed=True)}
