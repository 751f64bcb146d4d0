"""What a run trained and measured, one value per seed, before anything is concluded from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl.plan import Analysis, Experiment, Metric, PyTree, Stage

if TYPE_CHECKING:  # a report needs no training
    from jaxtl.measure.evaluate import Measured
    from jaxtl.train.loop import Trained


@dataclasses.dataclass(frozen=True)
class TrainedArm:
    """One arm, all seeds: what analyses look at.

    Attributes:
        name: of the arm.
        experiment: what it is part of.
        trained: {stage: Trained}, of its stages at least; their weights are NumPy arrays, [seeds,
            ...] or [1, ...] where all seeds share them.
        measured: {stage: {evaluation: Measured}}, of the same.
        seeds: the order of every [seeds] axis.
        cuts: {stage: the block up to which its outputs are taken from the feature store, or None};
            for speed alone.
    """

    name: str
    experiment: Experiment
    trained: Mapping[str, Trained]
    measured: Mapping[str, Mapping[str, Measured]]
    seeds: tuple[int, ...]
    cuts: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    @property
    def stages(self) -> Sequence[Stage]:
        """Its chain, in order."""
        return self.experiment.arms[self.name]

    @property
    def last(self) -> Trained:
        """Its last stage."""
        return self.trained[self.stages[-1].name]

    @property
    def at_end(self) -> Mapping[str, Measured]:
        """{evaluation: Measured} after the last stage."""
        return self.measured[self.stages[-1].name]

    @property
    def failures(self) -> dict[int, tuple[str, int]]:
        """{seed: (stage, step) where its loss or gradient was first not finite}."""
        return {
            seed: (stage.name, int(step))
            for stage in reversed(self.stages)
            for seed, step in zip(self.seeds, self.trained[stage.name].failed, strict=True)
            if step
        }

    @property
    def failed(self) -> np.ndarray:
        """[seeds] bool."""
        return np.isin(self.seeds, list(self.failures))


@dataclasses.dataclass(frozen=True)
class ArmResult:
    """What one arm measured, all seeds. Arrays are NumPy, float64 where they hold measurements.

    Attributes:
        name: of the arm.
        stages: names of its stages, in order.
        metrics: {"<evaluation>/<metric>": [seeds]}, NaN where undefined.
        not_finite: {evaluation: [seeds]}, how many examples have an output that is not finite; of
            evaluations where there are any, whose metrics are NaN for that seed.
        failures: {seed: (stage, step) where its loss or gradient was not finite}; its metrics
            are NaN.
        trainable_parameters: trained in the last stage.
        total_parameters: of the model in the last stage.
        train_seconds, steps_per_second: of all stages, all seeds together; None if nothing ran.
        step_memory_mb: device memory that the last stage's steps take, all seeds together.
        analyses: {analysis: what it measured}, as `Analysis.measure` gives it.
        not_computed: {analysis: why it could not be computed}.
    """

    name: str
    stages: tuple[str, ...]
    metrics: Mapping[str, np.ndarray]
    not_finite: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    failures: Mapping[int, tuple[str, int]] = dataclasses.field(default_factory=dict)
    trainable_parameters: int = 0
    total_parameters: int = 0
    train_seconds: float | None = None
    steps_per_second: float | None = None
    step_memory_mb: float | None = None
    analyses: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)
    not_computed: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All arms of an experiment, and how they are compared: what panels are made of.

    Attributes:
        seeds: the order of every [seeds] axis.
        baseline: the arm that gains are measured against; it may come from an earlier run.
        selection: which parameters were evaluated, in words.
        primary: the metric that decides.
        arms: {name: ArmResult}.
        declared: the metrics of which somebody says which way they are better; of one that is
            neither here nor the primary one, no gain is said.
        oracle: whether to show what the best step by the test data would have given.
    """

    seeds: Sequence[int]
    baseline: str
    selection: str
    primary: Metric
    arms: Mapping[str, ArmResult]
    declared: Sequence[Metric] = ()
    oracle: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentResult(Comparison):
    """All arms of one run.

    Attributes:
        experiment: its name.
        config: the experiment's `Config` as a dict.
        analyses: what was asked of every arm, in the order of the report.
        environment: versions, devices, git commit, command: what the report prints.
        headline: first line of the experiment's docstring.
        sweep: ({field: value}, {arm: ArmResult}) of each point of a sweep.
        select: the metric on validation data, or criterion, that picks among these points.
        held_out: the field that names the domain which a point leaves out of training, if one does.
        evaluations: {evaluation: digests of what is measured and of its data}.
        made_from: digest of the experiment, to know its points again.
    """

    experiment: str
    config: Mapping[str, Any]
    analyses: Sequence[Analysis] = ()
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    headline: str = ""
    sweep: Sequence[tuple[Mapping[str, Any], Mapping[str, ArmResult]]] = ()
    select: Metric | None = None
    held_out: str = ""
    evaluations: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    made_from: str = ""


def reason(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
