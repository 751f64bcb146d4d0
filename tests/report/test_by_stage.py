"""The matrix of evaluations after each stage, of a result with known numbers."""

import numpy as np
import pytest

from jaxtl import report
from jaxtl.measure.analyses.tasks import grid, history_panels
from jaxtl.measure.analyses.tasks import mean_change as backward_transfer
from jaxtl.measure.results import ArmResult
from jaxtl.plan import Metric, maximize
from jaxtl.report.figures.draw import draw
from jaxtl.report.summary import summarize

SEEDS = (0, 1)
STAGES = ("task_1", "ewc_task_2", "ewc_task_3")
MATRIX = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.3], [0.6, 0.75, 0.5]])
OWN = {f"task_{i + 1}": stage for i, stage in enumerate(STAGES)}
NOISE = np.array([-0.01, 0.03])
PRIMARY = maximize("mean", "accuracy")


def rows(matrix=MATRIX, stages=STAGES):
    return {
        stage: {f"task_{i + 1}/accuracy": value + (i + 1) * NOISE for i, value in enumerate(row)}
        for stage, row in zip(stages, matrix, strict=True)
    }


def declared(keys, better="max"):
    return {key: Metric.read(key, better) for key in keys}


@pytest.fixture
def continual(make):
    final = {"mean/accuracy": np.array([0.6, 0.65]), **rows()["ewc_task_3"]}
    joint = ArmResult("joint", ("joint",), {"mean/accuracy": np.array([0.8, 0.9])})
    analyses = {
        "by_stage": rows(),
        "own_stages": {task: np.array(stage) for task, stage in OWN.items()},
        "backward_transfer": backward_transfer(rows(), OWN, declared(rows()["task_1"])),
    }
    arms = {"joint": joint, "ewc": ArmResult("ewc", STAGES, final, analyses=analyses)}
    ways = tuple(declared(rows()["task_1"]).values())
    return make(SEEDS, arms=arms, baseline="joint", primary=PRIMARY, declared=ways)


def test_backward_transfer_by_hand():
    """(0.6 - 0.9 + 0.75 - 0.7) / 2 for each seed: what varies with the seed cancels."""
    better, worse = (declared(rows()["task_1"], way) for way in ("max", "min"))
    np.testing.assert_allclose(backward_transfer(rows(), OWN, better), [-0.125, -0.125])
    np.testing.assert_allclose(backward_transfer(rows(), OWN, worse), [0.125, 0.125])
    assert backward_transfer(rows(), {}, better) is None
    del better["task_1/accuracy"]  # nobody says which way it is better
    np.testing.assert_allclose(backward_transfer(rows(), OWN, better), [0.05, 0.05])


def test_what_stages_are_called_does_not_matter():
    """2 and task_12 are no task of task_2, whatever their ends; what is declared is."""
    stages = ("pretrain_task_3", "task_12", "2")
    own = {f"task_{i + 1}": stage for i, stage in enumerate(stages)}
    better = declared(rows()["task_1"])
    found = backward_transfer(rows(stages=stages), own, better)
    np.testing.assert_allclose(found, [-0.125, -0.125])


def test_an_evaluation_that_its_stage_did_not_measure_does_not_count():
    found = rows()
    del found["ewc_task_2"]["task_2/accuracy"]
    better = declared(found["task_1"])
    np.testing.assert_allclose(backward_transfer(found, OWN, better), [-0.3, -0.3])


def test_summary_has_the_matrix(continual):
    arms = summarize(continual)["arms"]
    assert "by_stage" not in arms["joint"] and "backward_transfer" not in arms["joint"]
    ewc = arms["ewc"]
    assert list(ewc["by_stage"]) == list(STAGES)
    cell = ewc["by_stage"]["ewc_task_2"]["task_1/accuracy"]
    assert cell.keys() == {"mean", "ci95", "per_seed"}
    np.testing.assert_allclose(cell["per_seed"], [0.79, 0.83])
    np.testing.assert_allclose(ewc["backward_transfer"]["mean"], -0.125)
    matrix = grid("ewc", rows(), OWN)
    assert matrix.rows == ["task_1", "task_2", "task_3"] == matrix.columns  # ewc_ says nothing new
    assert matrix.framed == [(0, 0), (1, 1), (2, 2)]
    np.testing.assert_allclose(matrix.values, MATRIX + np.array([0.01, 0.02, 0.03]))


def test_report_shows_matrix_and_backward_transfer(continual, tmp_path):
    report.write(continual, tmp_path)
    assert (tmp_path / "figures" / "by_stage.png").stat().st_size > 5_000
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "After each stage" in text and "backward transfer, accuracy" in text
    assert "-0.125" in text and "0.810" in text  # task 1 after stage 2


def test_half_empty_and_undefined_matrices_are_drawn(continual, tmp_path):
    """Another metric, a stage that measured less, and an arm all of whose seeds failed."""
    wide = {
        "x": {"far/mse": np.array([7.5, 7.5])},
        "y": {"far/mse": np.array([3.0, np.nan]), "new/mse": np.array([9.0, 9.0])},
    }
    for history in (wide, {"x": {"far/mse": np.full(2, np.nan)}}):
        panels = history_panels({"ewc": history}, continual)
        figures, failures = draw(summarize(continual), panels, tmp_path)
        assert failures == {} and figures["by_stage"].stat().st_size > 5_000
    np.testing.assert_array_equal(grid("ewc", wide, {}).values, [[7.5, np.nan], [3.0, 9.0]])
