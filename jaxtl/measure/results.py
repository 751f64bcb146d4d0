"""What a run measured, one value per seed, before anything is concluded from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # plan imports JAX, which a report does not need
    from jaxtl.plan import Metric


@dataclasses.dataclass(frozen=True)
class ArmResult:
    """One arm, all seeds. Arrays are NumPy, float64 where they hold measurements.

    Attributes:
        name: of the arm.
        stages: names of its stages, in order.
        metrics: {"<evaluation>/<metric>": [seeds]}, NaN where undefined.
        forgetting: {metric: [seeds]}, positive when worse at the end than after the source stage.
        by_stage: {stage: {"<evaluation>/<metric>": [seeds]}}, the primary kind of metric after each
            stage of a chain of tasks; empty for other arms.
        own_stages: {evaluation: the stage that teaches its task}, where that is known.
        not_finite: {evaluation: [seeds]}, how many examples have an output that is not finite; of
            evaluations where there are any, whose metrics are NaN for that seed.
        failures: {seed: (stage, step) where its loss or gradient was not finite}; its metrics
            are NaN.
        trainable_parameters: trained in the last stage.
        total_parameters: of the model in the last stage.
        train_seconds, steps_per_second: of all stages, all seeds together; None if nothing ran.
        step_memory_mb: device memory that the last stage's steps take, all seeds together.
        picks: {rule: [seeds]}, the primary metric at the step that each label-free rule picks.
        oracle: [seeds], the primary metric at its own best step; None where it was not looked at.
        domain_gap: {"<evaluation>/a_distance", "<evaluation>/mmd": [seeds]}, distances in the
            features between that evaluation's domain and the primary one.
        curves: {stage: {"step": [t], metric: [t, seeds]}}.
        confusion: {evaluation: [seeds, true class, predicted class]}, counts.
        class_names: {evaluation: names}.
        features: {domain: (features [n, features], labels [n])} of the first seed. The classes of
            a domain that is also an evaluation are named by `class_names`.
        not_drawn: {picture: why what it shows could not be computed}.
    """

    name: str
    stages: tuple[str, ...]
    metrics: Mapping[str, np.ndarray]
    forgetting: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    by_stage: Mapping[str, Mapping[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    own_stages: Mapping[str, str] = dataclasses.field(default_factory=dict)
    not_finite: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    failures: Mapping[int, tuple[str, int]] = dataclasses.field(default_factory=dict)
    trainable_parameters: int = 0
    total_parameters: int = 0
    train_seconds: float | None = None
    steps_per_second: float | None = None
    step_memory_mb: float | None = None
    picks: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    oracle: np.ndarray | None = None
    domain_gap: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Mapping[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    confusion: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    class_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    features: Mapping[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)
    not_drawn: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ExperimentResult:
    """All arms of one run.

    Attributes:
        experiment: its name.
        config: the experiment's `Config` as a dict.
        seeds: the order of every [seeds] axis.
        baseline: the arm that gains are measured against; it may come from an earlier run.
        selection: which parameters were evaluated, in words.
        primary: the metric that decides.
        arms: {name: ArmResult}.
        environment: versions, devices, git commit, command: what the report prints.
        headline: first line of the experiment's docstring.
        sweep: ({field: value}, {arm: ArmResult}) of each point of a sweep.
        select: the metric on validation data, or criterion, that picks among these points.
        oracle: whether to show what the best step by the test data would have given.
        declared: the metrics of which somebody says which way they are better; of one that is
            neither here nor the primary one, no gain is said.
    """

    experiment: str
    config: Mapping[str, Any]
    seeds: Sequence[int]
    baseline: str
    selection: str
    primary: Metric
    arms: Mapping[str, ArmResult]
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    headline: str = ""
    sweep: Sequence[tuple[Mapping[str, Any], Mapping[str, ArmResult]]] = ()
    select: Metric | None = None
    oracle: bool = False
    declared: Sequence[Metric] = ()


def reason(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
