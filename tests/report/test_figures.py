"""Figures hold what they should; what is computed for them is checked by number."""

import dataclasses

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from sklearn.decomposition import PCA
from sklearn.metrics import f1_score

from jaxtl.plan import maximize
from jaxtl.report import storage
from jaxtl.report.figures import canvas, draw, features, gains
from jaxtl.report.figures.canvas import styles
from jaxtl.report.summary import summarize


def assert_drawn(path):
    pixels = imread(path)[..., :3]
    height, width = pixels.shape[:2]
    assert width >= 600 and height >= 200
    assert pixels.std() > 0.03 and (pixels < 0.9).any(axis=2).mean() > 0.005
    assert (pixels[0] > 0.99).all() and (pixels[:, 0] > 0.99).all()  # nothing cut off


def test_all_sections_are_drawn_and_old_figures_removed(swept, tmp_path):
    (tmp_path / "old.png").write_bytes(b"")
    drawn, failures = draw.draw(summarize(swept), swept.arms, tmp_path)
    assert failures == {}
    assert list(drawn) == ["gains", "curves", "classes", "confusion", "features", "sweep"]
    paths = [path for section in drawn.values() for path in section]
    assert {path.name for path in paths} == {path.name for path in tmp_path.iterdir()}
    for path in paths:
        assert_drawn(path)


def test_same_numbers_same_bytes(result, tmp_path):
    summary = summarize(result)
    one, two = (gains.gains(tmp_path / name, summary) for name in ("1.png", "2.png"))
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
    drawn, failures = draw.draw(summarize(run), run.arms, tmp_path)
    assert failures == {}
    assert list(drawn) == ["gains", "curves", "classes", "confusion", "features"]
    only_scratch = make((0,), arms={"scratch": scratch})
    assert draw.draw(summarize(only_scratch), only_scratch.arms, tmp_path) == ({}, {})


def test_rows_of_the_confusion_are_rates_averaged_over_seeds():
    counts = np.array([[[3, 1, 0], [0, 4, 0], [0, 0, 0]], [[1, 1, 0], [2, 0, 2], [0, 0, 0]]])
    expected = [[0.625, 0.375, 0], [0.25, 0.5, 0.25], [np.nan] * 3]
    np.testing.assert_allclose(gains.mean_rates(counts), expected)


def test_class_f1_agrees_with_scikit_learn():
    rng = np.random.default_rng(2)
    true, predicted = rng.integers(0, 4, (2, 3, 200))
    counts = np.zeros((3, 5, 5))  # class 4 never occurs
    for seed in range(3):
        np.add.at(counts[seed], (true[seed], predicted[seed]), 1)
    expected = [f1_score(t, p, average=None) for t, p in zip(true, predicted, strict=True)]
    np.testing.assert_allclose(gains.class_f1(counts), [*np.mean(expected, axis=0), np.nan])


def test_principal_plane_agrees_with_scikit_learn():
    x = np.random.default_rng(3).normal(size=(50, 6)) @ np.diag([5, 3, 1, 1, 0.5, 0.1])
    places, fraction = features.principal_plane(x.astype(np.float32))
    pca = PCA(2).fit(x.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(np.abs(places), np.abs(pca.transform(x)), atol=1e-5)
    np.testing.assert_allclose(fraction, pca.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(features.principal_plane(-x)[0], -places, atol=1e-5)


def test_principal_plane_of_one_dimension():
    places, fraction = features.principal_plane(np.array([[1.0], [2.0], [6.0]]))
    np.testing.assert_allclose(places, [[-2, 0], [-1, 0], [3, 0]], atol=1e-12)
    np.testing.assert_allclose(fraction, [1, 0])


@pytest.mark.parametrize("count", [5, 24])
def test_arms_look_different(count):
    looks = styles([f"arm_{i}" for i in range(count)] + ["scratch"], "scratch")
    assert len({tuple(look.values()) for look in looks.values()}) == count + 1


NAMES = [
    "$x$", r"a$b$\frac{1}", "_under", "x" * 100, "x" * 50 + "y" + "x" * 49, "日" * 100, "😀",
    "a\nb", 'a/b\\c:*?"<>|', "..", "\udcff", "", "a\0b",
]  # fmt: skip


@pytest.fixture
def strange(make):
    """A run whose arms, classes, domains, evaluation and metric are called anything."""
    arms = make((0, 1)).arms
    arms = {"full": arms["full"], "scratch": arms["scratch"]}
    classes = tuple(NAMES[:4])  # one fewer than the head has outputs
    strange = {
        name: dataclasses.replace(
            arms["full" if i % 2 else "scratch"],
            name=name,
            confusion={"日" * 100: arms["full"].confusion["target"]},
            class_names={"日" * 100: classes, "_t": classes},
            features={"_t": (np.eye(5), np.arange(5)), "$s$": (np.eye(5), np.arange(5))},
            metrics={"$m$/a/_b": np.array([0.1, 0.2])},
        )
        for i, name in enumerate(["$x$", "_under", "日" * 100, "\udcff"])
    }
    primary = maximize("$m$", "a/_b")
    sweep = [({"_rate": value}, strange) for value in ("$1$", "_2")]
    return make((0, 1), arms=strange, baseline=NAMES[0], primary=primary, sweep=sweep)


def test_names_of_any_kind_are_drawn(strange, tmp_path):
    drawn, failures = draw.draw(summarize(strange), strange.arms, tmp_path)
    assert failures == {}
    assert list(drawn) == ["gains", "curves", "classes", "confusion", "features", "sweep"]
    for path in (path for section in drawn.values() for path in section):
        assert_drawn(path)


def test_labels_are_short_different_and_in_the_legend():
    labels = canvas.shortened(NAMES, 30)
    assert len(set(labels)) == len(labels) and all(len(label) <= 34 for label in labels)
    assert labels[3].endswith("(1)") and labels[4].endswith("(2)") and "…" in labels[3]
    assert len(labels[5]) == 15  # each as wide as two letters
    assert labels[0] == "$x$" and labels[7] == "a b" and labels[11] == "''"
    assert canvas.shortened(["a", "a"], 5) == ["a", "a"]  # the same name twice is no clash
    with matplotlib.rc_context(canvas._STYLE):
        ax = Figure().subplots()
        for label in canvas.legend_labels(NAMES):
            ax.plot([0], [0], label=label)
        legend = ax.legend()
        assert len(legend.get_texts()) == len(NAMES)
        assert not any(text.get_parse_math() for text in legend.get_texts())


@pytest.mark.parametrize(
    "names, expected",
    [
        ((), ["0", "1", "2"]),
        (("a",), ["a", "output 1", "output 2"]),
        (("a", "b", "c", "d"), ["a", "b", "c"]),
        (("a", "a", "b"), ["a", "a", "b"]),
    ],
)
def test_every_output_has_a_label(result, names, expected):
    arm = dataclasses.replace(
        result.arms["full"], confusion={"t": np.ones((1, 3, 3))}, class_names={"t": names}
    )
    small = dataclasses.replace(arm, confusion={"t": np.ones((1, 2, 2))})
    assert gains.class_labels("t", [small, arm]) == expected


def test_arms_with_heads_of_unequal_size_share_a_figure(result, tmp_path):
    arms = {name: result.arms[name] for name in ("scratch", "full")}
    wide = np.random.default_rng(0).poisson(3, (5, 7, 7))
    arms["full"] = dataclasses.replace(arms["full"], confusion={"target": wide})
    summary = summarize(dataclasses.replace(result, arms=arms))
    assert draw.draw(summary, arms, tmp_path).failures == {}


def test_file_names_fit_and_differ():
    names = [*NAMES, "日" * 99]
    stems = [storage.file_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    assert all(len(stem) <= 150 and not set(stem) & set('/\\:*?"<>|\0') for stem in stems)
