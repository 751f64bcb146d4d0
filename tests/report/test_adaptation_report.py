"""What a report says of adaptation: picks, oracle, domain gap, adversaries, sweeps over names."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from test_figures import assert_drawn

from jaxtl.report import page as report_page
from jaxtl.report import wording
from jaxtl.report.figures import draw
from jaxtl.report.figures.gains import class_gains, mean_rates
from jaxtl.report.summary import load_summary, merge, summarize, write_summary
from jaxtl.report.tables import print_table

SEEDS = (0, 1, 2, 3, 4)


def adapted(arm, value):
    seeds = np.arange(5) / 100
    curves = dict(arm.curves)
    if arm.name == "dann":
        steps = len(curves["dann"]["step"])
        ramp = np.linspace(0, 1, steps)[:, None] + np.zeros((1, 5))
        curves["dann"] = {**curves["dann"], "domain_accuracy": 1 - ramp / 2, "reversal": ramp}
    return dataclasses.replace(
        arm,
        picks={"last step": value + seeds, "snd": value - 0.1 + seeds},
        oracle=value + 0.05 + seeds,
        domain_gap={"source/a_distance": 1.5 + seeds, "source/mmd": 0.1 + seeds},
        curves=curves,
    )


@pytest.fixture
def run(make):
    whole = make(SEEDS)
    arms = {name: adapted(arm, 0.8 + i / 100) for i, (name, arm) in enumerate(whole.arms.items())}
    return dataclasses.replace(whole, arms=arms)


def printed(summary, width=200):
    output = io.StringIO()
    print_table(summary, Console(file=output, width=width))
    return output.getvalue()


def test_picks_are_shown_and_the_oracle_only_when_asked_for(run):
    honest = summarize(run)
    assert "oracle" not in honest
    rules, rows = wording.picks(honest)
    assert rules == ["last step", "snd"] and set(rows) == set(run.arms)
    np.testing.assert_allclose([one["mean"] for one in rows["full"]], [0.83, 0.73])
    asked = summarize(dataclasses.replace(run, oracle=True))
    rules, rows = wording.picks(asked)
    assert rules == ["last step", "snd", "oracle (test labels)"]
    np.testing.assert_allclose(rows["full"][-1]["mean"], 0.88)
    for summary, shown in ((honest, False), (asked, True)):
        page = report_page.page(summary, {}, {})
        assert ("oracle (test labels)" in page) == shown == ("it decides nothing" in page)
        assert ("oracle" in printed(summary)) == shown
        assert "Chosen without target labels" in page and "0.830" in printed(summary)


def test_the_oracle_of_earlier_arms_stays_while_it_is_asked_for(run, tmp_path):
    def only(*names, oracle):
        arms = {name: run.arms[name] for name in names}
        return summarize(dataclasses.replace(run, arms=arms, oracle=oracle))

    first = only("scratch", oracle=True)
    assert merge(first, only("full", oracle=True))["oracle"].keys() == {"scratch", "full"}
    assert "oracle" not in merge(first, only("full", oracle=False))
    write_summary(tmp_path / "summary.json", first)
    assert load_summary(tmp_path / "summary.json") == json.loads(json.dumps(first))


def test_domain_gap_is_shown_with_what_it_was_before(run):
    summary = summarize(run)
    gap = summary["arms"]["dann"]["domain_gap"]["source/a_distance"]
    np.testing.assert_allclose(gap["mean"], 1.52)
    page = report_page.page(summary, {}, {})
    assert "source/a_distance" in page and "Before adaptation: scratch" in page


def test_figures_of_adaptation(run, tmp_path):
    drawn, failures = draw.draw(summarize(run), run.arms, tmp_path)
    assert failures == {}
    names = {section: [path.name for path in paths] for section, paths in drawn.items()}
    assert names["adversaries"] == ["adversaries.png"]
    assert names["features"] == ["features.png", "domains.png"]
    assert names["classes"] == ["per_class_target.png", "class_gains_target.png"]
    for section in ("adversaries", "features", "classes"):
        for path in drawn[section]:
            assert_drawn(path)


def test_class_gains_are_differences_of_recalls(run, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.imshow",
        lambda self, values, **kwargs: shown.append(values) or _image(self, values),
    )
    class_gains(tmp_path / "gains.png", "target", run.arms, "scratch")
    recalls = {
        name: np.mean([np.diag(c) / c.sum(1) for c in arm.confusion["target"]], axis=0)
        for name, arm in run.arms.items()
    }
    expected = [recalls[name] - recalls["scratch"] for name in run.arms if name != "scratch"]
    np.testing.assert_allclose(shown[0], expected, rtol=1e-12)
    full = run.arms["full"].confusion["target"]
    np.testing.assert_allclose(np.diagonal(mean_rates(full)), recalls["full"], rtol=1e-12)


def _image(axes, values):
    from matplotlib.image import AxesImage

    image = AxesImage(axes)
    image.set_data(values)
    return image


@pytest.fixture
def pairs(make):
    """Three points of a sweep over names, two arms whose gains are 0.01, 0.05 and 0.09."""
    whole = make(SEEDS)
    points = []
    for name, shift in (("a_b", 0.01), ("a_c", 0.05), ("b_c", 0.09)):
        scratch = whole.arms["scratch"]
        moved = {metric: values + shift for metric, values in scratch.metrics.items()}
        full = dataclasses.replace(whole.arms["full"], metrics=moved)
        points.append(({"pair": name}, {"scratch": scratch, "full": full}))
    arms = {name: whole.arms[name] for name in ("scratch", "full")}
    return dataclasses.replace(whole, arms=arms, sweep=points)


def test_a_sweep_over_names_is_averaged_over_its_points(pairs):
    summary = summarize(pairs)
    full, scratch = (summary["over_points"][arm] for arm in ("full", "scratch"))
    metric = "target/accuracy"
    gain = full["gain"][metric]
    np.testing.assert_allclose(gain["per_point"], [0.01, 0.05, 0.09])
    interval = stats.ttest_1samp([0.01, 0.05, 0.09], 0).confidence_interval(0.95)
    np.testing.assert_allclose(gain["ci95"], interval)
    assert full["verdict"] == "undecided" and scratch["verdict"] is None
    start = summary["arms"]["scratch"]["metrics"][metric]["mean"]
    np.testing.assert_allclose(full["metrics"][metric]["mean"], start + 0.05)
    assert "Over the 3 values of pair" in printed(summary)
    page = report_page.page(summary, {}, {})
    assert "Over the 3 values of pair" in page and "<th>a_c</th>" in page


def test_a_sweep_over_numbers_is_not_averaged(swept):
    assert "over_points" not in summarize(swept)


def test_an_arm_that_lacks_a_point_has_no_average(pairs):
    (first, arms), *rest = pairs.sweep
    short = dataclasses.replace(pairs, sweep=[(first, {"scratch": arms["scratch"]}), *rest])
    assert set(summarize(short)["over_points"]) == {"scratch"}


def test_picks_fit_into_a_narrow_terminal(run):
    rules = ("last step", "source", "iwv", "dev", "snd", "entropy", "mixval", "rank average")
    picks = {rule: np.full(5, 0.123) for rule in rules}
    arms = {"self_training": dataclasses.replace(run.arms["full"], picks=picks), **run.arms}
    summary = summarize(dataclasses.replace(run, arms=arms, oracle=True))
    line = next(x for x in printed(summary, 80).splitlines() if "0.123" in x)
    assert line.count("0.123") == len(rules) and "…" not in line
