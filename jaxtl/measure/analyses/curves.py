"""Learning curves: training metrics by step, over the chains of all arms."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from jaxtl.measure.results import Comparison, TrainedArm
from jaxtl.plan import CRITERIA, Analysis, Curve, Line, Panel, key_parts

ADVERSARIAL = ("domain_accuracy", "reversal")
"""What stages with domain classifiers log, for a panel of their own."""
OF_RULES = re.compile(r"conflicts|cosine(_\d+_\d+)?|weight_\d+")
"""What rules for several losses log, likewise."""
MOST_METRICS = 3

Curves = Mapping[str, Mapping[str, np.ndarray]]
"""{stage: {"step": [t], metric: [t, seeds]}} of an arm, stages in order."""


def learning_curves() -> Analysis:
    """The loss and the metrics that most stages logged, by step."""
    return Analysis("curves", measure, panels)


def measure(arm: TrainedArm) -> Curves:
    return {stage.name: arm.trained[stage.name].curves for stage in arm.stages}


def panels(arms: Mapping[str, Curves], comparison: Comparison) -> dict[str, Panel]:
    stages = {stage: curves for arm in arms.values() for stage, curves in arm.items()}
    count = Counter(metric for curves in stages.values() for metric in curves)
    for metric in list(count):
        elsewhere = key_parts(metric)[0] == CRITERIA or OF_RULES.fullmatch(metric)
        if elsewhere or metric in ("step", *ADVERSARIAL):
            del count[metric]
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
            curves = arms[arm].get(stage, {})
            step = np.asarray(curves.get("step", ()), np.float64)
            if len(step) and stage in first:
                sources[stage] = (stage, "Source stages", step, curves)
            elif len(step):
                targets.append((arm, "Target stages", step + offset, curves))
                offset += int(step[-1]) + 1
    lines = []
    for name, column, x, curves in (*sources.values(), *targets):
        for metric in metrics:
            values = np.asarray(curves.get(metric, np.nan), np.float64)
            if np.isfinite(values).any():
                logged = ~np.isnan(values).all(axis=1)
                lines.append(Line(name, x[logged], values[logged], metric, column))
    return lines
