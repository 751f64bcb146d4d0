"""What a run gives: arms, numbers, panels, models, and how it is shown."""

import json
import math
import shutil

import numpy as np
import pytest
from tiny import blobs, experiment

import jaxtl
from jaxtl.measure.verdict import estimate
from jaxtl.plan.panel import Panel
from jaxtl.report import wording
from jaxtl.study.front.models import Models
from jaxtl.study.front.result import Result

ROWS = blobs("rows", 7, 1.0, seed=5).table().inputs


def test_arms_have_the_numbers_of_the_summary(result):
    assert list(result) == list(result.arms) == ["scratch", "full"] and len(result) == 2
    assert (result.baseline, result.primary.key) == ("scratch", "target/accuracy")
    entry = json.loads((result.directory / "summary.json").read_text())["arms"]["full"]
    arm, base = result["full"], result["scratch"]
    for key, values in entry["metrics"].items():
        np.testing.assert_array_equal(arm.metrics[key], np.array(values["per_seed"], float))
        assert arm.estimate(key).mean == pytest.approx(values["mean"], nan_ok=True)
    np.testing.assert_allclose(
        arm.gains["target/loss"], base.metric("target/loss") - arm.metric("target/loss")
    )
    assert arm.gain == estimate(arm.values - base.values)
    assert arm.interval == (arm.gain.low, arm.gain.high) and arm.verdict == entry["verdict"]
    assert (base.gain, base.interval, base.verdict, base.gains) == (None, None, None, {})
    assert result.answer == wording.answer(result.summary)


def test_wrong_names_have_the_closest(result):
    with pytest.raises(KeyError) as caught:
        result["ful"]
    assert str(caught.value) == "unknown arm 'ful'. Did you mean 'full'? Known: full, scratch."
    assert "ful" not in result and result.get("ful") is None
    with pytest.raises(ValueError, match="Did you mean 'target/accuracy'"):
        result["full"].metric("target/acc")


def test_models_are_those_of_load(result):
    arm = result["full"]
    theirs = jaxtl.load  # from the file, which there is none of
    with pytest.raises(ValueError, match=r"a program made the experiment.*jaxtl.open\("):
        theirs(result.directory)
    for seed in result.seeds:
        logits = arm.predict(ROWS, seed=seed)["logits"]["target"]
        predictor = arm.load(seed)
        output, _ = predictor.model.apply(predictor.params, predictor.state.statistics, ROWS)
        np.testing.assert_allclose(logits, output["logits"]["target"], rtol=1e-5, atol=1e-6)
    assert arm.load(1) is arm.load(1) and arm.params is arm.load().params
    first, second = (arm.predict(ROWS, seed=seed)["features"] for seed in (0, 1))
    assert not np.allclose(first, second)
    with pytest.raises(ValueError, match="unknown seed '9'"):
        arm.predict(ROWS, seed=9)


def test_a_frame_has_a_row_for_each_number(result):
    pandas = pytest.importorskip("pandas")
    frame = result.to_frame()
    assert list(frame.columns) == ["arm", "metric", "seed", "value", "gain"]
    chosen = frame[(frame.arm == "full") & (frame.metric == "target/accuracy")]
    np.testing.assert_array_equal(chosen.seed, result.seeds)
    np.testing.assert_array_equal(chosen.value, result["full"].values)
    np.testing.assert_allclose(chosen.gain, result["full"].values - result["scratch"].values)
    assert frame[frame.arm == "scratch"].gain.isna().all()
    assert isinstance(frame, pandas.DataFrame)


def test_without_pandas_the_command_is_named(result, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxtl\[frame\]'"):
        result.to_frame()


def test_panels_hold_their_arrays(result):
    panels = result.panels
    assert panels and all(isinstance(panel, Panel) for panel in panels.values())
    assert panels.keys() == result.summary["panels"].keys()
    grids = panels["confusion_target"].grids
    assert all(grid.values.shape == (3, 3) for grid in grids.values())


def test_it_is_shown_as_the_report_says_it(result):
    text = repr(result)
    assert result.answer in text and str(result.report) in text and "undecided" in text
    page = result._repr_html_()
    assert page.count("<div") == page.count("</div>") and page.count("<style>") == 1
    for part in (result.answer, "data:image/png;base64,", "more figures", str(result.report)):
        assert part in page
    assert "<body" not in page and "\nbody" not in page and ":root" not in page
    assert repr(result["full"]).startswith("Arm('full': target/accuracy 0.")
    assert repr(result["scratch"]).endswith(", the baseline)")


def test_a_finished_run_is_opened(result):
    opened = jaxtl.open(str(result.directory), experiment())
    numbers = [  # another test may have called the finished run again
        {key: value for key, value in each.summary.items() if key != "seconds"}
        for each in (opened, result)
    ]
    assert numbers[0] == numbers[1] and opened.directory == result.directory
    for seed in (0, 1):
        ours, theirs = (each["full"].predict(ROWS, seed) for each in (result, opened))
        np.testing.assert_array_equal(ours["features"], theirs["features"])
    unread = jaxtl.open(result.directory)
    assert unread["full"].gain == result["full"].gain
    with pytest.raises(ValueError, match="a program made the experiment"):
        unread["full"].load()
    other = jaxtl.open(result.directory, experiment(steps=7))
    other["full"].predict(ROWS)  # its model is the same
    with pytest.raises(ValueError, match="holds no run; expected a directory"):
        jaxtl.open(result.directory / "stages")


def test_a_result_does_not_hand_out_what_another_run_trained(result, tmp_path):
    place = tmp_path / "experiment"
    shutil.copytree(result.directory, place)
    before, untouched = jaxtl.open(place, experiment()), jaxtl.open(place, experiment())
    early = untouched["scratch"].params
    path = place / "stages/scratch/stage.json"
    record = json.loads(path.read_text())
    record["identity"]["steps"] += 1  # as one that was trained for longer says
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"stage 'scratch' in .* was trained anew, as something"):
        before["scratch"].load()
    assert untouched["scratch"].params is early  # it was read in time


def test_points_of_a_sweep(result):
    arms, models = result.summary["arms"], Models(result.directory, experiment())
    points = [{"config": {"rate": rate}, "arms": arms} for rate in (0.1, 0.5)]
    swept = Result({**result.summary, "sweep": points}, result.directory, models)
    assert [point.config for point in swept.points] == [{"rate": 0.1}, {"rate": 0.5}]
    point = swept.points[1]
    np.testing.assert_array_equal(point["full"].values, swept["full"].values)
    with pytest.raises(ValueError, match="at a point of a sweep has numbers only"):
        point["full"].predict(ROWS)
    frame = swept.to_frame()
    assert list(frame.columns)[:2] == ["rate", "arm"]
    rates = frame[(frame.arm == "full") & (frame.seed == 0) & (frame.metric == "target/accuracy")]
    assert math.isnan(rates.rate.iloc[0]) and list(rates.rate[1:]) == [0.1, 0.5]


def test_the_page_says_how_to_go_on_in_python():
    seeds = [0, 1, 2]
    text = wording.command_with_seeds(
        "jaxtl.run('a.py', seeds=3, arms=['x'], overwrite='all', workdir='runs')",
        *(["x", "y"], seeds, 7),
    )
    assert text == "jaxtl.run('a.py', seeds=7, arms=['x', 'y'], workdir='runs')"
    listed = wording.command_with_seeds("jaxtl.run(experiment, seeds=[3, 5])", [], [3, 5], 4)
    assert listed == "jaxtl.run(experiment, seeds=[3, 5, 0, 1])"
    assert wording.command_with_seeds("jaxtl.run(<x>)", [], seeds, 7) == "seeds=7"
