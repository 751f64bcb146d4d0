"""Which figures a run has."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtl.report import by_stage, curves, figures, projection, wording
from jaxtl.report.results import ArmResult, reason
from jaxtl.report.storage import file_stem

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

    def add(section: str, name: str, function: Callable[..., Path], *args: Any) -> None:
        path = folder / f"{name}.png"
        try:
            function(path, *args)
        except Exception as error:
            path.unlink(missing_ok=True)
            failures[name] = reason(error)
            logger.info("%s", name, exc_info=error)
        else:
            drawn.setdefault(section, []).append(path)

    if wording.compared(summary) and summary["baseline"] in summary["arms"]:
        add("gains", "gains", figures.gains, summary)
    if curves.curve_metrics(arms):
        add("curves", "curves", curves.learning_curves, arms, summary["baseline"])
    if any(map(curves.is_adversarial, arms.values())):
        add("adversaries", "adversaries", curves.adversaries, arms, summary["baseline"])
    first = summary["primary"]["metric"].partition("/")[0]
    baseline = summary["baseline"]
    evaluations = dict.fromkeys(name for arm in arms.values() for name in arm.confusion)
    for evaluation in sorted(evaluations, key=lambda name: name != first):
        escaped = file_stem(evaluation)
        add("classes", f"per_class_{escaped}", figures.per_class, evaluation, arms)
        if len(arms) > 1 and evaluation in getattr(arms.get(baseline), "confusion", ()):
            name = f"class_gains_{escaped}"
            add("classes", name, figures.class_gains, evaluation, arms, baseline)
        add("confusion", f"confusion_{escaped}", figures.confusion, evaluation, arms)
    if any(projection.finite_features(arm) for arm in arms.values()):
        add("features", "features", projection.feature_view, arms)
    if any(arm.get("domain_gap") for arm in summary["arms"].values()):
        add("features", "domains", projection.domain_view, arms)
    if any("by_stage" in arm for arm in summary["arms"].values()):
        add("stages", "by_stage", by_stage.matrices, summary)
    if summary.get("sweep"):
        add("sweep", "sweep", figures.sweep, summary)
    return Drawing(drawn, failures)
