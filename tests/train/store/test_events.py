"""TensorBoard events as its own reader finds them."""

import numpy as np
import pytest
import tiny

from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.contract import FAILED
from jaxtl.train.resolve.replicas import Replicas
from jaxtl.train.store import events
from jaxtl.train.store.log import Log, read_log

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
multiplexers = pytest.importorskip("tensorboard.backend.event_processing.event_multiplexer")

OPTIONS = RunOptions(tensorboard=True, log_every=2)
SEEDS = Replicas((0, 3), (None, None))


def scalars(folder):
    """{tag: {step: value}}; nothing stands twice."""
    reader = accumulators.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    tags = {tag: reader.Scalars(tag) for tag in reader.Tags()["scalars"]}
    assert all(len({e.step for e in found}) == len(found) for found in tags.values())
    return {tag: {event.step: event.value for event in found} for tag, found in tags.items()}


def times(folder):
    reader = accumulators.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {event.step: event.wall_time for event in reader.Scalars("loss")}


def write(log, first, count, offset=0.0, **more):
    """Steps whose loss is their number, a tenth more in the second seed."""
    loss = np.arange(first + 1, first + count + 1) + np.float32([[0], [0.5]]) + offset
    failed = np.full((2, count), -1)
    log.write(first, count, {"loss": np.float32(loss), FAILED: failed}, **more)


def test_each_seed_is_a_run_and_the_stage_their_mean(tmp_path):
    log = Log(tmp_path, OPTIONS, 7, SEEDS, 0)
    write(log, 0, 4)
    write(log, 4, 3, measured={"target/accuracy": np.float32([0.25, 0.75])})
    steps = [1, 2, 4, 6, 7]
    assert scalars(tmp_path) == {
        "loss": {step: step + 0.25 for step in steps},
        "target/accuracy": {7: 0.5},
    }
    assert scalars(tmp_path / "events" / "seed-3")["loss"] == {step: step + 0.5 for step in steps}
    assert scalars(tmp_path / "events" / "seed-0")["target/accuracy"] == {7: 0.25}
    runs = multiplexers.EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload().Runs()
    assert set(runs) == {".", "events/seed-0", "events/seed-3"}


def test_going_on_leaves_each_step_once(tmp_path):
    write(Log(tmp_path, OPTIONS, 9, SEEDS, 0), 0, 6)
    before = times(tmp_path)
    log = Log(tmp_path, OPTIONS, 9, SEEDS, 4)  # killed after step 6; the checkpoint is of step 4
    assert list(scalars(tmp_path)["loss"]) == [1, 2, 4]
    write(log, 4, 5, offset=100)
    expected = {1: 1.25, 2: 2.25, 4: 4.25, 6: 106.25, 8: 108.25, 9: 109.25}
    assert scalars(tmp_path)["loss"] == expected
    assert list(scalars(tmp_path / "events" / "seed-3")["loss"]) == list(expected)
    after = times(tmp_path)
    assert {step: after[step] for step in (1, 2, 4)} == {step: before[step] for step in (1, 2, 4)}


@pytest.mark.parametrize("damage", ["gone", "cut", "garbage", "off at first"])
def test_what_an_earlier_process_did_not_write_is_there(tmp_path, damage):
    first = OPTIONS if damage != "off at first" else RunOptions(log_every=2)
    write(Log(tmp_path, first, 6, SEEDS, 0), 0, 4)
    for file in [*tmp_path.glob("events.out.*"), *tmp_path.glob("events/*/*")]:
        content = file.read_bytes()
        if damage == "gone":
            file.unlink()
        file.write_bytes({"cut": content[:-7], "garbage": b"\xff" * 99}.get(damage, content))
    write(Log(tmp_path, OPTIONS, 6, SEEDS, 4), 4, 2)
    for folder in (tmp_path, tmp_path / "events" / "seed-0", tmp_path / "events" / "seed-3"):
        assert list(scalars(folder)["loss"]) == [1, 2, 4, 6]


def test_points_of_a_sweep_are_runs_and_have_no_mean(tmp_path):
    close = {"rate": np.float32([1, 1 + 1e-6])}
    write(Log(tmp_path, OPTIONS, 2, Replicas((0, 0), (None, None), close, points=2), 0), 0, 2)
    assert scalars(tmp_path / "events" / "seed-0-at-rate=1-1")["loss"] == {1: 1.5, 2: 2.5}
    values = {"rate": np.float32([0.1, 0.5]), "noise": np.float32([1, 2])}
    points = Replicas((0, 0), (None, None), values, points=2)
    write(Log(tmp_path, OPTIONS, 2, points, 0), 0, 2)
    assert not list(tmp_path.glob("events.out.*"))
    names = {folder.name for folder in (tmp_path / "events").iterdir()}
    assert names == {"seed-0-at-rate=0.1-noise=1", "seed-0-at-rate=0.5-noise=2"}
    assert scalars(tmp_path / "events" / "seed-0-at-rate=0.5-noise=2")["loss"] == {1: 1.5, 2: 2.5}


def test_losses_that_are_not_finite_are_no_numbers(tmp_path):
    log = Log(tmp_path, OPTIONS, 2, SEEDS, 0)
    write(log, 0, 1)
    write(log, 1, 1, offset=np.float32([[np.inf], [0]]))
    assert np.isnan(scalars(tmp_path)["loss"][2])
    assert scalars(tmp_path / "events" / "seed-3")["loss"] == {1: 1.5, 2: 2.5}


def test_too_many_replicas_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(events, "MOST_RUNS", 1)
    write(Log(tmp_path, OPTIONS, 2, SEEDS, 0), 0, 2)
    assert not (tmp_path / "events").exists() and scalars(tmp_path)["loss"][2] == 2.25
    assert "no TensorBoard events of each of 2 replicas" in caplog.text


def test_a_stage_writes_what_its_log_holds_even_if_asked_afterwards(tmp_path):
    stage = tiny.mlp_stage(steps=6)
    for options in (RunOptions(), OPTIONS, OPTIONS):
        said = []
        tiny.train(stage, tmp_path, options=options, restored=said.append)
        assert said == ([] if options.tensorboard is False else [6])
        files = list(tmp_path.glob("events.out.*"))
        assert len(files) == options.tensorboard
    expected = {line["step"]: np.float32(line["loss"][1]) for line in read_log(tmp_path)}
    assert scalars(tmp_path / "events" / "seed-1")["loss"] == expected and len(expected) == 6
