"""Which figures a run has."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtl.measure.results import ArmResult, reason
from jaxtl.report import wording
from jaxtl.report.figures import curves, features, gains, heatmaps
from jaxtl.report.storage import file_stem
from jaxtl.report.summary import primary_metric

logger = logging.getLogger(__name__)


class Drawing(NamedTuple):
    """What was drawn.

    Attributes:
        figures: {section of the report: PNG files}; a section without figures is absent.
        failures: {picture: why there is none}.
    """

    figures: dict[str, list[Path]]
    failures: dict[str, str]


def draw(
    summary: Mapping[str, Any], arms: Mapping[str, ArmResult], folder: str | os.PathLike
) -> Drawing:
    """Draws all figures that the data allow into `folder`, and removes those of earlier runs.

    A figure that cannot be drawn, for whatever reason, leaves the others alone: the training that
    they show has ended.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    drawn, failures = {}, {}

    def add(
        section: str,
        name: str,
        wanted: Callable[[], bool],
        function: Callable[..., Path],
        *args: Any,
    ) -> None:
        try:
            if wanted():
                drawn.setdefault(section, []).append(function(folder / f"{name}.png", *args))
        except Exception as error:
            failures[name] = reason(error)
            logger.info("%s", name, exc_info=error)

    baseline, entries = summary["baseline"], summary["arms"].values()

    def compared() -> bool:
        return bool(wording.compared(summary)) and baseline in summary["arms"]

    def featured() -> bool:
        return any(map(features.finite_features, arms.values()))

    def logged() -> bool:
        return bool(curves.curve_metrics(arms))

    def adversarial() -> bool:
        return any(map(curves.is_adversarial, arms.values()))

    add("gains", "gains", compared, gains.gains, summary)
    add("curves", "curves", logged, curves.learning_curves, arms, baseline)
    add("adversaries", "adversaries", adversarial, curves.adversaries, arms, baseline)
    first = primary_metric(summary).evaluation
    evaluations = dict.fromkeys(name for arm in arms.values() for name in arm.confusion)
    for evaluation in sorted(evaluations, key=lambda name: name != first):
        stem, both = file_stem(evaluation), (evaluation, arms)

        def paired(name: str = evaluation) -> bool:
            return len(arms) > 1 and name in getattr(arms.get(baseline), "confusion", ())

        add("classes", f"per_class_{stem}", always, gains.per_class, *both)
        add("classes", f"class_gains_{stem}", paired, gains.class_gains, *both, baseline)
        add("confusion", f"confusion_{stem}", always, gains.confusion, *both)
    add("features", "features", featured, features.feature_view, arms)
    gap, stages = (any(key in arm for arm in entries) for key in ("domain_gap", "by_stage"))
    add("features", "domains", lambda: gap, features.domain_view, arms)
    add("stages", "by_stage", lambda: stages, heatmaps.matrices, summary)
    add("sweep", "sweep", lambda: bool(summary.get("sweep")), gains.sweep, summary)
    return Drawing(drawn, failures)


def always() -> bool:
    return True
