"""What becomes of each class: F1, gains in recall, confusion."""

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from jaxtl import metrics
from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.plan import Analysis, Grid, Matrix, Panel, PyTree

Counts = Mapping[str, Mapping[str, np.ndarray]]
"""{arm: {"counts": [seeds, true, predicted], "names": [classes]}} of one evaluation."""


def classes() -> Analysis:
    """F1 of every class, its gain in recall over the baseline, and what it is taken for."""
    return Analysis("classes", measure, panels)


def measure(arm: TrainedArm) -> PyTree:
    """{evaluation: {"counts": [seeds, true, predicted], "names": [classes]}}."""
    confusions = {}
    for name, measured in arm.at_end.items():
        if measured.confusion is not None:
            evaluation = arm.experiment.evals[name]
            names = np.array(evaluation.dataset.class_names(evaluation.column), np.str_)
            confusions[name] = {"counts": measured.confusion, "names": names}
    return confusions


def panels(arms: Mapping[str, PyTree], comparison: Comparison) -> dict[str, Panel]:
    primary, baseline = comparison.primary.evaluation, comparison.baseline
    names = dict.fromkeys(name for measured in arms.values() for name in measured)
    by_class, confusions = {}, {}
    for i, name in enumerate(sorted(names, key=lambda name: name != primary)):
        counts = {arm: measured[name] for arm, measured in arms.items() if name in measured}
        by_class[f"per_class_{name}"] = per_class(name, counts, folded=i > 0)
        if len(counts) > 1 and baseline in counts:
            by_class[f"class_gains_{name}"] = class_gains(name, counts, baseline, folded=i > 0)
        confusions[f"confusion_{name}"] = confusion(name, counts, folded=i > 0)
    return by_class | confusions


def per_class(evaluation: str, counts: Counts, **look: Any) -> Matrix:
    """F1 of every class (column) and arm (row)."""
    scores = _rows(class_f1(each["counts"]) for each in counts.values())
    title = f"F1 of each class on {evaluation}"
    grid = Grid(list(counts), class_names(counts.values()), scores)
    return Matrix(title, "Mean over seeds.", {"": grid}, "F1", "arm", "class", **look)


def class_gains(evaluation: str, counts: Counts, baseline: str, **look: Any) -> Matrix:
    """Recall of every class (column) and arm (row), less that of the baseline."""
    arms = [baseline, *(arm for arm in counts if arm != baseline)]
    recalls = _rows(np.diagonal(mean_rates(counts[arm]["counts"])) for arm in arms)
    title = f"Recall of each class on {evaluation} less that of {baseline}"
    axes = "gain in recall", "arm", "class"
    grid = Grid(arms[1:], class_names(counts.values()), recalls[1:] - recalls[0])
    return Matrix(title, "Mean over seeds.", {"": grid}, *axes, diverging=True, **look)


def confusion(evaluation: str, counts: Counts, **look: Any) -> Matrix:
    """A grid an arm: of each true class (row), the fraction predicted as each class (column)."""
    names, grids = class_names(counts.values()), {}
    for arm, each in counts.items():
        rates = mean_rates(each["counts"])
        grids[arm] = Grid(names[: len(rates)], names[: len(rates)], rates)
    note = "Predictions for each true class, mean over seeds."
    title, axes = f"Confusion on {evaluation}", ("fraction of the true class", "true", "predicted")
    return Matrix(title, note, grids, *axes, limits=(0.0, 1.0), sparse=True, **look)


def class_names(counts: Collection[Mapping[str, np.ndarray]]) -> list[str]:
    """A name for each output that an evaluation counts: its class, or its number without one.

    A head may have more outputs than its data have classes, or fewer.
    """
    largest = max(counts, key=lambda each: each["counts"].shape[-1])
    size, names = largest["counts"].shape[-1], largest["names"].tolist()
    numbers = [f"output {i}" if names else str(i) for i in range(len(names), size)]
    return [*names, *numbers][:size]


def class_f1(counts: np.ndarray) -> np.ndarray:
    """[seeds, true, predicted] counts -> [classes] F1, mean over the seeds where it is defined."""
    f1 = np.stack([metrics.per_class(seed)["f1"] for seed in counts])
    return np.ma.masked_invalid(f1).mean(axis=0).filled(np.nan)


def mean_rates(counts: np.ndarray) -> np.ndarray:
    """[seeds, true, predicted] counts -> [true, predicted] rates; NaN where a class is absent."""
    counts = np.asarray(counts, np.float64)
    total = counts.sum(axis=-1, keepdims=True)
    rates = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return np.ma.masked_invalid(rates).mean(axis=0).filled(np.nan)


def _rows(values: Iterable[np.ndarray]) -> np.ndarray:
    """[arms, classes], NaN at the end of an arm whose head has fewer classes."""
    return np.array(list(itertools.zip_longest(*values, fillvalue=np.nan))).T
