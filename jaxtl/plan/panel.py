"""What a report draws: panels of six kinds, made by analyses, known to it by their kind alone.

A panel holds names and NumPy arrays, nothing drawn and nothing trained. Arrays with a leading axis
of seeds keep it: how to sum up seeds is for who shows them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxtl.form import checked

Cell = np.ndarray | Mapping[str, Any] | float | int | str | None
"""[seeds] of measurements, shown as mean and interval, or these statistics of them as they stand in
summary.json; one number, a text, nothing."""


@dataclasses.dataclass(frozen=True)
@checked
class Panel:
    """What all panels have.

    Attributes:
        title: in a few words.
        note: what is shown and how to read it, in a sentence or two.
        folded: behind a line to click on, as details that few read.
    """

    title: str
    note: str
    folded: bool = dataclasses.field(default=False, kw_only=True)


@dataclasses.dataclass(frozen=True)
@checked
class Table(Panel):
    """Rows of cells under columns.

    Attributes:
        rows: {name: {column: cell}}, most often a row an arm; what is absent is unknown.
        corner: what the rows are.
        signed: the numbers are differences, shown with their sign.
        metric: the key of the metric that the cells are values of; empty where the columns are.
        printed: in the terminal too, without intervals.
    """

    rows: Mapping[str, Mapping[str, Cell]]
    corner: str = "arm"
    signed: bool = False
    metric: str = ""
    printed: bool = False

    @property
    def columns(self) -> list[str]:
        """Columns of all rows, in the order in which they first appear."""
        return list(dict.fromkeys(column for row in self.rows.values() for column in row))


@dataclasses.dataclass(frozen=True)
@checked
class Grid:
    """One heat map.

    Attributes:
        rows, columns: names.
        values: [rows, columns] float, NaN where nothing is known.
        framed: (row, column) of the cells to point out.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray
    framed: Sequence[tuple[int, int]] = ()


@dataclasses.dataclass(frozen=True)
@checked
class Matrix(Panel):
    """Heat maps that share a scale.

    Attributes:
        grids: {name: Grid}, most often one an arm, or one for all.
        quantity: what the values are, beside the scale.
        row, column: what the rows and the columns are.
        limits: of the scale; None for those of the values.
        diverging: 0 is the middle of the scale, above it is better.
        digits: decimals of the numbers in the cells; those of 10 and more have fewer.
        sparse: numbers that round to 0 are left out.
    """

    grids: Mapping[str, Grid]
    quantity: str
    row: str = ""
    column: str = ""
    limits: tuple[float, float] | None = None
    diverging: bool = False
    digits: int = 2
    sparse: bool = False


@dataclasses.dataclass(frozen=True)
@checked
class Line:
    """One line of a curve panel.

    Attributes:
        name: in the legend; lines of one name in one column look the same.
        x: [t] float, ascending.
        values: [t, seeds] float, NaN where nothing was measured.
        quantity: what the values are; the row of axes that the line stands in.
        column: heading of the column of axes that the line stands in.
    """

    name: str
    x: np.ndarray
    values: np.ndarray
    quantity: str
    column: str = ""


@dataclasses.dataclass(frozen=True)
@checked
class Curve(Panel):
    """Lines over a common axis, a row of axes for each quantity.

    Attributes:
        lines: in the order of the legend.
        x_label: what is along the axis.
        log_x: on a logarithmic axis.
        limits: of the values; None for those of the lines, logarithmic where most of them fall far.
    """

    lines: Sequence[Line]
    x_label: str
    log_x: bool = False
    limits: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
@checked
class Cloud:
    """Points of one kind.

    Attributes:
        name: of the kind, such as a domain; clouds of one name share a marker.
        points: [n, 2] float.
        labels: [n], names that decide the colours (empty: hidden), or floats for a scale of
            colours; None colours the cloud by its name.
        joined: the points, in their order, are the corners of a line, which is all that is drawn.
    """

    name: str
    points: np.ndarray
    labels: np.ndarray | None = None
    joined: bool = False


@dataclasses.dataclass(frozen=True)
@checked
class Scatter(Panel):
    """Points in the plane.

    Attributes:
        clouds: {name of the axes, most often an arm: clouds}.
        axes: {the same name: (x label, y label)}.
        equal: one unit is as long on both axes, and the numbers on them mean nothing.
    """

    clouds: Mapping[str, Sequence[Cloud]]
    axes: Mapping[str, tuple[str, str]]
    equal: bool = False


@dataclasses.dataclass(frozen=True)
@checked
class Images(Panel):
    """Pictures in a table.

    Attributes:
        images: {row: {column: [height, width] or [height, width, 3] float in [0, 1]}}.
    """

    images: Mapping[str, Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
@checked
class Texts(Panel):
    """Passages with a value for each of their pieces.

    Attributes:
        texts: {name: [(piece, value in [-1, 1])]}, as words with their share in a prediction.
    """

    texts: Mapping[str, Sequence[tuple[str, float]]]


Kind = Literal["table", "matrix", "curve", "scatter", "images", "texts"]


def kind(panel: Panel) -> Kind:
    """The kind of a panel, as it stands in summary.json."""
    return type(panel).__name__.lower()
