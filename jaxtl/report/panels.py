"""The panels of a run: made of all its arms by the analyses, and as they stand in summary.json."""

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxtl.measure.results import ExperimentResult, reason
from jaxtl.plan import Matrix, Panel, Table
from jaxtl.plan.panel import kind
from jaxtl.report.summary import plain, statistics

LARGEST = 10_000
"""Cells of a matrix that are written whole into summary.json."""

PICTURES = re.compile(r"gains|sweep(_\d+)?(_gain)?")
"""Names of what is drawn of the summary itself."""

logger = logging.getLogger(__name__)


def make_panels(result: ExperimentResult) -> tuple[dict[str, Panel], dict[str, str]]:
    """({name: panel}, {analysis: why it has none}), in the order of the analyses."""
    panels: dict[str, Panel] = {}
    failures = {}
    for analysis in result.analyses:
        measured = {
            name: arm.analyses[analysis.name]
            for name, arm in result.arms.items()
            if analysis.name in arm.analyses
        }
        try:
            made = analysis.panels(measured, result) if measured else {}
            for name, panel in made.items():
                if not isinstance(panel, Panel):
                    raise ValueError(f"{name!r} must be a panel such as plan.Table, got {panel!r}")
                if name in panels or PICTURES.fullmatch(name):
                    raise ValueError(f"another panel of the report is called {name!r} too")
                written(panel, None)  # raises where a cell cannot be summed up
            panels |= made
        except Exception as error:
            failures[analysis.name] = reason(error)
            logger.info("panels of %s", analysis.name, exc_info=error)
    return panels, failures


def written(panel: Panel, figure: str | None) -> dict[str, Any]:
    """A panel in JSON types: tables and matrices whole, of other arrays their shapes.

    Args:
        panel: any.
        figure: its file, relative to summary.json; None if it has none.
    """
    array: Callable[[np.ndarray], Any] = _shape
    if isinstance(panel, Table):
        array = statistics
    elif isinstance(panel, Matrix):
        whole = sum(grid.values.size for grid in panel.grids.values()) <= LARGEST
        array = plain if whole else _shape
    content = {"kind": kind(panel), **_written(panel, array)}
    return content | ({"figure": figure} if figure else {})


def tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """{name: table} of a summary's panels; what was measured are statistics."""
    written = summary.get("panels", {})
    return {
        name: Table(**{key: value for key, value in panel.items() if key != "kind"})
        for name, panel in written.items()
        if panel["kind"] == "table"
    }


def _written(value: Any, array: Callable[[np.ndarray], Any]) -> Any:
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _written(part, array) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_written(part, array) for part in value]
    return array(value) if isinstance(value, np.ndarray) else plain(value)


def _shape(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape)}
