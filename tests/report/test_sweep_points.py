"""The points of a sweep: one table, lines over one field, heat maps over two, at any width."""

import dataclasses
import io
import itertools
import re

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from jaxtl.measure.results import ArmResult
from jaxtl.plan import maximize, minimize
from jaxtl.report import sweeps, tables
from jaxtl.report.earlier import merge
from jaxtl.report.figures.draw import Drawing, _pictures, draw
from jaxtl.report.figures.matrix import _number
from jaxtl.report.page import page
from jaxtl.report.summary import summarize
from jaxtl.report.terminal import print_table

KEY = "t/accuracy"
AT_MOST_3 = [0.001, 0.0, -0.001]


def arm_at(name, mean, **changes):
    """An arm with a mean of the metric over three seeds."""
    metrics = {KEY: mean + np.array(AT_MOST_3), "val/accuracy": mean - np.array(AT_MOST_3)}
    return ArmResult(name, (name,), metrics, **changes)


@pytest.fixture
def swept_over(make):
    """`swept_over({field: values}, worth, arms)` -> result, worth(number of the arm, *values)."""

    def sweep(axes, worth, arms=("scratch", "full"), config=(), leave_out=(), **changes):
        points = [
            (
                dict(zip(axes, values, strict=True)),
                {name: arm_at(name, worth(i, *values)) for i, name in enumerate(arms)},
            )
            for values in itertools.product(*axes.values())
            if values not in leave_out
        ]
        own = {name: arm_at(name, 0.5) for name in arms}
        config = {field: values[0] for field, values in axes.items()} | dict(config)
        own = next((each for fields, each in points if fields.items() <= config.items()), own)
        return make(
            (0, 1, 2),
            arms=own,
            baseline=arms[0],
            primary=maximize("t", "accuracy"),
            sweep=points,
            config=config,
            analyses=[],
            **changes,
        )

    return sweep


def printed(summary, width):
    file = io.StringIO()
    print_table(summary, Console(file=file, width=width))
    return file.getvalue()


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_a_table_has_the_numbers_of_the_summary(swept):
    summary = summarize(dataclasses.replace(swept, config={"target_weight": 1.0}))
    (points,) = sweeps.points_of(summary)
    table = tables.of_points(summary, points)
    assert table.head == ["target_weight", "scratch", "full"]
    assert [row[0] for row in texts(table)] == ["0.1", "1.0 (as it is)", "10.0"]
    for row, point in zip(table.rows, summary["sweep"], strict=True):
        for cell, name in zip(row[1:], ("scratch", "full"), strict=True):
            arm = point["arms"][name]
            measured = arm["metrics"]["target/accuracy"]
            assert cell.text == f"{measured['mean']:.3f}"
            low, high = measured["ci95"]
            assert cell.details[0] == f"[{low:.3f}, {high:.3f}]"
            assert cell.look == (arm["verdict"] or "")
        gain = point["arms"]["full"]["gain"]["target/accuracy"]["mean"]
        mark = "?" if point["arms"]["full"]["verdict"] == "undecided" else ""
        assert row[2].details[1:] == [f"{gain:+.3f}{mark}"] and len(row[1].details) == 1


def test_the_baseline_comes_first_and_what_is_missing_stays_empty(swept_over):
    result = swept_over({"x": [1, 2]}, lambda i, x: 0.5 + 0.1 * i * x, config={"x": 7})
    first, second = result.sweep
    nothing = arm_at("full", np.nan, failures=dict.fromkeys(range(3), ("full", 3)))
    part = arm_at("dann", 0.5)
    part.metrics[KEY][1] = np.nan
    sweep = [
        (first[0], {"full": nothing, "dann": part, **{"scratch": first[1]["scratch"]}}),
        (second[0], dict(reversed(second[1].items()))),
    ]
    summary = summarize(dataclasses.replace(result, sweep=sweep))
    (points,) = sweeps.points_of(summary)
    table = tables.of_points(summary, points)
    assert table.head == ["x", "scratch", "full", "dann"]
    assert texts(table) == [["1", "0.500", "-", "0.500"], ["2", "0.500", "0.700", ""]]
    assert table.rows[0][2].details == ["0 of 3 seeds"]
    assert table.rows[0][3].details[-1] == "2 of 3 seeds"
    assert texts(tables.of_points(summary, points, brief=True)) == [
        ["1", "0.500", "-", "0.500?"],
        ["2", "0.500", "0.700?", ""],  # the same gain in all seeds
    ]


def test_which_is_which_is_said_above_the_arms(swept_over):
    worth = lambda i, x: 0.5 + 0.1 * i * x  # noqa: E731
    among = summarize(swept_over({"a.x": [0.5, 1.0]}, worth, config={"a": {"x": 1.0}}))
    apart = summarize(swept_over({"x": [0.5, 1.0]}, worth, config={"x": 0.9}))
    assert "digits as it is (a.x=1.0, a point of the sweep): mean" in printed(among, 160)
    assert "1.0 (as it is)" in printed(among, 160)
    text = printed(apart, 160)
    assert "digits as it is (x=0.9, no point of the sweep): mean" in text
    assert "(as it is)" not in text and "Did the transfer help at x=0.9? Undecided" in text


def grid_of(summary, name):
    (points,) = sweeps.points_of(summary)
    return sweeps.matrices(summary, points)[name]


def test_two_fields_are_a_matrix_with_the_right_cells(swept_over):
    axes = {"rate": [1e-2, 1e-4, 1e-3], "kind": ["sgd", "adam"], "steps": [20]}
    value = {"sgd": 0.1, "adam": 0.2}
    worth = lambda i, rate, kind, steps: 0.3 + i * value[kind] + rate  # noqa: E731
    result = swept_over(axes, worth, leave_out=[(1e-4, "adam", 20)])
    summary = summarize(result)
    (points,) = sweeps.points_of(summary)
    assert points.axes == {"rate": [1e-4, 1e-3, 1e-2], "kind": ["sgd", "adam"]}
    metric, gain = (grid_of(summary, name) for name in ("sweep", "sweep_gain"))
    assert list(metric.grids) == ["scratch", "full"] and list(gain.grids) == ["full"]
    grid = metric.grids["full"]
    assert (grid.rows, grid.columns) == (["0.0001", "0.001", "0.01"], ["sgd", "adam"])
    expected = [[0.4001, np.nan], [0.401, 0.501], [0.41, 0.51]]
    np.testing.assert_allclose(grid.values, expected)
    assert grid.framed == [(2, 0)]  # the experiment as it is
    np.testing.assert_allclose(gain.grids["full"].values, [[0.1, np.nan], [0.1, 0.2], [0.1, 0.2]])
    assert gain.grids["full"].framed == []  # the same gain in all seeds decides nothing
    assert metric.title.endswith(
        "at steps=20: mean t/accuracy, higher is better (framed: the experiment as it is)"
    )
    apart = grid_of(summarize(dataclasses.replace(result, config={"rate": 7.0})), "sweep")
    assert apart.title.endswith("higher is better") and apart.grids["full"].framed == []
    assert texts(tables.of_grids(summary, points)[1]) == [
        ["0.0001", "0.400?", ""],
        ["0.001", "0.401?", "0.501?"],
        ["0.01", "0.410?", "0.510?"],
    ]


def test_three_fields_are_small_multiples_and_many_of_them_a_table(swept_over):
    axes = {"a": [1, 2], "b": [1, 2], "c": [0.5, 0.25]}
    summary = summarize(swept_over(axes, lambda i, a, b, c: 0.1 * a + 0.01 * b + 0.1 * i * c))
    grids = grid_of(summary, "sweep").grids
    assert list(grids) == [f"{arm}, c={c}" for arm in ("scratch", "full") for c in (0.25, 0.5)]
    np.testing.assert_allclose(grids["full, c=0.5"].values, [[0.16, 0.17], [0.26, 0.27]])
    arms = [f"arm {i}" for i in range(20)]
    many = summarize(swept_over(axes, lambda i, *values: 0.5, arms))
    (points,) = sweeps.points_of(many)
    assert sweeps.matrices(many, points) == {}
    assert len(tables.of_points(many, points).rows) == 8


def test_a_star_is_where_validation_picks(swept_over):
    axes = {"a": [1, 2], "b": [1, 2]}
    select = maximize("val", "accuracy")
    result = swept_over(axes, lambda i, a, b: 0.1 * a + 0.01 * b * (1 - 2 * i), select=select)
    summary = summarize(result)
    grids = grid_of(summary, "sweep").grids
    assert (grids["scratch"].framed, grids["full"].framed) == ([(1, 1)], [(1, 0)])
    (points,) = sweeps.points_of(summary)
    stars = [
        [text.endswith("*") for text in row] for row in texts(tables.of_points(summary, points))
    ]
    assert np.argwhere(stars).tolist() == [[2, 3], [3, 2]]


def test_runs_that_swept_different_fields_stand_apart(swept_over):
    worth = lambda i, *values: 0.5 + 0.01 * sum(values)  # noqa: E731
    runs = [swept_over(axes, worth) for axes in ({"a": [1, 2]}, {"b": [1, 2], "c": [3, 4]})]
    summary = merge(*map(summarize, runs))
    assert list(_pictures(summary, {})) == ["gains", "sweep", "sweep_2", "sweep_2_gain"]
    text = page(summary, {}, Drawing({}, {}), {})
    assert text.count("Sweep over a:") == text.count("Sweep over b and c:") == 1
    text = printed(summary, 80)
    assert "Sweep over a:" in text and "Sweep over b and c:" in text
    assert "over_points" not in summary


@pytest.mark.parametrize("arms, size", [(2, (3,)), (2, (2, 2)), (2, (10, 10)), (30, (2, 3))])
@pytest.mark.parametrize("width", [40, 80])
def test_every_mean_is_in_the_terminal_at_any_width(swept_over, arms, size, width):
    names = [f"a method with a long name, number {i}" for i in range(arms)]
    axes = {f"field_{i}": [10.0**k for k in range(count)] for i, count in enumerate(size)}
    values = iter(np.linspace(0.111, 0.999, arms * np.prod(size)).round(3))
    summary = summarize(swept_over(axes, lambda i, *at: next(values), names, config={"field_0": 7}))
    text = printed(summary, width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    cells = text[text.index("Sweep over") : text.index("No point is picked")]
    means = [
        f"{arm['metrics'][KEY]['mean']:.3f}"
        for point in summary["sweep"]
        for arm in point["arms"].values()
    ]
    shown = [
        match[:5] for match in re.findall(r"(?<![\d.\[+])0\.\d{3,4}", cells.replace(", ", ",["))
    ]
    assert sorted(shown) == sorted(means)
    if width == 80 and arms == 2:
        assert cells.count("\n") < 80


def test_odd_names_and_failed_points_are_drawn(swept_over, tmp_path):
    names = ["$x$", "_under" * 20, "日本", "<b>"]
    axes = {"source": ["$a$", "x" * 90], "rate": [1e-5, 1.0]}
    result = swept_over(axes, lambda i, source, rate: np.nan if i == rate == 1 else 0.5, names)
    figures, failures = draw(summarize(result), {}, tmp_path)
    assert failures == {} and list(figures) == ["gains", "sweep", "sweep_gain"]
    for path in figures.values():
        pixels = imread(path)[..., :3]
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
            assert (edge > 0.99).all()  # nothing cut off


@pytest.mark.parametrize(
    "value, text",
    [
        (0.871, ".871"), (1.0, "1"), (0.9996, "1"), (-0.5, "-.500"), (10.25, "10.25"),
        (100.5, "100.5"), (12345.6, "12346"), (1.5e9, "1.5e+09"), (np.nan, ""), (np.inf, ""),
    ],
)  # fmt: skip
def test_numbers_of_cells_keep_their_size(swept_over, value, text):
    summary = summarize(swept_over({"a": [1, 2], "b": [1, 2]}, lambda i, a, b: 0.5))
    panel = dataclasses.replace(grid_of(summary, "sweep"), digits=3)
    assert _number(value, panel) == text


def test_what_diverged_is_beyond_the_scale_of_colours(swept_over):
    worth = lambda i, a, b: 1e12 if i == a == b == 1 else 0.1 * a + 0.1 * b  # noqa: E731
    result = swept_over({"a": [1, 2], "b": [1, 2]}, worth)
    summary = summarize(dataclasses.replace(result, primary=minimize("val", "mse")))
    for point in summary["sweep"]:
        for arm in point["arms"].values():
            arm["metrics"]["val/mse"] = arm["metrics"][KEY]
    panel = grid_of(summary, "sweep")
    np.testing.assert_allclose(panel.limits, (0.2, 0.4))
    assert "lower is better" in panel.title
