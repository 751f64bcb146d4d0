"""Raw rows: prepared as the data were, by what the run left, in Python and in exported files."""

import json
import shutil

import jax
import numpy as np
import pytest
from preparing import ROWS

import jaxtl
from jaxtl import cli

FAR, NEAR = ROWS["far"], ROWS["near"]


def standardized(rows, like):
    """By hand: with the ratio of the first two columns, by the statistics of `like`."""
    rows, like = (np.concatenate([x, x[:, :1] / x[:, 1:2]], 1) for x in (rows, like))
    return ((rows - like.mean(0, dtype=float)) / like.std(0, dtype=float)).astype(np.float32)


def accuracy(logits, labels):
    return np.mean(np.argmax(logits, 1) == labels)


def test_raw_rows_give_what_was_measured(prepared):
    run, measured = prepared
    predictor = jaxtl.load(run, "random")
    logits = predictor.predict(FAR)["logits"]["ill"]  # as the evaluation of the primary metric
    assert accuracy(logits, ROWS["label"]) == pytest.approx(measured["far"])
    expected, _ = predictor.model.apply(
        predictor.params, predictor.state.statistics, standardized(FAR, FAR)
    )
    np.testing.assert_allclose(logits, expected["logits"]["ill"], atol=1e-3)
    assert np.std(logits) > 0.1

    near = predictor.predict(NEAR, like="near")["logits"]["ill"]
    assert accuracy(near[8:], ROWS["label"][8:]) == pytest.approx(measured["near"])
    again = predictor.predict(standardized(NEAR, NEAR), raw=False)["logits"]["ill"]
    np.testing.assert_allclose(near, again, atol=1e-3)
    by_domain = [predictor.predict(NEAR, like=f"domain {i}")["logits"]["ill"] for i in (0, 1)]
    np.testing.assert_array_equal(by_domain[0], near)
    assert np.abs(by_domain[1] - near).max() > 0.1
    with pytest.raises(ValueError, match="unknown evaluation or domain 'nera'"):
        predictor.predict(NEAR, like="nera")


def test_rows_may_be_lists_and_other_numbers(prepared):
    predictor = jaxtl.load(prepared[0], "random")
    whole = np.rint(FAR)
    expected = predictor.predict(whole)["logits"]["ill"]
    for rows in (
        whole.tolist(),
        whole.astype(np.int64),
        whole.astype(object),
        jax.numpy.array(whole),
    ):
        np.testing.assert_array_equal(predictor.predict(rows)["logits"]["ill"], expected)


def test_no_rows_and_a_line(prepared):
    predictor = jaxtl.load(prepared[0], "random")
    expected = "arm 'random', stage 'random', seed 1: float32[n, 3] -> ill[n, 2]"
    assert repr(predictor) == f"Predictor({expected})"
    for rows in ([], np.zeros((0, 3))):
        output = predictor.predict(rows)
        assert output["logits"]["ill"].shape == (0, 2) and output["features"].shape[0] == 0


def with_holes():
    rows = FAR.copy()
    rows[2, 1], rows[5, :2] = np.nan, np.inf
    return rows


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (with_holes(), "once prepared, 5 values in 2 of 12 rows are not finite"),  # ratios too
        (FAR[0], "float32[3] has one row, without their axis"),
        (FAR[:, :2], "float32[12, 2] has 2 columns, not 3"),
        (np.zeros((4, 1)), "float64[4, 1] has 1 columns, not 3"),
        (FAR[:, None], "float32[12, 1, 3] has 3 axes, not 2"),
        (["a", "b"], "<U1[2] has one row, without"),
        ([[1, 2, 3], [4, 5]], "is no array of rows"),
        ([["1", 2, 3]], "<U21 is not a dtype of numbers"),
        (np.array([["1", 2, 3]], object), "texts among its numbers"),
        ({"x": FAR}, "expected an array, got {x}"),
        (np.array([["2020-01-01"] * 3], "M8[D]"), "datetime64[D] is not a dtype of numbers"),
        (FAR.astype(complex), "complex128 is not a dtype of numbers"),
        (np.ma.masked_greater(FAR, 1300), "masked values"),
        (FAR.tolist()[0], "float64[3] has one row"),
        (FAR.astype(float) * 1e300, "values in 12 of 12 rows are not finite"),
        ([[1, None, 2]], "2 values in 1 of 1 rows are not finite"),
    ],
)
def test_rows_that_are_none(prepared, rows, expected):
    with pytest.raises(ValueError, match="stage 'random' does not read these rows") as error:
        jaxtl.load(prepared[0], "random").predict(rows)
    assert expected in str(error.value)
    assert "it was trained on float32[n, 3]; rows that are prepared go with" in str(error.value)


def test_a_run_that_did_not_write_it_down(prepared, tmp_path, caplog):
    run = shutil.copytree(prepared[0], tmp_path / "runs")
    (run / "preprocessing.json").unlink()
    predictor = jaxtl.load(run, "random")
    assert "made before jaxtl wrote down how rows are prepared" in caplog.text
    expected = jaxtl.load(prepared[0], "random").predict(FAR)["logits"]["ill"]
    found = predictor.predict(standardized(FAR, FAR))["logits"]["ill"]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    with pytest.raises(ValueError, match="float32\\[n, 4\\]"):
        predictor.predict(FAR)


def test_a_program_goes_on_from_the_last_function_that_jax_cannot_trace(prepared, tmp_path, capsys):
    pytest.importorskip("flatbuffers")
    run = shutil.copytree(prepared[0], tmp_path / "runs")
    args = ["launch.py", f"--export={run}", "--format=stablehlo", "--arm=random"]
    assert cli.main(args) == 0
    code = capsys.readouterr().out.split("\n\n", 1)[1]
    note = "inputs: float32[n, 4], raw rows after map(add_ratio), as random.stablehlo.json says"
    assert note in code
    names = {"inputs": np.concatenate([FAR, FAR[:, :1] / FAR[:, 1:2]], 1)}
    exec(code, names)
    expected = jaxtl.load(run, "random").predict(FAR)["logits"]["ill"]
    np.testing.assert_allclose(names["logits"]["ill"], expected, rtol=1e-5, atol=1e-5)
    about = json.loads((run / "export" / "random.stablehlo.json").read_text())
    assert about["inputs"] == {"shape": [4], "dtype": "float32"}
    (far,) = about["preprocessing"].values()
    assert far["raw"] == {"shape": [3], "dtype": "float32"} and far["inside"] == ["standardize"]
    assert [step["name"] for step in far["before"]] == ["map(add_ratio)"]


def test_weights_come_with_the_statistics(prepared, tmp_path):
    pytest.importorskip("safetensors")
    run = shutil.copytree(prepared[0], tmp_path / "runs")
    assert cli.main(["launch.py", f"--export={run}", "--arm=random"]) == 0
    about = json.loads((run / "export" / "random.safetensors.json").read_text())
    ratio, standard = about["preprocessing"]["far"]["before"]
    assert ratio["name"] == "map(add_ratio)" and standard["kind"] == "standardize"
    with np.load(run / "export" / standard["file"]) as statistics:
        np.testing.assert_allclose(statistics["0/mean"][:3], FAR.mean(0, dtype=float))
