"""A whole run evaluates what is frozen once for each example, and a second run not at all."""

import jax
import numpy as np
import optax
import pytest
from counted_rows import counted_model, rows_computed
from safetensors.numpy import save_file
from tiny import blobs

import jaxtl
from jaxtl import pretrained
from jaxtl.features import FeatureStore, feature_store, shared
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.paths import flatten
from jaxtl.plan import Experiment, Stage, labelled, maximize
from jaxtl.pretrained import Entry, Scheme

PLAIN = Scheme("plain", Entry, (), {})
HEADS = {"label": classes(3)}
ROWS = {"train": 40, "test": 24, "other": 13}
BATCH = 16


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The file of a backbone."""
    path = tmp_path_factory.mktemp("published") / "w.safetensors"
    params, _ = counted_model(HEADS).init(jax.random.key(3), np.zeros((1, 5), np.float32))
    leaves = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    save_file({name: leaf for name, leaf in leaves.items() if "heads" not in name}, path)
    return path


def experiment(published, shift=0.0, rate=1e-2, steps=9):
    model, weights = counted_model(HEADS), pretrained.weights(published, [PLAIN])
    parts = {name: blobs(name, n, shift, seed=n) for name, n in ROWS.items()}
    methods = {
        "probe": transfer.probe(optax.adam(rate)),
        "partial": transfer.partial(optax.adam(rate), freeze=("backbone/a/.*",)),
        "ridge": transfer.ridge(),
    }

    def stage(name):
        method = methods[name]
        return Stage(
            name,
            model,
            method,
            domains=[labelled(parts["train"], "label")],
            batch_size=8,
            num_steps=steps if method.updates else 0,
            weights=weights,
            fresh=("heads/.*",),
        )

    return Experiment(
        arms={name: [stage(name)] for name in methods},
        baseline="probe",
        evals={name: classification(parts[name], "label") for name in ("test", "other")},
        primary=maximize("test", "accuracy"),
    )


def padded(*names):
    """Rows of the batches in which these examples are computed."""
    return sum(-(-ROWS[name] // BATCH) * BATCH for name in names)


def run_of(experiment, folder, workdir, monkeypatch, **options):
    """(summary, rows that the first block was evaluated on) of a run in a process of its own."""
    monkeypatch.setattr(shared, "_store", FeatureStore())
    rows_computed()
    options = {"compilation_cache": "", "feature_folder": str(folder), **options}
    result = jaxtl.run(experiment, 2, workdir, options=options, progress=False)
    return result.summary, rows_computed()


@pytest.fixture
def all_is_worth_keeping(monkeypatch):
    monkeypatch.setattr(feature_store, "WRITE_SECONDS", 0)
    monkeypatch.setattr(feature_store, "READ_BYTES_PER_SECOND", 1e30)


@pytest.mark.usefixtures("all_is_worth_keeping")
def test_a_run_and_the_next_one(published, tmp_path, monkeypatch):
    folder = tmp_path / "features"
    first, rows = run_of(experiment(published), folder, tmp_path / "one", monkeypatch)
    # Two prefixes, after a and after b, on all examples each: of 2 seeds, 3 arms, 2 evaluations.
    assert rows == 2 * padded("train", "test", "other")
    assert first["features"]["computed"] == 2 * sum(ROWS.values())
    assert first["features"]["from_memory"] > 2 * sum(ROWS.values())

    second, rows = run_of(experiment(published), folder, tmp_path / "two", monkeypatch)
    assert rows == 0 and second["features"]["computed"] == 0
    assert second["features"]["from_disk"] > 0
    for arm, values in first["arms"].items():
        assert values["metrics"] == second["arms"][arm]["metrics"]


@pytest.mark.slow
@pytest.mark.usefixtures("all_is_worth_keeping")
def test_what_matters_to_the_next_run_and_what_does_not(published, tmp_path, monkeypatch):
    folder = tmp_path / "features"
    run_of(experiment(published), folder, tmp_path / "one", monkeypatch)
    other = experiment(published, rate=2e-2, steps=5)  # trains behind what is frozen
    assert run_of(other, folder, tmp_path / "two", monkeypatch)[1] == 0
    edited = experiment(published, shift=1)
    rows = run_of(edited, folder, tmp_path / "three", monkeypatch)[1]
    assert rows == 2 * padded("train", "test", "other")


@pytest.mark.slow
def test_without_a_folder_and_without_the_cache(published, tmp_path, monkeypatch):
    plan, folder = experiment(published), tmp_path / "features"
    kept, rows = run_of(plan, "", tmp_path / "one", monkeypatch)
    assert rows == 2 * padded("train", "test", "other") and not folder.exists()
    plain, rows = run_of(plan, "", tmp_path / "two", monkeypatch, feature_cache=False)
    assert rows > 4 * padded("train", "test", "other")
    for arm, values in kept["arms"].items():
        for name, metric in values["metrics"].items():
            expected = plain["arms"][arm]["metrics"][name]["per_seed"]
            np.testing.assert_allclose(metric["per_seed"], expected, rtol=1e-4, err_msg=name)
