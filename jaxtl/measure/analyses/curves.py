"""Learning curves: training metrics by step, over the chains of all arms."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.plan import CRITERIA, Analysis, Curve, Line, Panel, key_parts

ADVERSARIAL = ("domain_accuracy", "reversal")
"""What stages with domain classifiers log, for a panel of their own."""
MOST_METRICS = 3

Curves = Mapping[str, Mapping[str, np.ndarray]]
"""{stage: {"step": [t], metric: [t, seeds]}} of an arm, stages in order."""


def learning_curves() -> Analysis:
    """The loss and the metrics that most stages logged, by step."""
    return Analysis("curves", measure, panels)


def measure(arm: TrainedArm) -> Curves:
    return {stage.name: arm.trained[stage.name].curves for stage in arm.stages}


def panels(arms: Mapping[str, Curves], comparison: Comparison) -> dict[str, Panel]:
    count: dict[str, int] = {}
    for curves in {stage: c for arm in arms.values() for stage, c in arm.items()}.values():
        for metric in curves:
            if key_parts(metric)[0] != CRITERIA and metric not in ("step", *ADVERSARIAL):
                count[metric] = count.get(metric, 0) + 1
    metrics = sorted(count, key=lambda metric: (metric != "loss", -count[metric], metric))
    lines = chain_lines(arms, comparison, metrics[:MOST_METRICS])
    note = "Training metrics by step."
    still = [arm for arm in comparison.arms if not any(map(len, arms.get(arm, {}).values()))]
    note += f" No training steps: {', '.join(still)}." if still else ""
    return {"curves": Curve("Learning curves", note, lines, x_label="step")} if lines else {}


def chain_lines(
    arms: Mapping[str, Curves], comparison: Comparison, metrics: Sequence[str]
) -> list[Line]:
    """A line a stage: first stages of chains on the left, on the right what follows, end to end."""
    chains = [comparison.arms[arm].stages for arm in arms]
    first = {stages[0] for stages in chains if len(stages) > 1}
    sources, targets = {}, []
    for arm, stages in zip(arms, chains, strict=True):
        offset = 0
        for stage in stages:
            logged = arms[arm].get(stage, {})
            step = np.asarray(logged.get("step", ()), np.float64)
            if not len(step):
                continue
            if stage in first:
                sources[stage] = lines(stage, step, logged, metrics, "Source stages")
                continue
            targets += lines(arm, step + offset, logged, metrics, "Target stages")
            offset += int(step[-1]) + 1
    return [line for several in sources.values() for line in several] + targets


def lines(
    name: str,
    x: np.ndarray,
    logged: Mapping[str, np.ndarray],
    metrics: Sequence[str],
    column: str,
) -> list[Line]:
    """Those of one stage, at the steps x where something was logged."""
    parts = []
    for metric in metrics:
        if metric in logged and np.isfinite(logged[metric]).any():
            values = np.asarray(logged[metric], np.float64).reshape(x.size, -1)
            rows = ~np.isnan(values).all(axis=1)
            parts.append(Line(name, x[rows], values[rows], metric, column))
    return parts
