"""Pictures of panels: nothing cut off, whatever the names, with two arms and with thirty."""

import dataclasses

import matplotlib
import numpy as np
import pytest
from matplotlib.axis import Tick
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.layout_engine import ConstrainedLayoutEngine
from measured import with_analyses

from jaxtl.plan import Cloud, Curve, Grid, Images, Line, Matrix, Scatter, maximize
from jaxtl.report import storage
from jaxtl.report.figures import canvas
from jaxtl.report.figures.curve import curve
from jaxtl.report.figures.draw import draw
from jaxtl.report.figures.gains import gains
from jaxtl.report.figures.images import images
from jaxtl.report.figures.matrix import matrix
from jaxtl.report.figures.scatter import scatter
from jaxtl.report.figures.sweep import sweep
from jaxtl.report.panels import make_panels
from jaxtl.report.summary import summarize
from jaxtl.report.sweeps import points_of


def assert_drawn(path):
    pixels = imread(path)[..., :3]
    height, width = pixels.shape[:2]
    assert width >= 600 and height >= 200
    assert pixels.std() > 0.03 and (pixels < 0.9).any(axis=2).mean() > 0.005
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge > 0.99).all()  # nothing cut off


def drawn(result, folder):
    """What is drawn of a result."""
    panels, failures = make_panels(result)
    assert failures == {}
    return draw(summarize(result), panels, folder)


def test_all_panels_are_drawn_and_old_figures_removed(swept, tmp_path):
    (tmp_path / "old.png").write_bytes(b"")
    figures, failures = drawn(swept, tmp_path)
    assert failures == {}
    assert list(figures) == [
        "gains", "curves", "per_class_target", "class_gains_target", "confusion_target",
        "features", "sweep",
    ]  # fmt: skip
    assert {path.name for path in figures.values()} == {path.name for path in tmp_path.iterdir()}
    for path in figures.values():
        assert_drawn(path)


def test_same_numbers_same_bytes(result, tmp_path):
    summary = summarize(result)
    one, two = (gains(tmp_path / name, summary) for name in ("1.png", "2.png"))
    assert one.read_bytes() == two.read_bytes()


def test_a_picture_is_laid_out_and_drawn_once(tmp_path, monkeypatch):
    """Which is most of the time that a report takes; heat maps also do without ticks."""
    calls = []
    for method in (Figure.draw, ConstrainedLayoutEngine.execute, Tick.__init__):
        owner = {"draw": Figure, "execute": ConstrainedLayoutEngine, "__init__": Tick}

        def count(*args, method=method, **options):
            calls.append(method.__qualname__)
            return method(*args, **options)

        monkeypatch.setattr(owner[method.__name__], method.__name__, count)
    names = [f"class {i}" for i in range(12)]
    grids = dict.fromkeys(["scratch", "full"], Grid(names, names, np.eye(12)))
    matrix(tmp_path / "x.png", Matrix("Confusion", "", grids, "fraction", "true", "predicted"))
    assert calls.count("Figure.draw") == calls.count("ConstrainedLayoutEngine.execute") == 1
    assert calls.count("Tick.__init__") < 2 * len(names)  # the scale of colours has some


def test_little_data_is_drawn_too(make, tmp_path):
    """One seed, closed form without curves, no confusion, hidden and float labels, NaN."""
    rng = np.random.default_rng(0)
    whole = make((0,)).arms
    scratch = dataclasses.replace(whole["scratch"], analyses={})
    features = {
        "points": {"source": rng.normal(size=(9, 2)), "target": rng.normal(size=(400, 2))},
        "classes": {"source": np.full(9, ""), "target": rng.normal(size=400)},
        "variance": np.array([1.0, 0.0]),
        "adapted": np.array(False),
    }
    probe = with_analyses(
        whole["probe"],
        classes={"target": {"counts": np.zeros((1, 30, 30)), "names": np.array([], str)}},
        curves={"pretrain": {"step": np.arange(500), "loss": np.full((500, 1), np.nan)}},
        features=features,
        forgetting=None,
    )
    figures, failures = drawn(make((0,), arms={"scratch": scratch, "probe": probe}), tmp_path)
    assert failures == {}
    assert list(figures) == ["gains", "per_class_target", "confusion_target", "features"]
    assert drawn(make((0,), arms={"scratch": scratch}), tmp_path) == ({}, {})


@pytest.mark.parametrize("count", [5, 24])
def test_arms_look_different(count):
    looks = canvas.styles([f"arm_{i}" for i in range(count)] + ["scratch"], "scratch")
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
    counts = arms["full"].analyses["classes"]["target"]["counts"]
    classes = np.array(NAMES[:4])  # one fewer than the head has outputs
    features = {
        "points": {"_t": np.eye(5)[:, :2], "$s$": np.eye(5)[:, :2]},
        "classes": {"_t": np.array(NAMES[:5]), "$s$": np.arange(5).astype(str)},
        "variance": np.array([0.5, 0.25]),
        "adapted": np.array(True),
    }
    strange = {
        name: dataclasses.replace(
            with_analyses(
                arms["full" if i % 2 else "scratch"],
                classes={"日" * 100: {"counts": counts, "names": classes}},
                features=features,
            ),
            name=name,
            metrics={"$m$/a/_b": np.array([0.1, 0.2])},
        )
        for i, name in enumerate(["$x$", "_under", "日" * 100, "\udcff"])
    }
    primary = maximize("$m$", "a/_b")
    sweep = [({"_rate": value}, strange) for value in ("$1$", "_2")]
    return make((0, 1), arms=strange, baseline=NAMES[0], primary=primary, sweep=sweep)


def test_names_of_any_kind_are_drawn(strange, tmp_path):
    figures, failures = drawn(strange, tmp_path)
    assert failures == {} and len(figures) == 8
    for path in figures.values():
        assert_drawn(path)


def test_labels_are_short_different_and_in_the_legend():
    labels = canvas.shortened(NAMES, 30)
    assert len(set(labels)) == len(labels) and all(len(label) <= 34 for label in labels)
    assert labels[3].endswith("(1)") and labels[4].endswith("(2)") and "…" in labels[3]
    assert len(labels[5]) == 15  # each as wide as two letters
    assert labels[0] == "$x$" and labels[7] == "a b" and labels[11] == "''"
    assert canvas.shortened(["a", "a"], 5) == ["a", "a"]  # the same name twice is no clash
    with matplotlib.rc_context(fname=canvas.STYLE):
        figure = Figure()
        (line,) = figure.subplots().plot([0], [0])
        canvas.legend(figure, dict.fromkeys(NAMES, line))
        (legend,) = figure.legends
        assert len(legend.get_texts()) == len(NAMES)
        assert not any(text.get_parse_math() for text in legend.get_texts())


def test_arms_with_heads_of_unequal_size_share_a_figure(result, tmp_path):
    arms = {name: result.arms[name] for name in ("scratch", "full")}
    wide = {"counts": np.random.default_rng(0).poisson(3, (5, 7, 7)), "names": np.array([], str)}
    arms["full"] = with_analyses(arms["full"], classes={"target": wide})
    assert drawn(dataclasses.replace(result, arms=arms), tmp_path).failures == {}


def many(count):
    return [f"a method with a long name, number {i}, threshold 0.9" for i in range(count)]


@pytest.mark.parametrize("arms", [2, 30])
@pytest.mark.parametrize("classes", [3, 100])
def test_matrices_of_any_size(arms, classes, tmp_path):
    names, columns = many(arms), [f"class {i}" for i in range(classes)]
    values = np.random.default_rng(0).uniform(-1, 1, (arms, classes))
    values[0, 0] = np.nan
    panel = Matrix(
        "Gains", "", {"": Grid(names, columns, values, [(1, 1)])}, "gain", diverging=True
    )
    assert_drawn(matrix(tmp_path / "x.png", panel))
    confusion = dict.fromkeys(names[:3], Grid(columns, columns, np.eye(classes)))
    panel = Matrix("Confusion", "", confusion, "fraction", "true", "predicted", sparse=True)
    assert_drawn(matrix(tmp_path / "x.png", panel))


def test_a_long_quantity_fits_beside_two_rows(tmp_path):
    square = Grid(["cat", "dog"], ["cat", "dog"], np.eye(2))
    grids = dict.fromkeys(["scratch", "full", "frozen"], square)
    panel = Matrix("Confusion", "", grids, "fraction of the true class", "true", "predicted")
    assert_drawn(matrix(tmp_path / "x.png", panel))


@pytest.mark.parametrize("arms", [2, 30])
def test_curves_of_any_number(arms, tmp_path):
    x, values = np.arange(1, 200), np.random.default_rng(0).uniform(0, 1, (199, 5))
    lines = [Line(name, x, values / x[:, None], "loss", "right") for name in many(arms)]
    lines += [Line("source", x[:3], values[:3], metric, "left") for metric in ("loss", "other")]
    panel = Curve("Curves", "", lines, "step", log_x=True)
    assert_drawn(curve(tmp_path / "x.png", panel, many(arms), many(1)[0]))


@pytest.mark.parametrize(("arms", "classes"), [(2, 1), (2, 50), (30, 3)])
def test_clouds_of_any_number(arms, classes, tmp_path):
    points = np.random.default_rng(0).normal(size=(50, 2))
    labels = (np.arange(50) % classes).astype(str)
    clouds = [Cloud("a", points, labels)]
    if classes == 1:
        clouds = [Cloud("a", points), Cloud("b", points + 1)]
    axes = dict.fromkeys(many(arms), ("component 1 (50% of variance)", "component 2 (20%)"))
    panel = Scatter("Features", "", dict.fromkeys(many(arms), clouds), axes, equal=True)
    assert_drawn(scatter(tmp_path / "x.png", panel))


def test_images_in_rows(tmp_path):
    grey, coloured = np.eye(8), np.random.default_rng(0).uniform(0, 1, (8, 8, 3))
    rows = {name: {"input": coloured, f"{name}, all of it": grey} for name in many(3)}
    assert_drawn(images(tmp_path / "x.png", Images("Saliency", "", rows)))


def test_intervals_that_leave_the_axis_end_in_a_mark(swept, tmp_path, monkeypatch):
    """An interval from -9 to 9 around gains of 0.1, one of an accuracy from 0.9 to 1.2."""
    marks = []
    plot = matplotlib.axes.Axes.plot
    monkeypatch.setattr(
        "matplotlib.axes.Axes.plot",
        lambda self, *args, **look: marks.append(args) or plot(self, *args, **look),
    )
    summary = summarize(swept)
    gain = summary["arms"]["full"]["gain"]["target/accuracy"]
    gain |= {"ci95": [-9.0, 9.0], "mean": 0.1, "per_seed": [0.1] * 5}
    assert_drawn(gains(tmp_path / "gains.png", summary))
    arrows = {args[2]: args[0] for args in marks if len(args) > 2}
    assert -0.5 < arrows["<"] < 0 < arrows[">"] < 0.5
    marks.clear()
    for point in summary["sweep"]:
        point["arms"]["full"]["metrics"]["target/accuracy"]["ci95"] = [0.9, 1.2]
    assert_drawn(sweep(tmp_path / "sweep.png", summary, *points_of(summary)))
    assert [args[1] for args in marks if args[2:] == ("^",)] == [1.0] * 3
    assert not any(args[2:] == ("v",) for args in marks)


def test_ties_are_drawn_side_by_side(result, tmp_path, monkeypatch):
    heights = []
    plot = matplotlib.axes.Axes.plot
    monkeypatch.setattr(
        "matplotlib.axes.Axes.plot",
        lambda self, *args, **look: (
            (heights.append(args[1]) if args[2:] == (".",) else None) or plot(self, *args, **look)
        ),
    )
    summary = summarize(result)
    summary["arms"]["full"]["gain"]["target/accuracy"]["per_seed"] = [0.1, 0.1, 0.1, None, 0.0]
    gains(tmp_path / "gains.png", summary)
    assert len(set(heights[0])) == 3  # of the three at 0.1, each its own


def test_file_names_fit_and_differ():
    names = [*NAMES, "日" * 99]
    stems = [storage.file_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    assert all(len(stem) <= 150 and not set(stem) & set('/\\:*?"<>|\0') for stem in stems)
