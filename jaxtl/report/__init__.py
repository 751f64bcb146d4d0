"""What a run leaves for people and programs: summary.json, figures and report.html."""

import os
from pathlib import Path
from typing import Any

from jaxtl.report.results import ArmResult, ExperimentResult
from jaxtl.report.summary import load_summary, merge, summarize, write_summary
from jaxtl.report.table import print_table

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
    what figures need in `report_data/`.

    Raises:
        ValueError: the summary.json that is already there cannot be read.
    """
    from jaxtl.report import drawing, html, storage

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path, data = directory / "summary.json", directory / "report_data"
    summary = summarize(result)
    if path.exists():
        summary = merge(load_summary(path), summary)
    write_summary(path, summary)  # the numbers first: they are safe whatever a figure does
    for arm in result.arms.values():
        storage.save(data, arm)
    arms = {
        name: storage.load(data, name)
        for name in summary["arms"]
        if storage.path_of(data, name).exists()
    }
    figures = drawing.draw(summary, arms, directory / "figures")
    html.write_report(
        directory / "report.html", summary, figures, result.environment, result.headline
    )
    return summary
