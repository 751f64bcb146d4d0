"""What a report says of adaptation: picks, oracle, domain gap, adversaries, sweeps over names."""

import dataclasses
import io
import json

import numpy as np
import pytest
from measured import with_analyses
from rich.console import Console
from scipy import stats
from test_figures import assert_drawn

from jaxtl import report
from jaxtl.report import page as report_page
from jaxtl.report import sweeps
from jaxtl.report.earlier import merge
from jaxtl.report.figures import draw
from jaxtl.report.panels import make_panels, tables
from jaxtl.report.summary import load_summary, summarize, write_summary
from jaxtl.report.terminal import print_table

SEEDS = (0, 1, 2, 3, 4)


def adapted(arm, value):
    seeds = np.arange(5) / 100
    curves = dict(arm.analyses["curves"])
    if arm.name == "dann":
        steps = len(curves["dann"]["step"])
        ramp = np.linspace(0, 1, steps)[:, None] + np.zeros((1, 5))
        curves["dann"] = {**curves["dann"], "domain_accuracy": 1 - ramp / 2, "reversal": ramp}
    adversarial = {"adversaries": curves} if arm.name == "dann" else {}
    return with_analyses(
        arm,
        picks={"last step": value + seeds, "snd": value - 0.1 + seeds},
        oracle=value + 0.05 + seeds,
        domain_gap={"source/a_distance": 1.5 + seeds, "source/mmd": 0.1 + seeds},
        features={**arm.analyses["features"], "adapted": np.array(True)},
        curves=curves,
        **adversarial,
    )


@pytest.fixture
def run(make):
    whole = make(SEEDS)
    arms = {name: adapted(arm, 0.8 + i / 100) for i, (name, arm) in enumerate(whole.arms.items())}
    return dataclasses.replace(whole, arms=arms)


def showing(run, *names):
    """The run with some analyses alone: what is drawn of others takes seconds."""
    arms = {
        name: dataclasses.replace(arm, analyses={each: arm.analyses[each] for each in names})
        for name, arm in run.arms.items()
    }
    return dataclasses.replace(run, arms=arms)


def printed(summary, width=200):
    output = io.StringIO()
    print_table(summary, Console(file=output, width=width))
    return output.getvalue()


def test_picks_are_shown_and_the_oracle_only_when_asked_for(run, tmp_path):
    run = showing(run, "picks", "oracle")
    honest = report.write(run, tmp_path / "honest")
    assert "oracle" not in honest
    table = tables(honest)["picks"]
    assert table.columns == ["last step", "snd"] and set(table.rows) == set(run.arms)
    np.testing.assert_allclose([one["mean"] for one in table.rows["full"].values()], [0.83, 0.73])
    asked = report.write(dataclasses.replace(run, oracle=True), tmp_path / "asked")
    table = tables(asked)["picks"]
    assert table.columns == ["last step", "snd", "oracle (test labels)"]
    np.testing.assert_allclose(table.rows["full"]["oracle (test labels)"]["mean"], 0.88)
    np.testing.assert_allclose(asked["oracle"]["full"]["mean"], 0.88)
    for summary, shown, name in ((honest, False, "honest"), (asked, True, "asked")):
        page = (tmp_path / name / "report.html").read_text(encoding="utf-8")
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


def test_domain_gap_is_shown_beside_that_of_the_baseline(run, tmp_path):
    summary = report.write(showing(run, "domain_gap"), tmp_path)
    gap = summary["arms"]["dann"]["domain_gap"]["source/a_distance"]
    np.testing.assert_allclose(gap["mean"], 1.52)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "source/a_distance" in page and "The baseline is scratch." in page


def test_figures_of_adaptation(run, tmp_path):
    panels, missing = make_panels(run)
    figures, failures = draw.draw(summarize(run), panels, tmp_path)
    assert failures == missing == {}
    names = ("adversaries", "features", "domains", "per_class_target", "class_gains_target")
    for name in names:
        assert figures[name].name == f"{name}.png"
        assert_drawn(figures[name])


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
    page = report_page.page(summary, {}, draw.Drawing({}, {}), {})
    assert "Over the 3 values of pair" in page and "<th>a_c</th>" in page


def test_a_sweep_over_numbers_is_not_averaged(swept):
    assert "over_points" not in summarize(swept)


def test_each_name_of_a_sweep_is_answered(pairs):
    lines = sweeps.answers(summarize(pairs))
    assert [line.partition(":")[0] for line in lines] == [
        "At pair=a_b",
        "At pair=a_c",
        "At pair=b_c",
    ]
    assert all(line.endswith(": Undecided: full.") for line in lines)  # the same gain in each seed
    many = dataclasses.replace(pairs, sweep=pairs.sweep * 2)
    assert sweeps.answers(summarize(many)) == []


def test_numbers_of_a_sweep_are_not_answered_apart(swept):
    assert sweeps.answers(summarize(swept)) == []


def test_two_names_are_no_sample(pairs):
    assert "over_points" not in summarize(dataclasses.replace(pairs, sweep=pairs.sweep[:2]))


def test_an_arm_that_lacks_a_point_has_no_average(pairs):
    (first, arms), *rest = pairs.sweep
    short = dataclasses.replace(pairs, sweep=[(first, {"scratch": arms["scratch"]}), *rest])
    assert set(summarize(short)["over_points"]) == {"scratch"}


def test_picks_fit_into_a_narrow_terminal(run, tmp_path):
    rules = ("last step", "source", "iwv", "dev", "snd", "entropy", "mixval", "rank average")
    picks = {rule: np.full(5, 0.123) for rule in rules}
    arms = {"self_training": with_analyses(run.arms["full"], picks=picks), **run.arms}
    run = showing(dataclasses.replace(run, arms=arms, oracle=True), "picks", "oracle")
    summary = report.write(run, tmp_path)
    line = next(x for x in printed(summary, 80).splitlines() if "0.123" in x)
    assert line.count("0.123") == len(rules) and "…" not in line
