"""What a run leaves for people and programs: summary.json, figures and report.html."""

import logging
import os
from pathlib import Path
from typing import Any

from jaxtl.measure.results import ArmResult, ExperimentResult, reason
from jaxtl.report.summary import load_summary, merge, summarize, write_summary
from jaxtl.report.terminal import print_table

logger = logging.getLogger(__name__)

__all__ = [
    "ArmResult",
    "ExperimentResult",
    "load_summary",
    "print_table",
    "summarize",
    "write",
]


def write(result: ExperimentResult, directory: str | os.PathLike) -> dict[str, Any]:
    """Writes summary.json, figures/*.png and report.html; returns the summary.

    Arms of earlier runs in the same directory stay: their numbers are in its summary, the rest of
    what figures need in `report_data/`. A picture that cannot be drawn is named, with the reason,
    on the page and in a warning; everything else is there.

    Raises:
        ValueError: the summary.json that is already there cannot be read.
    """
    from jaxtl.report import page, storage
    from jaxtl.report.figures.draw import draw

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path, data = directory / "summary.json", directory / "report_data"
    summary = summarize(result)
    if path.exists():
        summary = merge(load_summary(path), summary)
    write_summary(path, summary)  # the numbers first: they are safe whatever a figure does
    failures = {}
    for arm in result.arms.values():
        storage.save(data, arm)
        failures |= {f"{what} of {arm.name}": why for what, why in arm.not_drawn.items()}
    arms = {}
    for name in summary["arms"]:
        if name in result.arms or storage.path_of(data, name).exists():
            try:
                arms[name] = storage.load(data, name)
            except Exception as error:  # a file of an earlier run may hold anything
                failures[f"all of {name}"] = reason(error)
    figures, undrawn = draw(summary, arms, directory / "figures")
    failures |= undrawn
    for picture, why in failures.items():
        logger.warning("could not draw %s: %s", picture, why)
    page.write_report(
        directory / "report.html", summary, figures, result.environment, result.headline, failures
    )
    return summary
