"""What an analysis is: what it takes down of each arm, and the panels that show it of all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from jaxtl.form import FILE_NAME, checked
from jaxtl.plan.panel import Panel
from jaxtl.plan.update import PyTree


@dataclasses.dataclass(frozen=True)
@checked
class Analysis:
    """A question asked of every trained arm, answered by panels.

    In two steps, as arms of one experiment may be trained in several runs: what was taken down of
    an arm is stored with it, and the panels are made anew of all arms there are. Where one of them
    raises, the report says why, and everything else is there.

    Attributes:
        name: of what it measured in summary.json, of its panel there and of its figure.
        measure: (`jaxtl.measure.TrainedArm`) -> a NumPy array or nested dicts of them, of numbers
            or texts; None where there is nothing to say of the arm.
        panels: ({arm: what was measured}, `jaxtl.measure.Comparison`) -> {name: panel of all arms},
            empty where there is nothing to show. A panel that is alone has the analysis's name.
        in_summary: what was measured stands in the arm's entry of summary.json too, under `name`:
            numbers are [seeds], written with their mean and interval, NaN for a seed that failed.
        in_sweep: with `in_summary`, at every point of a sweep too; False for what takes long.
        check: (`Experiment`) -> what is wrong with it for this analysis, a line each, asked before
            anything trains.
    """

    name: Annotated[str, FILE_NAME]
    measure: Callable[[Any], PyTree | None]
    panels: Callable[[Mapping[str, PyTree], Any], Mapping[str, Panel]] = lambda arms, comparison: {}
    in_summary: bool = False
    in_sweep: bool = True
    check: Callable[[Any], Iterable[str]] = lambda experiment: ()
