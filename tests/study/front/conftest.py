import dataclasses

import pytest
from tiny import OPTIONS, experiment

import jaxtl
from jaxtl.measure.analyses import classes


@pytest.fixture(scope="session")
def quiet():
    """Arguments of a call that says nothing and chooses no compilation cache."""
    return {"options": dataclasses.replace(OPTIONS, compilation_cache=""), "progress": False}


@pytest.fixture(scope="session")
def result(tmp_path_factory, quiet):
    """Of the tiny experiment, made by a call with a value."""
    return jaxtl.run(experiment(analyses=[classes()]), 2, tmp_path_factory.mktemp("runs"), **quiet)
