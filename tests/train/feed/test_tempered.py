"""Groups of very different size: how often each is drawn, and that the order is a pure function."""

import numpy as np
import pytest

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.models import classes
from jaxtl.plan import Domain, Episodes, Stage, Tempered, labelled
from jaxtl.study.checks.domains import check_domain
from jaxtl.train.feed.tempered import BLOCK, TemperedStream, proportions, stream_of

GROUPS = [np.arange(900), np.arange(900, 990), np.arange(990, 999)]


def test_proportions():
    np.testing.assert_allclose(proportions([900, 90, 9], 1), np.array([900, 90, 9]) / 999)
    expected = np.sqrt([900, 90, 9])
    np.testing.assert_allclose(proportions([900, 90, 9], 2), expected / expected.sum())
    np.testing.assert_allclose(proportions([900, 90, 9], float("inf")), np.ones(3) / 3)


def test_any_part_is_a_part_of_the_whole():
    whole = TemperedStream(GROUPS, 2.0, 5, 1).read(0, 3 * BLOCK)
    rng = np.random.default_rng(0)
    for start, count in zip(rng.integers(0, 2 * BLOCK, 9), rng.integers(0, BLOCK, 9), strict=True):
        fresh = TemperedStream(GROUPS, 2.0, 5, 1)  # of a run that resumes there
        np.testing.assert_array_equal(fresh.read(start, count), whole[start : start + count])
    other = TemperedStream(GROUPS, 2.0, 6, 1).read(0, 50)
    assert np.any(other != whole[:50])


def test_rows_of_a_group_all_come_before_any_comes_again():
    whole, start = TemperedStream(GROUPS, 3.0, 0, 0).read(0, 5000), 0
    for rows in GROUPS:
        drawn = whole[np.isin(whole, rows)]
        for start in range(0, len(drawn) - len(rows), len(rows)):
            np.testing.assert_array_equal(np.sort(drawn[start : start + len(rows)]), rows)
    assert start > 0


@pytest.mark.parametrize("temperature", [1.0, 2.0, float("inf")])
def test_groups_are_drawn_as_often_as_they_should(temperature):
    stream = TemperedStream(GROUPS, temperature, 3, 0)
    rows, n = stream.read(0, 40_000), 40_000
    expected = stream.probabilities
    share = np.array([np.isin(rows, group).mean() for group in GROUPS])
    np.testing.assert_array_less(np.abs(share - expected), 4 * np.sqrt(expected / n))


def tasks():
    rng = np.random.default_rng(0)

    def task(n, names):
        inputs = rng.normal(size=(n, 4)).astype(np.float32)
        return data.arrays(inputs, np.arange(n) % len(names), classes=names)

    return {"big": task(60, ["x", "y"]), "small": task(6, ["p", "q", "r"])}


def test_the_mean_loss_is_the_tempered_mean_of_the_tasks():
    domain = labelled(data.together(tasks()), ["big", "small"], draw=Tempered("task", 2.0))
    losses = np.random.default_rng(1).exponential(size=66) + np.repeat([0.0, 3.0], [60, 6])
    expected = proportions([60, 6], 2.0) @ [losses[:60].mean(), losses[60:].mean()]
    assert abs(losses[stream_of(domain, 0, 0).read(0, 60_000)].mean() - expected) < 0.03
    assert abs(losses.mean() - expected) > 0.3


def check(domain, column="label"):
    check_domain(domain, {column: classes(2), "x": classes(2)}, (0,))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"draw": Tempered("tsak")}, r"unknown label column 'tsak'"),
        ({"draw": Tempered("size")}, r"'size' has none"),
        ({"draw": Tempered("some")}, r"3 examples \(seed 0\) have no 'some'"),
        ({"draw": Tempered("label"), "labelled": False}, r"labels that nobody may see"),
        (
            {"draw": Tempered("label"), "episodes": Episodes(2, 1, 1)},
            r"are drawn as episodes",
        ),
    ],
)
def test_rows_that_cannot_be_drawn_by_group(change, message):
    labels = {
        "label": np.arange(9) % 2,
        "size": np.linspace(0, 1, 9),
        "some": np.where(np.arange(9) < 3, -1, 0),
    }
    dataset = data.arrays(np.zeros((9, 2), np.float32), labels)
    with pytest.raises(ValueError, match=message):
        check(Domain(dataset, {"label": "label"}, **change))


def test_a_temperature_below_one():
    with pytest.raises(ValueError, match=r"temperature.*at least 1"):
        Tempered("task", 0.5)


@pytest.mark.slow
def test_streamed_resumed_and_cached_rows_are_the_same(tmp_path):
    import dataclasses

    import optax
    from tiny import OPTIONS, assert_same, train

    def stage(parts, name):
        heads = {"big": classes(2), "small": classes(3)}
        domain = labelled(data.together(parts), list(heads), draw=Tempered("task", 2.0))
        model, method = models.mlp(heads, (8, 4)), transfer.full(optax.adam(1e-2))
        if name == "cached":
            model = models.mlp(heads, (8,))
            method = dataclasses.replace(transfer.probe(optax.adam(1e-2)), fresh_frozen=True)
        return Stage(name, model, method, domains=[domain], batch_size=8, num_steps=12)

    def on_disk(name, part):
        table = part.table()
        path = tmp_path / f"{name}.npy"
        np.save(path, table.inputs)
        mapped = np.load(path, mmap_mode="r")
        return data.arrays(mapped, table.labels, classes=dict(table.classes))

    held = train(stage(tasks(), "held"), tmp_path / "held")
    streamed = {name: on_disk(name, part) for name, part in tasks().items()}
    read = train(stage(streamed, "streamed"), tmp_path / "streamed")
    assert_same(held.params, read.params)
    off = dataclasses.replace(OPTIONS, feature_cache=False)
    cached = stage(tasks(), "cached")
    results = [train(cached, tmp_path / str(i), options=o) for i, o in enumerate((OPTIONS, off))]
    assert_same(results[0].params, results[1].params, rtol=1e-5)
