"""Figures hold what they should; what is computed for them is checked by number."""

import dataclasses

import numpy as np
import pytest
from matplotlib.image import imread
from sklearn.decomposition import PCA
from sklearn.metrics import f1_score

from jaxtl.report import drawing, figures, projection
from jaxtl.report.canvas import styles
from jaxtl.report.summary import summarize


def assert_drawn(path):
    pixels = imread(path)[..., :3]
    height, width = pixels.shape[:2]
    assert width >= 600 and height >= 200
    assert pixels.std() > 0.03 and (pixels < 0.9).any(axis=2).mean() > 0.005
    assert (pixels[0] > 0.99).all() and (pixels[:, 0] > 0.99).all()  # nothing cut off


def test_all_sections_are_drawn_and_old_figures_removed(swept, tmp_path):
    (tmp_path / "old.png").write_bytes(b"")
    drawn, failures = drawing.draw(summarize(swept), swept.arms, tmp_path)
    assert failures == {}
    assert list(drawn) == ["gains", "curves", "classes", "confusion", "features", "sweep"]
    paths = [path for section in drawn.values() for path in section]
    assert {path.name for path in paths} == {path.name for path in tmp_path.iterdir()}
    for path in paths:
        assert_drawn(path)


def test_same_numbers_same_bytes(result, tmp_path):
    summary = summarize(result)
    one, two = (figures.gains(tmp_path / name, summary) for name in ("1.png", "2.png"))
    assert one.read_bytes() == two.read_bytes()


def test_little_data_is_drawn_too(make, tmp_path):
    """One seed, closed form without curves, no confusion, hidden and float labels, NaN."""
    rng = np.random.default_rng(0)
    bare = {"curves": {}, "confusion": {}, "features": {}}
    whole = make((0,)).arms
    scratch = dataclasses.replace(whole["scratch"], **bare)
    ridge = dataclasses.replace(
        whole["probe"],
        confusion={"target": np.zeros((1, 30, 30))},
        class_names={},
        curves={"pretrain": {"step": np.arange(500), "loss": np.full((500, 1), np.nan)}},
        features={
            "source": (rng.normal(size=(9, 1)), np.full(9, -1)),
            "target": (rng.normal(size=(600, 1)), rng.normal(size=600)),
            "broken": (np.full((3, 1), np.nan), np.zeros(3, int)),
        },
    )
    run = make((0,), arms={"scratch": scratch, "probe": ridge})
    drawn, failures = drawing.draw(summarize(run), run.arms, tmp_path)
    assert failures == {}
    assert list(drawn) == ["gains", "curves", "classes", "confusion", "features"]
    only_scratch = make((0,), arms={"scratch": scratch})
    assert drawing.draw(summarize(only_scratch), only_scratch.arms, tmp_path) == ({}, {})


def test_rows_of_the_confusion_are_rates_averaged_over_seeds():
    counts = np.array([[[3, 1, 0], [0, 4, 0], [0, 0, 0]], [[1, 1, 0], [2, 0, 2], [0, 0, 0]]])
    expected = [[0.625, 0.375, 0], [0.25, 0.5, 0.25], [np.nan] * 3]
    np.testing.assert_allclose(figures.mean_rates(counts), expected)


def test_class_f1_agrees_with_scikit_learn():
    rng = np.random.default_rng(2)
    true, predicted = rng.integers(0, 4, (2, 3, 200))
    counts = np.zeros((3, 5, 5))  # class 4 never occurs
    for seed in range(3):
        np.add.at(counts[seed], (true[seed], predicted[seed]), 1)
    expected = [f1_score(t, p, average=None) for t, p in zip(true, predicted, strict=True)]
    np.testing.assert_allclose(figures.class_f1(counts), [*np.mean(expected, axis=0), np.nan])


def test_principal_plane_agrees_with_scikit_learn():
    x = np.random.default_rng(3).normal(size=(50, 6)) @ np.diag([5, 3, 1, 1, 0.5, 0.1])
    places, fraction = projection.principal_plane(x.astype(np.float32))
    pca = PCA(2).fit(x.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(np.abs(places), np.abs(pca.transform(x)), atol=1e-5)
    np.testing.assert_allclose(fraction, pca.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(projection.principal_plane(-x)[0], -places, atol=1e-5)


def test_principal_plane_of_one_dimension():
    places, fraction = projection.principal_plane(np.array([[1.0], [2.0], [6.0]]))
    np.testing.assert_allclose(places, [[-2, 0], [-1, 0], [3, 0]], atol=1e-12)
    np.testing.assert_allclose(fraction, [1, 0])


@pytest.mark.parametrize("count", [5, 24])
def test_arms_look_different(count):
    looks = styles([f"arm_{i}" for i in range(count)] + ["scratch"], "scratch")
    assert len({tuple(look.values()) for look in looks.values()}) == count + 1
