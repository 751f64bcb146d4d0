"""What a run gives: its arms, panels and models; and how a terminal and a notebook show it."""

import functools
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtl.files import read_json
from jaxtl.measure.outcome import asked
from jaxtl.measure.results import ArmResult, ExperimentResult
from jaxtl.plan import Metric, Panel
from jaxtl.report import print_table, storage, wording
from jaxtl.report.page import fragment
from jaxtl.report.panels import make_panels
from jaxtl.report.summary import primary_metric
from jaxtl.study.front.arms import Arm, Arms, Point
from jaxtl.study.front.models import Models

if TYPE_CHECKING:
    import pandas

    from jaxtl.export.predictor import Predictor

TEXT_WIDTH = 100
"""Letters of a line where nobody says how wide the screen is."""


class Result(Arms):
    """The outcome of a run: a mapping of its arms, and how it is shown.

    Attributes:
        summary: the content of summary.json.
        directory: `<workdir>/<experiment>`, absolute.
        models: of the run, read when they are asked for.
    """

    def __init__(self, summary: Mapping[str, Any], directory: Path, models: Models):
        super().__init__(summary, summary["arms"], models)
        self.summary, self.directory, self.models = summary, directory.absolute(), models

    __hash__ = object.__hash__
    __eq__ = object.__eq__

    @property
    def report(self) -> Path:
        """The page, to open in a browser."""
        return self.directory / "report.html"

    @property
    def arms(self) -> Arms:
        """The same as a mapping of its own."""
        return Arms(self.summary, self.summary["arms"], self.models)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.summary["seeds"])

    @property
    def baseline(self) -> str:
        """The name of the arm that gains are measured against."""
        return self.summary["baseline"]

    @property
    def primary(self) -> Metric:
        """The metric that decides."""
        return primary_metric(self.summary)

    @property
    def answer(self) -> str:
        """Did the transfer help? In a line."""
        return wording.answer(self.summary)

    @property
    def points(self) -> Sequence[Point]:
        """Of a sweep, in its order; none where there was none."""
        sweep = self.summary.get("sweep", ())
        return [Point(each["config"], Arms(self.summary, each["arms"])) for each in sweep]

    @property
    def held_out(self) -> dict[str, Arms]:
        """{rule of selection: arms, measured by the mean over the domains that were held out}.

        The first rule is the one to go by; empty unless a sweep held out several domains.
        """
        rules = self.summary.get("held_out", {}).get("rules", {})
        return {rule: Arms(self.summary, arms) for rule, arms in rules.items()}

    @property
    def figures(self) -> dict[str, Path]:
        """{name: PNG file} of what the report shows."""
        return {path.stem: path for path in sorted((self.directory / "figures").glob("*.png"))}

    @functools.cached_property
    def panels(self) -> dict[str, Panel]:
        """{name: panel} of the report, with their arrays; needs the experiment, as models do.

        Raises:
            ValueError: the experiment is not to be found, or a stored arm cannot be read.
        """
        saved, data = self.models.saved, self.directory / "report_data"
        arms: dict[str, ArmResult] = {name: storage.load(data, name) for name in self}
        result = ExperimentResult(
            experiment=self.summary["experiment"],
            config=self.summary["config"],
            seeds=self.seeds,
            baseline=self.baseline,
            selection=self.summary["selection"],
            primary=self.primary,
            arms=arms,
            analyses=asked(saved.experiment),
            declared=[Metric.read(*pair) for pair in self.summary["directions"].items()],
            oracle="oracle" in self.summary,
        )
        return make_panels(result)[0]

    def load(
        self, arm: str | None = None, stage: str | None = None, seed: int | None = None
    ) -> "Predictor":
        """A trained model; see `jaxtl.load`. By default of the best arm."""
        return self.models.load(arm, stage, seed)

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each arm, metric and seed, of each point of a sweep too.

        Columns: a swept field each (missing in the rows of the experiment as it is), `arm`,
        `metric`, `seed`, `value`, `gain` over the baseline (missing for it, and where nobody says
        which way the metric is better).

        Raises:
            ValueError: pandas is not installed.
        """
        fields = dict.fromkeys(field for point in self.points for field in point.config)
        rows = [
            {**dict.fromkeys(fields), **config, **row}
            for config, arms in [({}, self), *((point.config, point.arms) for point in self.points)]
            for arm in arms.values()
            for row in _rows(arm)
        ]
        columns = [*fields, "arm", "metric", "seed", "value", "gain"]
        return frame_of(rows, columns)

    def __repr__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        console = Console(file=text, width=width(), color_system=None, force_jupyter=False)
        print_table(self.summary, console)
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        return "\n".join([*lines, "", f"report: {self.report}"])

    def _repr_html_(self) -> str:
        record = read_json(self.directory / "environment.json", {}, "run it again") or {}
        return fragment(self.summary, self.figures, record, self.report)


def _rows(arm: Arm) -> Iterator[dict[str, Any]]:
    for key, values in arm.metrics.items():
        gains = arm.gains.get(key, np.full(values.shape, np.nan))
        for seed, value, gain in zip(arm.seeds, values, gains, strict=True):
            yield {"arm": arm.name, "metric": key, "seed": seed, "value": value, "gain": gain}


def width() -> int:
    """Letters of a line where a value is shown as text."""
    try:
        return os.get_terminal_size().columns
    except OSError:
        return TEXT_WIDTH


def frame_of(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> "pandas.DataFrame":
    """Rows as a data frame.

    Args:
        rows: {column: value}.
        columns: in order; None for those of the rows.

    Raises:
        ValueError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ValueError("to_frame needs the package pandas: pip install 'jaxtl[frame]'") from error
    return pandas.DataFrame(rows, columns=columns)
