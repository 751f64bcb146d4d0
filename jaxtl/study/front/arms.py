"""An arm of a run as a value: its numbers as arrays, its gain and verdict, its models."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl.measure.verdict import Estimate, Verdict, estimate
from jaxtl.paths import unknown
from jaxtl.plan import Metric, Model, Params
from jaxtl.report import wording
from jaxtl.report.summary import primary_metric
from jaxtl.study.front.models import Models

if TYPE_CHECKING:
    from jaxtl.export.predictor import Predictor


@dataclasses.dataclass(frozen=True, eq=False)
class Arm:
    """One arm of a run.

    Attributes:
        name: its name.
        seeds: the order of every array.
        metrics: {"<evaluation>/<metric>": [seeds] float64}, NaN where undefined.
        gains: {metric: [seeds]} over the baseline, paired by seed, above 0 where better; of the
            metrics of which somebody says which way they are better. Empty for the baseline.
        verdict: of the primary metric; None for the baseline.
        primary: the metric that decides.
        summary: what summary.json says of it, such as `trainable_parameters`.
        models: of the run; None at a point of a sweep.
    """

    name: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, np.ndarray]
    gains: Mapping[str, np.ndarray]
    verdict: Verdict | None
    primary: Metric
    summary: Mapping[str, Any]
    models: Models | None

    @property
    def values(self) -> np.ndarray:
        """The primary metric, [seeds]."""
        return self.metric(self.primary.key)

    @property
    def gain(self) -> Estimate | None:
        """The gain in the primary metric: mean, deviation and 95% interval; None for a baseline."""
        return estimate(self.gains[self.primary.key]) if self.primary.key in self.gains else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean gain, on which the verdict rests; None for the baseline."""
        return None if self.gain is None else (self.gain.low, self.gain.high)

    def metric(self, key: str) -> np.ndarray:
        """A metric, [seeds].

        Raises:
            ValueError: there is none of that name (with the closest).
        """
        if key not in self.metrics:
            raise ValueError(unknown(f"metric of arm {self.name!r}", key, self.metrics))
        return self.metrics[key]

    def estimate(self, key: str = "") -> Estimate:
        """Mean, standard deviation and 95% interval of a metric, by default the primary one."""
        return estimate(self.metric(key or self.primary.key))

    def load(self, seed: int | None = None, stage: str | None = None) -> "Predictor":
        """The trained model of a seed; see `jaxtl.load`.

        Args:
            seed: None for the first that did not fail.
            stage: None for the last.

        Raises:
            ValueError: as `jaxtl.load`, or this is a point of a sweep.
        """
        if self.models is None:
            raise ValueError(
                f"arm {self.name!r} at a point of a sweep has numbers only; run the experiment "
                "with the point's config for its models"
            )
        return self.models.load(self.name, stage, seed)

    @property
    def model(self) -> Model:
        """That of the last stage."""
        return self.load().model

    @property
    def params(self) -> Params:
        """Trained parameters of the first seed that did not fail; `load(seed)` has the others'."""
        return self.load().params

    def predict(self, rows: Any, seed: int | None = None, **more: Any) -> dict[str, Any]:
        """{"features": [n, features], "logits": {head: [n, size]}} of raw rows.

        Args:
            rows: as the raw dataset holds them.
            seed: None for the first that did not fail.
            more: as `Predictor.predict`: `like`, `raw`.
        """
        return self.load(seed).predict(rows, **more)

    def __repr__(self) -> str:
        text = f"Arm({self.name!r}: {self.primary.key} {_in_words(self.estimate())}"
        if self.gain is None:
            return f"{text}, the baseline)"
        return f"{text}, gain {_in_words(self.gain, signed=True)}, {self.verdict})"


def _in_words(numbers: Estimate, signed: bool = False) -> str:
    ends = None if np.isnan(numbers.low) else [numbers.low, numbers.high]
    mean = None if np.isnan(numbers.mean) else numbers.mean
    return wording.interval({"mean": mean, "ci95": ends}, signed)


class UnknownArm(KeyError):
    """No arm of that name; the message has the closest."""

    def __str__(self) -> str:
        return self.args[0]


class Arms(Mapping[str, Arm]):
    """{name: Arm}, which answers another name with the closest."""

    def __init__(self, summary: Mapping[str, Any], entries: Mapping[str, Any], models: Any = None):
        self._arms = {name: _arm(name, entry, summary, models) for name, entry in entries.items()}

    def __getitem__(self, name: str) -> Arm:
        if name not in self._arms:
            raise UnknownArm(unknown("arm", name, self._arms))
        return self._arms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arms)

    def __len__(self) -> int:
        return len(self._arms)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._arms.values()))

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._arms)


def _arm(name: str, entry: Mapping[str, Any], summary: Mapping[str, Any], models: Any) -> Arm:
    def arrays(of: str) -> dict[str, np.ndarray]:
        return {k: np.array(v["per_seed"], np.float64) for k, v in entry.get(of, {}).items()}

    seeds, primary = tuple(summary["seeds"]), primary_metric(summary)
    verdict = entry.get("verdict")
    return Arm(name, seeds, arrays("metrics"), arrays("gain"), verdict, primary, entry, models)


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """A point of a sweep: the values of the swept fields, and the arms there."""

    config: Mapping[str, Any]
    arms: Arms

    def __getitem__(self, name: str) -> Arm:
        return self.arms[name]

    def __repr__(self) -> str:
        means = (f"{arm.name} {_in_words(arm.estimate())}" for arm in self.arms.values())
        return f"Point({wording.point(self.config)}: {', '.join(means)})"
