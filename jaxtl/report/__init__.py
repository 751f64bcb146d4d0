"""What a run leaves for people and programs: summary.json, figures and report.html."""

import contextlib
import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxtl.files import Damaged, write_text
from jaxtl.measure.results import ArmResult, ExperimentResult, reason
from jaxtl.report.earlier import current, merge
from jaxtl.report.summary import load_summary, summarize, write_summary
from jaxtl.report.terminal import print_table

logger = logging.getLogger(__name__)


def import_ahead() -> threading.Thread:
    """Import what draws while something else computes, as a report waits for it later."""

    def work() -> None:
        with contextlib.suppress(Exception):  # is told when something is to be drawn
            import matplotlib.backends.backend_agg
            import PIL.PngImagePlugin

            import jaxtl.report.figures.draw

    thread = threading.Thread(target=work, name="imports")
    thread.start()
    return thread


def write(
    result: ExperimentResult,
    directory: str | os.PathLike,
    outdated: Callable[[str, Mapping[str, Any]], str] = lambda arm, point: "",
) -> dict[str, Any]:
    """Writes summary.json, figures/*.png and report.html; returns the summary.

    Arms of earlier runs in the same directory stay: their numbers are in its summary, the rest of
    what panels need in `report_data/`. Those that have other seeds, or count no longer, are left
    out, each with a warning. What cannot be computed or drawn is named, with the reason, on the
    page and in a warning; everything else is there.

    Args:
        result: of this run.
        directory: <workdir>/<experiment>.
        outdated: (arm, {field: value} of a point of a sweep, empty for the experiment as it is)
            -> why what an earlier run measured there counts no longer, in words; empty where it
            does. Asked about what `result` does not hold.

    Raises:
        NotRead: the system does not hand out the summary.json that is already there.
    """
    from jaxtl.report import storage, wording
    from jaxtl.report.figures.draw import draw
    from jaxtl.report.page import page
    from jaxtl.report.panels import make_panels, written

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path, data = directory / "summary.json", directory / "report_data"
    summary = summarize(result)
    before = _before(path, data, result)
    if before is not None:
        earlier, lines = current(before, summary, outdated)
        for line in lines:
            logger.warning(line)
        summary = merge(earlier, summary)
    write_summary(path, summary)  # the numbers first: they are safe whatever a figure does
    for name in (before or summary)["arms"].keys() - summary["arms"]:
        storage.path_of(data, name).unlink(missing_ok=True)
    arms, failures = {}, {}
    for name in summary["arms"]:
        if name in result.arms:
            arms[name] = result.arms[name]
            storage.save(data, arms[name])
            failures |= {f"{what} of {name}": w for what, w in arms[name].not_computed.items()}
            continue
        try:
            arms[name] = storage.load(data, name)
        except Exception as error:  # a file of an earlier run may hold anything
            failures[f"all of {name}"] = reason(error)
    for config, point in result.sweep:
        for name, arm in point.items():
            if arm is not result.arms.get(name):  # the experiment itself is a point too
                place = f"{name} at {wording.point(config)}"
                failures |= {f"{what} of {place}": why for what, why in arm.not_computed.items()}
    panels, missing = make_panels(dataclasses.replace(result, arms=arms))
    drawing = draw(summary, panels, directory / "figures")
    failures |= missing | drawing.failures
    for what, why in failures.items():
        logger.warning("could not draw %s: %s", what, why)
    figures = {name: f"figures/{file.name}" for name, file in drawing.figures.items()}
    summary["panels"] = {name: written(each, figures.get(name)) for name, each in panels.items()}
    write_summary(path, summary)
    drawing = drawing._replace(failures=failures)
    text = page(summary, panels, drawing, result.environment, result.headline)
    write_text(directory / "report.html", text)
    return summary


def _before(path: Path, data: Path, result: ExperimentResult) -> dict[str, Any] | None:
    """What an earlier run left in summary.json; None if that is lost, which is said."""
    from jaxtl.report import storage

    try:
        return load_summary(path)
    except FileNotFoundError:
        lost = f"{path} is missing"
    except Damaged as error:
        lost = str(error)
    others = set(data.glob("*.npz")) - {storage.path_of(data, name) for name in result.arms}
    if path.exists() or others:
        names = ", ".join(sorted(other.stem for other in others)) or "none"
        logger.warning(
            "%s; it is made anew of this launch's arms: of others that it held (stored: %s) nobody "
            "can tell whether they still count, so run them again, which trains nothing",
            *(lost, names),
        )
    return None
