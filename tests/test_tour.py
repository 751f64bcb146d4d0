"""The notebook of experiments/ is clean, and its cells do what its text says."""

import json
from pathlib import Path

import pytest

from jaxtl.experiment_file import known_experiments

TOUR = Path(__file__).parents[1] / "experiments" / "tour.ipynb"
CELLS = [
    "".join(cell["source"])
    for cell in json.loads(TOUR.read_text())["cells"]
    if cell["cell_type"] == "code"
]
SMALLER = {
    "seeds=3": "seeds=2",
    "num_steps=200": "num_steps=8",
    "steps=30": "steps=8",
    'primary=maximize("new", "accuracy")': 'primary=maximize("new", "accuracy"), analyses=()',
}


def test_the_notebook_is_clean_and_no_experiment(monkeypatch):
    monkeypatch.chdir(TOUR.parents[1])
    assert TOUR.stem not in known_experiments()
    notebook = json.loads(TOUR.read_text())
    for cell in notebook["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_a_fork_and_a_loop_of_ones_own_run(monkeypatch):
    """Its fast cells, with fewer steps, from the folder that Jupyter starts in."""
    monkeypatch.chdir(TOUR.parent)
    namespace = {"__name__": "tour"}
    exec("import jaxtl\nimport numpy as np\nfrom jaxtl import data, paths", namespace)
    chosen = [cell for cell in CELLS if "def build" in cell or "class Net" in cell]
    assert len(chosen) == 2
    for cell in chosen:
        for text, smaller in SMALLER.items():
            cell = cell.replace(text, smaller)
        exec(compile(cell, "tour.ipynb", "exec"), namespace)
    short = namespace["short"]
    assert short.directory.name == "short" and short.keys() == {"scratch", "full", "top"}
    assert namespace["loss"] < 1 and namespace["merged"].keys() == {"backbone"}


@pytest.mark.slow
def test_a_kernel_runs_it_as_it_is():
    nbclient, nbformat = (pytest.importorskip(name) for name in ("nbclient", "nbformat"))
    notebook = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(TOUR.parent)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pages = [
        output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})
    ]
    assert any("jaxtl.jaxtl" in page and "data:image/png" in page for page in pages)
    progress = next(page for page in pages if "stage <b>full</b>" in page)
    assert "<progress" not in progress and "stage 3 of 3" in progress  # it was taken away
