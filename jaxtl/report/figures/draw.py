"""Which pictures a run has: one of each panel that is drawn, and those of the summary."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtl.measure.results import reason
from jaxtl.plan.panel import Curve, Images, Matrix, Panel, Scatter
from jaxtl.report import sweeps, wording
from jaxtl.report.figures.curve import curve
from jaxtl.report.figures.gains import gains
from jaxtl.report.figures.images import images
from jaxtl.report.figures.matrix import matrix
from jaxtl.report.figures.scatter import scatter
from jaxtl.report.figures.sweep import sweep
from jaxtl.report.storage import file_stem

logger = logging.getLogger(__name__)


class Drawing(NamedTuple):
    """What was drawn.

    Attributes:
        figures: {name: PNG file}, `gains`, the panels' names, those of the sweep's points.
        failures: {name: why there is none}.
    """

    figures: Mapping[str, Path]
    failures: Mapping[str, str]


def draw(
    summary: Mapping[str, Any], panels: Mapping[str, Panel], folder: str | os.PathLike
) -> Drawing:
    """Draws all pictures that the data allow into `folder`, and removes those of earlier runs.

    A picture that cannot be drawn, for whatever reason, leaves the others alone: the training that
    they show has ended.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    figures, failures = {}, {}
    for name, (function, *arguments) in _pictures(summary, panels).items():
        try:
            figures[name] = function(folder / f"{file_stem(name)}.png", *arguments)
        except Exception as error:
            failures[name] = reason(error)
            logger.info("%s", name, exc_info=error)
    return Drawing(figures, failures)


def _pictures(
    summary: Mapping[str, Any], panels: Mapping[str, Panel]
) -> dict[str, tuple[Callable[..., Path], Any]]:
    """{name: (function that draws it, its arguments)}."""
    arms, baseline = summary["arms"], summary["baseline"]
    pictures = {}
    if wording.compared(summary) and baseline in arms:
        pictures["gains"] = gains, summary
    for name, panel in panels.items():
        if isinstance(panel, Curve):
            pictures[name] = curve, panel, list(arms), baseline
        for kind, function in ((Matrix, matrix), (Scatter, scatter), (Images, images)):
            if isinstance(panel, kind):
                pictures[name] = function, panel
    for points in sweeps.points_of(summary):
        grids = sweeps.matrices(summary, points)
        pictures |= {name: (matrix, panel) for name, panel in grids.items()}
        if len(points.axes) < 2:
            pictures[points.name] = sweep, summary, points
    return pictures
