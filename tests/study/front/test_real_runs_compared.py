"""What a run really leaves is what comparing reads."""

import dataclasses
import shutil

import pytest
from tiny import experiment, run_tiny

import jaxtl
from jaxtl.study.front.across.budget import stage_of
from jaxtl.study.front.across.finished import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    run_tiny(directory, arms=("scratch",), plan=dataclasses.replace(experiment(), analyses=()))
    return directory


def test_the_budget_of_a_real_run_is_read(run):
    finished = read_run(run)
    stages = experiment().arms["scratch"]
    assert finished.chains == {"scratch": tuple(stage.name for stage in stages)}
    spent = stage_of(finished.blocks[stages[0].name])
    assert (spent.steps, spent.batch_size) == (stages[0].num_steps, stages[0].batch_size)
    assert spent.rows["domain 0"].keys() == {"0", "1"} and spent.weights is None


def test_a_copy_of_a_run_has_the_same_numbers(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    row = jaxtl.compare([run, tmp_path / "copy"]).facts.rows[1]
    assert (row.verdict, row.doubt) == ("undecided", "the same numbers in every seed")
