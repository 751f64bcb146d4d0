"""A run's directory, and a second run in it with other arms."""

import dataclasses

import numpy as np
import pytest

from jaxtl import report
from jaxtl.report import storage


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


def test_a_picture_that_fails_is_named_and_the_rest_is_there(result, tmp_path, caplog):
    broken = dataclasses.replace(
        result.arms["full"],
        confusion={"target": np.zeros(3)},
        features={"target": (np.zeros((3, 2)), np.zeros(1))},
        not_drawn={"features": "MemoryError"},
    )
    run = dataclasses.replace(result, arms={"scratch": result.arms["scratch"], "full": broken})
    report.write(run, tmp_path)
    summary = report.load_summary(tmp_path / "summary.json")
    assert summary["arms"].keys() == {"scratch", "full"}
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {
        "gains", "curves",
    }  # fmt: skip
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for picture in ("confusion_target", "per_class_target", "class_gains_target", "features"):
        assert f"could not draw {picture}: " in caplog.text
        assert f"<td>{picture}</td>" in text
    assert "<td>features of full</td><td><code>MemoryError</code></td>" in text


def test_a_damaged_file_of_an_earlier_run_costs_its_arm_only(result, tmp_path, caplog):
    bare = {"curves": {}, "confusion": {}, "features": {}}
    arms = {name: dataclasses.replace(arm, **bare) for name, arm in result.arms.items()}
    result = dataclasses.replace(result, arms=arms)
    report.write(only(result, "scratch", "full"), tmp_path)
    storage.path_of(tmp_path / "report_data", "full").write_bytes(b"PK")
    report.write(only(result, "scratch"), tmp_path)
    assert "could not draw all of full: " in caplog.text
    assert (tmp_path / "figures" / "gains.png").exists()  # its numbers are in the summary
    assert "full" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_stored_arm_reads_back(result, tmp_path):
    arm = dataclasses.replace(result.arms["partial"], name="a/b c", train_seconds=None)
    storage.save(tmp_path, arm)
    assert storage.path_of(tmp_path, "a/b c").parent == tmp_path
    back = storage.load(tmp_path, "a/b c")
    for field in dataclasses.fields(arm):
        expected, found = getattr(arm, field.name), getattr(back, field.name)
        if field.name in ("metrics", "forgetting", "confusion"):
            assert expected.keys() == found.keys()
            for key in expected:
                np.testing.assert_array_equal(found[key], expected[key], strict=True)
        elif field.name == "curves":
            np.testing.assert_array_equal(
                found["pretrain"]["loss"], expected["pretrain"]["loss"], strict=True
            )
            assert list(found) == list(expected) and list(found["partial"]) == [
                "step", "loss", "accuracy",
            ]  # fmt: skip
        elif field.name == "features":
            for domain, pair in expected.items():
                for left, right in zip(found[domain], pair, strict=True):
                    np.testing.assert_array_equal(left, right, strict=True)
        else:
            assert found == expected, field.name


def test_pickles_are_neither_written_nor_read(result, tmp_path):
    arm = dataclasses.replace(result.arms["full"], confusion={"t": np.array([{}], object)})
    with pytest.raises(ValueError, match="allow_pickle"):
        storage.save(tmp_path, arm)
