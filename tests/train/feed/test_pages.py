"""Training from data that stay on the host or on disk: the same batches, the same bits."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import optax
import pytest
from prepared_dataset import png, prepare
from tiny import (
    OPTIONS,
    assert_same,
    train,
)

from jaxtl import data, models
from jaxtl.data import streamed
from jaxtl.data.streamed import Streamed, is_streamed, read_ahead
from jaxtl.data.table import Call
from jaxtl.measure.evaluate import Evaluator
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Stage, State, labelled
from jaxtl.study.checks.experiments import leaks
from jaxtl.train.feed import examples
from jaxtl.train.feed.examples import (
    make_feed,
    make_streams,
    on_device,
    page_steps,
    pages,
)
from jaxtl.train.feed.order import index_block
from jaxtl.train.feed.pace import dispatches
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.signals import Interrupted

SEEDS = (0, 1)
ROWS = 50
HEADS = {"source": classes(3)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data directory with one prepared dataset of 50 images of noise in three levels of grey."""
    tfds = pytest.importorskip("tensorflow_datasets")
    features = {
        "image": tfds.features.Image(shape=(6, 5, 1)),
        "label": tfds.features.ClassLabel(num_classes=3),
    }

    def example(i):
        level = 60 * (i % 3)
        pixels = np.random.default_rng(i).integers(level, level + 100, (6, 5))
        return {"image": png(pixels.astype(np.uint8)), "label": i % 3}

    path = tmp_path_factory.mktemp("tfds")
    prepare(path, "JaxtlTestPages", features, {"train": [example(i) for i in range(ROWS)]})
    return path


@pytest.fixture(scope="module")
def datasets(root):
    """{how: dataset} of the same images."""
    return {
        name: data.tfds("jaxtl_test_pages", "train", data_dir=root, streamed=name == "streamed")
        for name in ("streamed", "resident")
    }


def stage(*sets, steps=23, method=None, **more):
    model = models.mlp(HEADS, hidden=(8, 7), dropout=0.1)
    domains = [labelled(dataset, "source") for dataset in sets]
    method = method or transfer.full(optax.adam(1e-2))
    return Stage("paged", model, method, domains=domains, batch_size=8, num_steps=steps, **more)


def assert_same_run(a, b):
    assert_same(a.params, b.params)
    assert a.curves.keys() == b.curves.keys()
    for key, values in b.curves.items():
        np.testing.assert_array_equal(a.curves[key], values)


@pytest.fixture(scope="module")
def resident(datasets, tmp_path_factory):
    return train(stage(datasets["resident"]), tmp_path_factory.mktemp("resident"))


def test_streamed_training_ends_with_the_same_bits(datasets, resident, tmp_path):
    run = train(stage(datasets["streamed"]), tmp_path)
    assert_same_run(run, resident)
    assert resident.curves["loss"][-5:].mean() < resident.curves["loss"][:5].mean() - 0.01


def test_a_streamed_stage_stopped_and_resumed_ends_with_the_same_bits(datasets, resident, tmp_path):
    def stop(step, metrics):
        if step in (5, 15):
            os.kill(os.getpid(), signal.SIGINT)

    for step in (9, 19):
        with pytest.raises(Interrupted):
            train(stage(datasets["streamed"]), tmp_path, progress=stop)
        assert (tmp_path / "checkpoints" / str(step)).is_dir()
    assert_same_run(train(stage(datasets["streamed"]), tmp_path), resident)


@pytest.mark.slow
def test_inputs_above_the_limit_stay_on_the_host(tmp_path):
    rng = np.random.default_rng(0)
    wide = data.arrays(rng.normal(size=(300, 1000)).astype(np.float32), np.arange(300) % 3)
    plan = stage(wide, wide.few(5), steps=9)
    small, large = (dataclasses.replace(OPTIONS, device_data_mb=mb) for mb in (1, 9))
    replicas = over_seeds(resolve(plan, None), SEEDS)
    feeds = [make_feed(replicas, options) for options in (small, large, OPTIONS)]
    assert [on_device(feed) for feed in feeds] == [False, True, True]
    runs = [train(plan, tmp_path / str(i), options=o) for i, o in enumerate((small, large))]
    assert_same_run(*runs)


def slow(values):
    """A dataset whose rows are read after a while that differs from read to read."""

    def read(rows):
        time.sleep(random.random() / 100)
        return values[rows]

    lazy = Streamed(values.shape, values.dtype, read)
    table = data.Table(lazy, {"label": np.arange(len(values), dtype=np.int32) % 3})
    return data.Dataset("slow", Call(constant, (table,)))


def constant(table):
    return table


def test_pages_read_ahead_keep_the_order():
    values = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
    plan = stage(slow(values), slow(-values).take(9), steps=31)
    replicas = over_seeds(resolve(plan, None), SEEDS)
    feed, streams = make_feed(replicas, OPTIONS), make_streams(replicas)
    bounds = list(dispatches(7, 31, (OPTIONS.checkpoint_every, 0), lambda: 4))
    assert [start for start, _ in bounds] == [7, 10, 14, 15, 19, 20, 24, 25, 29, 30]
    found = list(pages(feed, streams, bounds, 4, plan.batch_size))
    assert [bound for bound, _, _ in found] == bounds
    for (start, stop), rows, places in found:
        block = index_block(make_streams(replicas), start, stop - start, plan.batch_size)
        for d, sign in enumerate((1, -1)):
            for s in range(len(SEEDS)):
                at = places[s, : stop - start, :, d]
                read = rows.per_replica[d]["inputs"][s][at]
                np.testing.assert_array_equal(read, sign * values[block[s, ..., d]])
                labels = rows.per_replica[d]["labels"]["source"][s][at]
                np.testing.assert_array_equal(labels, block[s, ..., d] % 3)
                known = np.isin(block[s, ..., d], plan.domains[d].dataset.rows(SEEDS[s]))
                weights = rows.per_replica[d]["weights"]["source"][s][at]
                np.testing.assert_array_equal(weights, known)


def test_reading_stops_with_its_reader(monkeypatch):
    monkeypatch.setattr(streamed, "THREADS", 2)
    read = []
    ahead = read_ahead(lambda item: read.append(item) or item, range(1000), required=True)
    assert [next(ahead), next(ahead)] == [0, 1]
    ahead.close()
    time.sleep(0.05)
    assert len(read) < 10


def test_an_error_while_reading_reaches_the_loop(tmp_path):
    def broken(rows):
        if 30 in rows:
            raise ValueError("cannot read image 30")
        return np.zeros((len(rows), 4), np.float32)

    lazy = Streamed((ROWS, 4), np.float32, broken)
    table = data.Table(lazy, {"label": np.zeros(ROWS, np.int32)})
    with pytest.raises(ValueError, match="cannot read image 30"):
        train(stage(data.Dataset("broken", Call(constant, (table,)))), tmp_path)


def test_without_grain(datasets, resident, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ValueError, match=r"needs grain.*pip install 'jaxtl\[stream\]'"):
        train(stage(datasets["streamed"]), tmp_path / "streamed")
    options = dataclasses.replace(OPTIONS, feature_cache_mb=0)  # features on disk do without
    method = dataclasses.replace(
        transfer.partial(optax.adam(1e-2), freeze=("backbone/dense_0/.*",)), fresh_frozen=True
    )
    model = models.mlp(HEADS, hidden=(8, 7))
    frozen = [
        dataclasses.replace(stage(dataset, method=method), model=model)
        for dataset in (datasets["streamed"], datasets["resident"])
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a = train(frozen[0], tmp_path / "a", options=options)
    b = train(frozen[1], tmp_path / "b")
    assert "cached on disk" in a.note and "cached in memory" in b.note
    assert_same_run(a, b)


def test_features_of_streamed_inputs_are_cached(datasets, tmp_path):
    method = dataclasses.replace(
        transfer.partial(optax.adam(1e-2), freeze=("backbone/dense_0/.*",)), fresh_frozen=True
    )
    model = models.mlp(HEADS, hidden=(8, 7))
    runs = []
    for name, dataset in datasets.items():
        plan = dataclasses.replace(stage(dataset, method=method), model=model)
        (tmp_path / name).mkdir()
        runs.append(train(plan, tmp_path / name))
    assert all("cached in memory" in run.note for run in runs)
    assert_same_run(*runs)


def test_a_page_is_not_large(datasets, monkeypatch):
    plan = stage(datasets["streamed"])
    replicas = over_seeds(resolve(plan, None), SEEDS)
    feeds = [
        make_feed(over_seeds(resolve(stage(d), None), SEEDS), OPTIONS) for d in datasets.values()
    ]
    step = len(SEEDS) * plan.batch_size * (6 * 5 + 4 * 4)  # image, label, weight, present, index
    for pages_of, most in ((3 * step, 3), (step - 1, 1), (99 * step, 16)):
        monkeypatch.setattr(examples, "PAGE_BYTES", pages_of)
        assert page_steps(feeds[0], replicas, 16) == most
        assert page_steps(feeds[1], replicas, 16) == 16


@pytest.mark.parametrize("drawn", ["all", "per seed"])
def test_a_streamed_evaluation_measures_the_same(datasets, drawn):
    model = models.mlp(HEADS, hidden=(8, 7))
    init = jax.vmap(lambda seed: model.init(jax.random.key(seed), np.zeros((1, 6, 5, 1))))
    params, statistics = init(np.arange(2))
    state, measured = State(statistics), {}
    for name, dataset in datasets.items():
        dataset = dataset if drawn == "all" else dataset.take(33)
        evals = {"eval": classification(dataset, "source")}
        for limit in (np.inf, 0):
            evaluator = Evaluator(evals, SEEDS, 8, limit=limit)
            for _ in range(2):
                found = evaluator.measure(model, stage().method, params, state, {"source"})
            measured[name, limit] = found["eval"]
    expected = measured["resident", np.inf]
    assert len(set(expected.metrics["loss"])) == 2
    assert expected.confusion.sum() == 2 * (ROWS if drawn == "all" else 33)
    for result in measured.values():
        np.testing.assert_array_equal(result.confusion, expected.confusion)
        for metric, values in expected.metrics.items():
            np.testing.assert_array_equal(result.metrics[metric], values)


def test_streamed_evaluations_read_a_row_once_for_all_seeds():
    reads = []

    def read(rows):
        reads.extend(rows)
        return np.zeros((len(rows), 4), np.float32)

    lazy = Streamed((20, 4), np.float32, read)
    table = data.Table(lazy, {"label": np.zeros(20, np.int32)}, {"label": ("a", "b", "c")})
    evals = {"eval": classification(data.Dataset("lazy", Call(constant, (table,))), "source")}
    model = models.linear(HEADS)
    init = jax.vmap(lambda seed: model.init(jax.random.key(seed), np.zeros((1, 4))))
    evaluator = Evaluator(evals, SEEDS, 8)
    params, statistics = init(np.arange(2))
    evaluator.measure(model, stage().method, params, State(statistics), {"source"})
    assert sorted(reads) in (list(range(20)), sorted([*range(20), 0]))


def test_streamed_datasets_are_not_compared_with_others(datasets, caplog):
    setup = resolve(stage(datasets["streamed"]), None)
    node = dataclasses.make_dataclass("Node", ["setup"])(setup)
    evals = {"eval": classification(datasets["resident"], "source")}
    experiment = dataclasses.make_dataclass("Plan", ["evals"])(evals)
    with caplog.at_level("INFO"):
        assert leaks(experiment, {"paged": node}) == []
    assert "is not searched for examples" in caplog.text


def test_ridge_solves_on_streamed_inputs(datasets, tmp_path):
    runs = []
    for name, dataset in datasets.items():
        plan = dataclasses.replace(
            stage(dataset, steps=0, method=transfer.ridge()), model=models.linear(HEADS)
        )
        runs.append(train(plan, tmp_path / name))
    assert_same(runs[0].params, runs[1].params)
    assert is_streamed(datasets["streamed"].table().inputs)


def test_a_large_file_is_not_loaded(tmp_path):
    """300 MB of rows, of which some are read: the process grows by much less."""
    program = """
        import resource, sys
        import numpy as np, optax
        from pathlib import Path
        from jaxtl import data, models
        from jaxtl.methods import transfer
        from jaxtl.models import classes
        from jaxtl.plan import Stage, State, labelled
        from jaxtl.train.resolve.replicas import over_seeds
        from jaxtl.train.loop import train_stage
        from jaxtl.train.options import RunOptions
        from jaxtl.train.resolve.stage import resolve

        def grown(rows):
            file = np.memmap(directory / f"{rows}", np.uint8, "w+", shape=(rows, 64, 64, 3))
            dataset = data.arrays(file, np.arange(rows) % 3)
            model = models.linear({"head": classes(3)})
            stage = Stage(str(rows), model, transfer.full(optax.sgd(0.1)),
                          domains=[labelled(dataset, "head")], batch_size=8, num_steps=24)
            place = directory / f"stage_{rows}"
            replicas = over_seeds(resolve(stage, None), (0,))
            train_stage(replicas, None, place, {}, RunOptions())
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

        directory = Path(sys.argv[1])
        before = grown(100)
        print(grown(300 * 2**20 // (64 * 64 * 3)) - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert int(done.stdout) < 100
