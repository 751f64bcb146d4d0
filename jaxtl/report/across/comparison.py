"""Several runs side by side as values, and in sentences."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtl.measure.verdict import FEWEST_VALUES
from jaxtl.plan import Metric
from jaxtl.report import wording
from jaxtl.report.tables import Cell, TextTable

HOW = (
    "Intervals are 95% Student-t intervals over seeds. A difference is paired by seed where both "
    f"runs have the same seeds, or at least {FEWEST_VALUES} in common: it is that of the common "
    "seeds. Otherwise it is that of the two means over all seeds of each, with Welch's t interval, "
    "which takes seeds of different runs as independent. The verdict is the side of 0 on which "
    "the whole interval lies; it is undecided below three distinct differences, or, unpaired, "
    "below three seeds of either run or three distinct values. Intervals are not corrected for the "
    "number of comparisons."
)
"""How differences are computed, for the page."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the runs.

    Attributes:
        label: what it is called here, the end of its directory's path.
        directory, experiment, seeds, selection, command: of the run.
        config: the fields that differ between the runs.
    """

    label: str
    directory: str
    experiment: str
    seeds: Sequence[int]
    selection: str
    command: str
    config: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """An arm of a run.

    Attributes:
        run: label of its run.
        arm: its name.
        measured: statistics of the primary metric.
        gain: of its gain over the baseline of its own run, None for that.
        gain_verdict: of that.
        against: (run, arm) that it is compared with; None if with nothing.
        difference: statistics of what it is better by, above 0 whatever the metric's direction;
            `per_seed` is that of the common seeds and empty where nothing is paired.
        how: how the difference was computed, `paired, 5 seeds` or `Welch, 5 and 3 seeds`.
        verdict: of the difference.
        doubt: why it is undecided, as far as that can be said.
        not_finite: seeds that are left out for want of a finite value.
    """

    run: str
    arm: str
    measured: Mapping[str, Any]
    gain: Mapping[str, Any] | None = None
    gain_verdict: str | None = None
    against: tuple[str, str] | None = None
    difference: Mapping[str, Any] | None = None
    how: str = ""
    verdict: str | None = None
    doubt: str = ""
    not_finite: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class Facts:
    """Several runs side by side.

    Attributes:
        metric: the primary one, of all.
        sides: the runs; the others are compared with the first one.
        rows: arm by arm, and in each of them run by run.
        against: the arm of the first run that all are compared with; None where each is with the
            one of its name.
        despite: {kind of difference that was named: the lines of it}.
        notes: {label of a run: what else one should know of it}.
    """

    metric: Metric
    sides: Sequence[Side]
    rows: Sequence[Row]
    against: str | None = None
    despite: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    @property
    def first(self) -> str:
        return self.sides[0].label

    @property
    def reference(self) -> str:
        """What the others are compared with, in words."""
        return self.first if self.against is None else f"{self.against} of {self.first}"


def caption(facts: Facts) -> str:
    """What the table of arms is."""
    better = "high" if facts.metric.better == "max" else "low"
    each = "each arm with that of its name in " if facts.against is None else "all with "
    return (
        f"{facts.metric.key} (better {better}), mean [95% interval] over seeds; "
        f"{each}{facts.reference}"
    )


def of_rows(facts: Facts) -> TextTable:
    """A row an arm and run: the metric, the gain in its own run, the difference and its verdict."""
    key, rows = facts.metric.key, []
    limits = wording.limits(key)
    for row in facts.rows:
        reference = row.verdict is None and row.run == facts.first
        unmatched = row.verdict is None and not reference
        verdict = row.verdict or ("reference" if reference else "not compared")
        gain = Cell(wording.NOTHING)
        if row.gain is not None:
            gain = _interval(row.gain, row.gain_verdict or "")
        difference = Cell(wording.NOTHING)
        if row.difference is not None and not unmatched:
            difference = _interval(row.difference, "")
            difference = dataclasses.replace(difference, details=[*difference.details, row.how])
        rows.append(
            [
                Cell(row.arm, look="name"),
                Cell(row.run),
                _measured(row.measured, limits),
                difference,
                Cell(verdict, look=row.verdict or "baseline"),
                gain,
            ]
        )
    head = ["arm", "run", key, f"better than {facts.reference} by", "verdict", "gain in its run"]
    return TextTable(head, rows, caption(facts), [0, 0, 0, 0, 0, 1], stub=2)


def of_sides(facts: Facts) -> TextTable:
    """A row a run: what it is of, and where it lies."""
    rows = [
        [
            Cell(side.label, look="name"),
            Cell(side.experiment),
            Cell(", ".join(map(str, side.seeds))),
            Cell(wording.point(side.config) or wording.NOTHING),
            Cell(side.selection),
            Cell(side.directory, look="code"),
        ]
        for side in facts.sides
    ]
    head = ["run", "experiment", "seeds", "config that differs", "selection", "directory"]
    return TextTable(head, rows, "", [0, 2, 0, 0, 3, 1])


def answers(facts: Facts) -> list[str]:
    """For each run but the first: which of its arms are better, worse, undecided."""
    lines = []
    for side in facts.sides:
        rows = [row for row in facts.rows if row.run == side.label]
        compared = [row for row in rows if row.verdict]
        missing = [row.arm for row in rows if not row.verdict]
        if not compared and side.label == facts.first:
            continue
        parts = []
        for outcome, text in (
            ("positive", "better: {}"),
            ("negative", "worse: {}"),
            ("undecided", "undecided: {}"),
        ):
            names = [row.arm for row in compared if row.verdict == outcome]
            if names:
                parts.append(text.format(wording.enumeration(names)))
        if missing and side.label != facts.first:
            text = f"not compared, as {facts.first} has no such arm: {wording.enumeration(missing)}"
            parts.append(text)
        lines.append(f"{side.label} against {facts.reference}: {'; '.join(parts)}.")
    return lines


def sentences(facts: Facts, most: int | None = None) -> list[tuple[str, str]]:
    """(verdict, sentence) of each arm that is compared.

    Args:
        most: of more than so many only those that are decided; None for all.
    """
    rows = [row for row in facts.rows if row.verdict]
    if most is not None and len(rows) > most:
        rows = [row for row in rows if row.verdict != "undecided"]
    return [(row.verdict, _sentence(facts, row)) for row in rows]


def _sentence(facts: Facts, row: Row) -> str:
    place, arm = row.against
    counterpart = place if arm == row.arm and place != row.run else f"{arm} of {place}"
    text = f"{row.arm} of {row.run}: {row.verdict}, {change(facts.metric, row, counterpart)}"
    if row.doubt:
        text += f": {row.doubt}"
    if row.not_finite:
        text += f"; left out for want of a finite value: {wording.seed_names(row.not_finite)}"
    return f"{text}."


def change(metric: Metric, row: Row, counterpart: str) -> str:
    """`+0.020 [0.010, 0.030] target/accuracy over runs/a (paired, 5 seeds)`."""
    difference = row.difference
    if difference["mean"] is None:
        return f"nothing to compare with {counterpart}"
    if metric.better == "max":
        text = f"{wording.interval(difference, signed=True)} {metric.key} over {counterpart}"
    elif difference["mean"] >= 0:
        text = f"{metric.key} lower by {wording.interval(difference)} than {counterpart}"
    else:
        ends = difference["ci95"] and [-difference["ci95"][1], -difference["ci95"][0]]
        amount = wording.interval({"mean": -difference["mean"], "ci95": ends})
        text = f"{metric.key} higher by {amount} than {counterpart}"
    return f"{text} ({row.how})"


def cautions(facts: Facts) -> list[str]:
    """What differs though it was to be compared, and what else one should know, a line each."""
    lines = [
        f"compared although the {kind} differ{'s' if kind in ('selection', 'evaluation') else ''} "
        f"(--despite={kind}): {line}"
        for kind, items in facts.despite.items()
        for line in items
    ]
    return lines + [f"{label}: {line}" for label, items in facts.notes.items() for line in items]


def _measured(statistics: Mapping[str, Any], limits: tuple[float, float] | None) -> Cell:
    text, _, ends = wording.interval(statistics, limits=limits).partition(" ")
    return Cell(text, [ends] if ends else [])


def _interval(statistics: Mapping[str, Any], look: str) -> Cell:
    text, _, ends = wording.interval(statistics, signed=True).partition(" ")
    return Cell(text, [ends] if ends else [], look)
