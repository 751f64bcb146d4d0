"""What a metric is: whose it is, its name, and which way it is better."""

import dataclasses
from typing import Annotated, Literal

from jaxtl.form import Limit, checked

Direction = Literal["max", "min"]
NO_SLASH = Limit("{} without a slash", lambda value: "/" not in value)
CRITERIA = "criteria"
"""Stands in a criterion's key where a metric's has its evaluation."""


@dataclasses.dataclass(frozen=True)
@checked
class Metric:
    """A number that is measured, and which way it is better; made by `maximize` and `minimize`.

    Attributes:
        evaluation: what stands before the slash of its key; None where there is none.
        name: the evaluation's own name for it, or that of a derived metric or a criterion.
        better: "max" if it is better when larger, "min" if when smaller.
    """

    evaluation: Annotated[str, NO_SLASH] | None
    name: str
    better: Direction

    @classmethod
    def read(cls, key: str, better: Direction) -> "Metric":
        """The metric of a key that was written down, as in summary.json."""
        return cls(*key_parts(key), better)

    @property
    def key(self) -> str:
        """Its name among those of all evaluations: `<evaluation>/<name>`."""
        return self.name if self.evaluation is None else f"{self.evaluation}/{self.name}"

    @property
    def sign(self) -> int:
        """1 or -1: times this, values are better when larger."""
        return 1 if self.better == "max" else -1

    def __repr__(self) -> str:
        names = (self.name,) if self.evaluation is None else (self.evaluation, self.name)
        return f"{self.better}imize({', '.join(map(repr, names))})"


def maximize(*name: str) -> Metric:
    """A metric that is better when larger.

    Args:
        name: evaluation and metric, `maximize("target", "accuracy")`; of a derived metric or a
            criterion its name alone, `maximize("worst")`. A slash parts two names: the derived
            metric `mean/accuracy` is `maximize("mean", "accuracy")`.
    """
    return _named(name, "max")


def minimize(*name: str) -> Metric:
    """A metric that is better when smaller; see `maximize`."""
    return _named(name, "min")


def _named(name: tuple[str, ...], better: Direction) -> Metric:
    if len(name) == 2:
        return Metric(*name, better)
    if len(name) != 1:
        example = Metric("evaluation", "metric", better)
        raise ValueError(f"one name or two, as in {example!r}, not {len(name)}")
    metric = Metric(None, *name, better)
    if (split := Metric.read(metric.key, better)) != metric:
        raise ValueError(f"write {split!r}, two names, not {metric!r}")
    return metric


def key_parts(key: str) -> tuple[str | None, str]:
    """(evaluation, name) of a metric's key; the evaluation is None where it has none."""
    evaluation, _, name = key.partition("/")
    return (evaluation, name) if evaluation and name else (None, key)
