"""A run's directory, and a second run in it with other arms."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from measured import with_analyses

from jaxtl import report
from jaxtl.plan import Analysis, Table, Texts
from jaxtl.report import storage


def bare(arms, *analyses):
    """The arms with nothing to draw but some analyses."""
    return {
        name: dataclasses.replace(arm, analyses={each: arm.analyses[each] for each in analyses})
        for name, arm in arms.items()
    }


def only(result, *names):
    return dataclasses.replace(result, arms={name: result.arms[name] for name in names})


def test_two_runs_leave_what_one_run_of_all_arms_leaves(result, tmp_path):
    whole = report.write(only(result, "scratch", "full"), tmp_path / "whole")
    report.write(only(result, "scratch"), tmp_path / "parts")
    merged = report.write(only(result, "full"), tmp_path / "parts")
    assert merged == whole
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*")]
    assert {"summary.json", "report.html"} <= set(map(str, files))
    for file in files:
        if file.suffix in (".png", ".html", ".json"):
            assert (tmp_path / "whole" / file).read_bytes() == (
                tmp_path / "parts" / file
            ).read_bytes(), file


def logged(caplog):
    return [line for line in caplog.messages if line.startswith("arm ")]


def test_an_earlier_arm_that_counts_no_longer_vanishes_with_its_files(result, tmp_path, caplog):
    result = dataclasses.replace(result, arms=bare(result.arms, "curves"))
    first = report.write(only(result, "scratch", "full", "probe"), tmp_path / "run")
    folder = tmp_path / "run" / "report_data"
    asked = []

    def outdated(arm, point):
        asked.append((arm, point))
        return "its data have changed" if arm == "full" else ""

    second = report.write(only(result, "scratch"), tmp_path / "run", outdated)
    assert asked == [("full", {}), ("probe", {})]  # of what was measured anew nobody asks
    assert logged(caplog) == ["arm full is left out: its data have changed"]
    assert list(second["arms"]) == ["scratch", "probe"]
    assert second["arms"]["probe"] == first["arms"]["probe"]
    assert {path.stem for path in folder.iterdir()} == {"scratch", "probe"}
    assert "full" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert second == report.write(only(result, "scratch", "probe"), tmp_path / "other")
    for file in ("gains.png", "curves.png"):
        drawn = [(tmp_path / run / "figures" / file).read_bytes() for run in ("run", "other")]
        assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ((0, 1, 2), (0, 1, 2, 3), "it has the seeds 0-2 only"),
        pytest.param(*((0, 1, 2), (0, 1), "it has the seeds 0-2"), marks=pytest.mark.slow),
        pytest.param(*((3, 5), (5, 3), "it has the seeds 3, 5"), marks=pytest.mark.slow),
        pytest.param(*((4,), (4, 9), "it has the seeds 4 only"), marks=pytest.mark.slow),
    ],
)
def test_arms_with_other_seeds_are_left_out_in_a_line_each(
    make, tmp_path, caplog, before, after, said
):
    earlier, new = (make(s, arms=bare(make(s).arms)) for s in (before, after))
    report.write(earlier, tmp_path)
    new = only(new, "scratch", "full")
    assert report.write(new, tmp_path) == report.write(new, tmp_path / "alone")
    assert logged(caplog) == [
        f"arm {arm} is left out: {said}: run it with these seeds too"
        for arm in ("partial", "dann", "probe")
    ]


def test_points_that_count_no_longer_vanish(swept, tmp_path, caplog):
    points = [(point, bare(arms)) for point, arms in swept.sweep]
    swept = dataclasses.replace(swept, arms=bare(swept.arms), sweep=points)
    report.write(swept, tmp_path)
    at_one = [(point, dict(list(arms.items())[:1])) for point, arms in swept.sweep[1:2]]

    def outdated(arm, point):
        return "its weights have changed" if point and arm == "full" else ""

    summary = report.write(dataclasses.replace(swept, sweep=at_one), tmp_path, outdated)
    assert logged(caplog) == [
        "arm full at target_weight=0.1; target_weight=1.0; target_weight=10.0 is left out: "
        "its weights have changed"
    ]
    assert "full" in summary["arms"]
    assert [list(point["arms"]) for point in summary["sweep"]] == [["scratch"]] * 3
    caplog.clear()
    nothing = report.write(
        dataclasses.replace(swept, sweep=()), tmp_path, lambda arm, point: "it is old"
    )
    assert logged(caplog) == [
        "arm scratch at target_weight=0.1; target_weight=1.0; target_weight=10.0 is left out: "
        "it is old"
    ]
    assert "sweep" not in nothing and "tuned" not in nothing


def test_a_picture_that_fails_is_named_and_the_rest_is_there(result, tmp_path, caplog):
    broken = with_analyses(
        result.arms["full"],
        classes={"target": {"counts": np.zeros(3), "names": np.array(["a"])}},
        features={"points": {"target": np.zeros((3, 2))}},
    )
    broken = dataclasses.replace(broken, not_computed={"features": "MemoryError"})
    run = dataclasses.replace(result, arms={"scratch": result.arms["scratch"], "full": broken})
    report.write(run, tmp_path)
    summary = report.load_summary(tmp_path / "summary.json")
    assert summary["arms"].keys() == {"scratch", "full"}
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {
        "gains", "curves",
    }  # fmt: skip
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for picture in ("classes", "features"):
        assert f"could not draw {picture}: " in caplog.text
        assert f"<td>{picture}</td>" in text
    assert "<td>features of full</td><td><code>MemoryError</code></td>" in text


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: {"mine": "a text"}, "'mine' must be a panel such as plan.Table, got 'a text'"),
        pytest.param(
            lambda: {"gains": Table("t", "n", {})},
            "another panel of the report is called 'gains'",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda: {"mine": Table("t", "n", {"full": [1.0]})},
            "table: rows['full'] must be {name: ",
            marks=pytest.mark.slow,
        ),
        (lambda: {"mine": Table("t", "n", {"full": {"a": np.array(["x"])}})}, "could not convert"),
        pytest.param(
            lambda: {"mine": Texts("t", "n", {"full": [("word", "x")]})},
            "must be a number, got 'x'",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_panels_that_are_none_are_told_and_the_rest_is_there(
    result, tmp_path, caplog, made, message
):
    mine = Analysis("mine", lambda arm: None, lambda arms, comparison: made())
    result = dataclasses.replace(result, arms=bare(result.arms))
    arms = {name: with_analyses(arm, mine=np.ones(5)) for name, arm in result.arms.items()}
    run = dataclasses.replace(result, arms=arms, analyses=[*result.analyses, mine])
    summary = report.write(run, tmp_path)
    (line,) = [line for line in caplog.messages if line.startswith("could not draw mine: ")]
    assert message in line
    assert list(summary["panels"]) == list(report.write(result, tmp_path / "without")["panels"])
    assert "<td>mine</td>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_damaged_file_of_an_earlier_run_costs_its_arm_only(result, tmp_path, caplog):
    result = dataclasses.replace(result, arms=bare(result.arms))
    report.write(only(result, "scratch", "full"), tmp_path)
    storage.path_of(tmp_path / "report_data", "full").write_bytes(b"PK")
    report.write(only(result, "scratch"), tmp_path)
    assert "could not draw all of full: " in caplog.text
    assert (tmp_path / "figures" / "gains.png").exists()  # its numbers are in the summary
    assert "full" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_file_of_another_version_is_refused_in_a_sentence(result, tmp_path, caplog):
    result = dataclasses.replace(result, arms=bare(result.arms, "curves"))
    report.write(only(result, "scratch", "full"), tmp_path)
    header = json.dumps({"keys": [], "values": {"name": "full", "class_names": {}}})
    np.savez(storage.path_of(tmp_path / "report_data", "full"), header=header)
    summary = report.write(only(result, "scratch"), tmp_path)
    why = "another version of jaxtl wrote full.npz; run arm 'full' again"
    assert f"could not draw all of full: ValueError: {why}" in caplog.text
    assert summary["arms"].keys() == {"scratch", "full"}  # its numbers are in the summary
    storage.path_of(tmp_path / "report_data", "full").unlink()
    report.write(only(result, "scratch"), tmp_path)
    assert "could not draw all of full: FileNotFoundError: " in caplog.text


def test_stored_arm_reads_back(result, tmp_path):
    arm = dataclasses.replace(
        with_analyses(result.arms["partial"], change=np.ones(5), tasks={"a/b": np.array("c d")}),
        name="a/b c",
        train_seconds=None,
        failures={3: ("pretrain", 7)},
    )
    storage.save(tmp_path, arm)
    assert storage.path_of(tmp_path, "a/b c").parent == tmp_path
    back = storage.load(tmp_path, "a/b c")
    for field in dataclasses.fields(arm):
        expected, found = getattr(arm, field.name), getattr(back, field.name)
        if field.name in ("metrics", "analyses"):
            assert list(jax.tree.leaves_with_path(found)) and list(found) == list(expected)
            jax.tree.map(
                functools.partial(np.testing.assert_array_equal, strict=True), found, expected
            )
            if field.name == "analyses":
                assert list(found["curves"]) == ["pretrain", "partial"]
                assert list(found["curves"]["partial"]) == ["step", "loss", "accuracy"]
        else:
            assert found == expected, field.name


def test_pickles_are_neither_written_nor_read(result, tmp_path):
    arm = with_analyses(result.arms["full"], mine={"t": np.array([{}], object)})
    with pytest.raises(ValueError, match="allow_pickle"):
        storage.save(tmp_path, arm)
