"""Arms in the plane of two metrics: what dominates what, and the picture of it."""

import numpy as np
import pytest
from PIL import Image

from jaxtl.measure.analyses.trade_off import dominates, trade_off, undominated
from jaxtl.measure.results import ArmResult, Comparison
from jaxtl.plan import maximize, minimize
from jaxtl.report.figures.scatter import scatter
from jaxtl.report.panels import written

BOTH = minimize("a", "error"), maximize("b", "accuracy")
SIGNS = np.array([-1, 1])
POINTS = {
    "fixed_1": [0.1, 0.2],
    "fixed_2": [0.3, 0.6],
    "fixed_3": [0.5, 0.5],
    "fixed_4": [0.7, 0.9],
    "rule": [0.35, 0.55],
    "better": [0.05, 0.7],
}


def compared(points=POINTS):
    arms = {
        name: ArmResult(
            name,
            (name,),
            {"a/error": np.array([x - 0.01, x + 0.01]), "b/accuracy": np.array([y, y])},
        )
        for name, (x, y) in points.items()
    }
    arms["failed"] = ArmResult("failed", ("failed",), {"a/error": np.full(2, np.nan)})
    return Comparison(seeds=(0, 1), baseline="rule", selection="last", primary=BOTH[0], arms=arms)


def panels(**more):
    analysis, comparison = trade_off(*BOTH, **more), compared()
    measured = {name: np.arange(2) for name in comparison.arms}
    return analysis.panels(measured, comparison)


def test_the_front_is_what_nothing_dominates():
    rng = np.random.default_rng(0)
    points = rng.integers(0, 6, (30, 2)).astype(float)
    front = {tuple(point) for point in undominated(points, SIGNS)}
    for point in points:
        better = [
            other
            for other in points
            if other[0] <= point[0] and other[1] >= point[1] and tuple(other) != tuple(point)
        ]
        assert (tuple(point) in front) == (not better)
    assert not dominates(points[0], points[0], SIGNS)


def test_fixed_weights_make_a_front_and_the_others_are_points(tmp_path):
    known = np.array([[0.0, 0.8], [1.0, 1.0]])
    made = panels(swept=("fixed_1", "fixed_2", "fixed_3", "fixed_4"), front=known)
    clouds = {cloud.name: cloud for cloud in made["trade_off"].clouds[""]}
    assert list(clouds)[:3] == ["known front", "fixed weights' front", "fixed weights"]
    assert list(clouds)[3:] == ["rule", "better"] and clouds["rule"].points.shape == (2, 2)
    front = clouds["fixed weights' front"]
    np.testing.assert_allclose(front.points, [[0.1, 0.2], [0.3, 0.6], [0.7, 0.9]])
    assert front.joined and not clouds["fixed weights"].joined
    rows = made["trade_offs"].rows
    assert rows["rule"]["behind"] == "fixed_2" and rows["better"]["behind"] == "none"
    assert rows["fixed_3"]["behind"] == "fixed_2" and "behind" not in rows["failed"]
    for panel in made.values():
        written(panel, None)
    scatter(tmp_path / "plane.png", made["trade_off"])
    with Image.open(tmp_path / "plane.png") as picture:
        assert picture.width > 400


def test_without_fixed_weights_there_are_points_alone():
    made = panels()
    assert [cloud.name for cloud in made["trade_off"].clouds[""]] == list(POINTS)
    assert made["trade_offs"].columns == ["a/error", "b/accuracy"]


def test_a_metric_that_no_arm_has_is_named():
    analysis = trade_off(minimize("a", "eror"), BOTH[1])
    with pytest.raises(ValueError, match=r"unknown metric .a/eror.\. Did you mean .a/error."):
        analysis.panels({"rule": np.arange(2)}, compared())
