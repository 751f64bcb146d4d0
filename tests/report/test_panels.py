"""Panels as they stand in summary.json: small."""

import json

import numpy as np

from jaxtl.plan import Curve, Grid, Line, Matrix, Table
from jaxtl.report.panels import tables, written


def matrix(size):
    names = [str(i) for i in range(size)]
    return Matrix("M", "n", {"a": Grid(names, names, np.eye(size), [(0, 1)])}, "rate", digits=3)


def test_small_matrices_are_whole_and_of_large_ones_the_shape_is_told():
    small = written(matrix(2), "figures/m.png")
    assert small["figure"] == "figures/m.png" and small["kind"] == "matrix"
    assert small["grids"]["a"] == {
        "rows": ["0", "1"], "columns": ["0", "1"], "values": [[1.0, 0.0], [0.0, 1.0]],
        "framed": [[0, 1]],
    }  # fmt: skip
    assert written(matrix(101), None)["grids"]["a"]["values"] == {"shape": [101, 101]}


def test_points_of_curves_are_not_written():
    line = Line("full", np.arange(9.0), np.ones((9, 2)), "loss")
    curve = written(Curve("C", "n", [line], x_label="step"), None)
    assert curve["lines"][0]["values"] == {"shape": [9, 2]} and "figure" not in curve


def test_a_table_reads_back_with_statistics():
    rows = {"full": {"gain": np.array([1.0, np.nan, 3.0]), "kind": "probe", "count": 7, "no": None}}
    table = Table("T", "n", rows, corner="arm", signed=True, printed=True)
    (back,) = tables(json.loads(json.dumps({"panels": {"t": written(table, None)}}))).values()
    assert back.printed and back.signed and back.columns == table.columns
    cells = back.rows["full"]
    assert cells["gain"]["mean"] == 2.0 and cells["gain"]["per_seed"] == [1.0, None, 3.0]
    assert (cells["kind"], cells["count"], cells["no"]) == ("probe", 7, None)
