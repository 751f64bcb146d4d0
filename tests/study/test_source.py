"""Source stages loaded from another run: the same bits, and every way in which they may not fit."""

import dataclasses
import json
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from tiny import (
    Body,
    assert_same,
    blobs,
    body,
    experiment,
    run_tiny,
)

from jaxtl import models
from jaxtl.measure import analyses
from jaxtl.methods import transfer
from jaxtl.models import classes
from jaxtl.plan import labelled
from jaxtl.study.checks.experiments import plan_stages
from jaxtl.study.source_run import SourceRun

replace = dataclasses.replace


def forgetful():
    """The tiny experiment; what it forgets is measured."""
    return experiment(analyses=[analyses.forgetting()])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """(directory, summary) of a whole run with the seeds 0, 1 and 2."""
    directory = tmp_path_factory.mktemp("source")
    return directory, run_tiny(directory, seeds=(0, 1, 2), plan=forgetful())[0]


@pytest.fixture
def copied(source, tmp_path):
    shutil.copytree(source[0], tmp_path / "copied")
    return tmp_path / "copied"


def snapshot(directory: Path):
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [directory, *directory.rglob("*")]
    }


def restored(path):
    """All that a checkpoint holds, as nested dicts."""
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(path)


def load(directory, plan=None, seeds=(0, 1)):
    """The checked source run of the tiny experiment."""
    plan = plan or experiment()
    nodes = plan_stages(plan, plan.arms, seeds)
    run = SourceRun(directory, seeds)
    run.check(nodes, plan, plan.arms)
    return run, nodes


def refused(directory, *expected, **more):
    with pytest.raises(ValueError) as error:
        load(directory, **more)
    for text in ("run.source_run: ", str(directory), *expected):
        assert text in str(error.value), str(error.value)
    return str(error.value)


def with_pretrain(**changes):
    tiny = experiment()
    pretrain, adapt = tiny.arms["full"]
    return replace(tiny, arms={**tiny.arms, "full": [replace(pretrain, **changes), adapt]})


def test_a_loaded_source_gives_the_bits_of_one_trained_in_place(source, tmp_path):
    before = snapshot(source[0])
    plan = forgetful()
    summary, output = run_tiny(tmp_path, seeds=(0, 1, 2), plan=plan, source_run=source[0])
    assert f"stage pretrain: loaded from {source[0]}" in output
    assert output.count("stage adapt: 6 steps") == 1
    for arm in ("scratch", "full"):
        assert summary["arms"][arm]["metrics"] == source[1]["arms"][arm]["metrics"]
    assert summary["arms"]["full"]["forgetting"] == source[1]["arms"]["full"]["forgetting"]
    assert not (tmp_path / "stages" / "pretrain").exists()
    assert snapshot(source[0]) == before


def test_seeds_may_be_some_of_the_others_in_any_order(source):
    whole, nodes = load(source[0], seeds=(0, 1, 2))
    some, _ = load(source[0], seeds=(2, 0))
    whole, some = (run.load(nodes["pretrain"].setup) for run in (whole, some))
    rows = np.array([2, 0])
    for ours, theirs in ((some.params, whole.params), (some.state, whole.state)):
        assert_same(ours, jax.tree.map(lambda leaf: np.asarray(leaf)[rows], theirs))
    np.testing.assert_array_equal(some.curves["loss"], whole.curves["loss"][:, rows])
    assert some.curves["step"].tolist() == [1, 2, 3, 4, 5, 6]


def test_the_optimizer_of_the_other_run_does_not_matter(source):
    ours, nodes = load(source[0], with_pretrain(method=transfer.full(optax.sgd(0.1))))
    theirs, _ = load(source[0])
    assert_same(ours.load(nodes["pretrain"].setup).params, theirs.stages["pretrain"][0])


def test_what_was_frozen_in_the_other_run_does_not_matter(source):
    method = transfer.partial(optax.sgd(0.1), freeze=("backbone/body/norm/.*",))
    ours, nodes = load(source[0], with_pretrain(method=replace(method, fresh_frozen=True)))
    theirs, _ = load(source[0])
    assert_same(ours.load(nodes["pretrain"].setup).params, theirs.stages["pretrain"][0])


def test_a_directory_without_a_run(tmp_path):
    refused(tmp_path / "nowhere", "holds no run", "<workdir>/<experiment>")
    assert not (tmp_path / "nowhere").exists()


def test_the_workdir_instead_of_the_run(source):
    refused(source[0].parent, "holds no run", "<workdir>/<experiment>")


def test_seeds_that_the_other_run_does_not_have(source):
    lacks = "lacks the seeds [3, 7]; it has [0, 1, 2]"
    refused(source[0], "stage 'pretrain'", lacks, seeds=(0, 7, 3))


def test_another_architecture_is_listed_leaf_by_leaf(source):
    heads = {"source": classes(3), "target": classes(3)}
    tiny = experiment()
    wide = models.mlp(heads, hidden=(4,))
    stages = [replace(stage, model=wide) for stage in tiny.arms["full"]]
    message = refused(
        source[0],
        "does not fit this model",
        "backbone/dense_0/kernel: not there; closest: backbone/body/dense/kernel",
        "heads/source/kernel: there [8, 3], model [4, 3]",
        plan=replace(tiny, arms={**tiny.arms, "full": stages}),
    )
    assert len(message.splitlines()) == 1 + 4


def test_a_source_with_another_number_of_classes(source):
    heads = {"source": classes(4), "target": classes(3)}
    model = dataclasses.replace(body(), heads=heads)
    domains = [labelled(blobs("four", ways=4), "source")]
    tiny = with_pretrain(model=model, domains=domains)
    adapt = replace(tiny.arms["full"][1], model=model)
    tiny = replace(tiny, arms={**tiny.arms, "full": [tiny.arms["full"][0], adapt]})
    refused(source[0], "heads/source/bias: there [3], model [4]", plan=tiny)


class Longer(Body):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.BatchNorm(use_running_average=not train, name="more")(super().__call__(x, train))


def test_statistics_that_are_missing_are_listed(source):
    tiny = experiment()
    longer = models.from_linen(Longer(), tiny.arms["full"][0].model.heads, name="body")
    stages = [replace(stage, model=longer) for stage in tiny.arms["full"]]
    refused(
        source[0],
        "backbone/body/more/scale: not there",
        "backbone/body/more/mean: not there; closest: backbone/body/norm/mean",
        plan=replace(tiny, arms={**tiny.arms, "full": stages}),
    )


def damage(path: Path, how: str):
    if how == "truncated":
        for file in path.rglob("*"):
            if file.is_file() and "/d/" in str(file):
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif how == "without metadata":
        for file in path.rglob("_METADATA"):
            file.unlink()
    else:
        shutil.rmtree(path)
        path.mkdir()


@pytest.mark.parametrize("how", ["truncated", "without metadata", "empty"])
def test_a_damaged_checkpoint_is_one_line_before_any_work(copied, how):
    damage(copied / "stages" / "pretrain" / "checkpoints" / "6", how)
    before = snapshot(copied)
    message = refused(copied, "stage 'pretrain'", "damaged checkpoint 6")
    assert len(message.splitlines()) == 1
    assert snapshot(copied) == before


def test_a_finished_stage_without_checkpoints(copied):
    shutil.rmtree(copied / "stages" / "pretrain" / "checkpoints")
    refused(copied, "stage 'pretrain'", "has no checkpoint")
    assert not (copied / "stages" / "pretrain" / "checkpoints").exists()


def test_unfinished_and_unknown_stages_are_not_taken(copied):
    path = copied / "stages" / "pretrain" / "stage.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "finished": False}))
    refused(copied, "no finished stage among", "(pretrain)", "it has finished adapt, scratch")
    path.write_text("{")
    with pytest.raises(ValueError, match=r"stage\.json is damaged"):
        load(copied)
    path.unlink()
    refused(copied, "it has finished adapt, scratch")


def test_a_checkpoint_of_an_earlier_version_is_refused_in_one_line(copied):
    import orbax.checkpoint as ocp

    path = copied / "stages" / "pretrain" / "checkpoints" / "6" / "state"
    train = restored(path)
    shutil.rmtree(path.parent)
    old = {
        "trainable": train["trainable"]["all"],
        "average": {},
        "state": train["state"]["statistics"],
        "opt_state": train["opt_state"],
        "failed": train["failed"],
        "frozen": {},
        "best": {},
    }
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, old)
    text = refused(copied, "stage 'pretrain'", "was trained by an earlier version of jaxtl")
    assert "train it anew" in text and "damaged" not in text and "\n" not in text


def test_another_source_run_in_the_same_directory_is_another_run(source, tmp_path):
    run_tiny(tmp_path / "run", seeds=(0, 1, 2), arms=("full",), source_run=source[0])
    run_tiny(tmp_path / "other", seeds=(0, 1, 2), plan=experiment(steps=5))
    with pytest.raises(ValueError, match="stage 'adapt':\n    the stage before it\n"):
        run_tiny(tmp_path / "run", seeds=(0, 1, 2), arms=("full",), source_run=tmp_path / "other")


def test_the_same_source_stage_trained_here_is_the_same(source, tmp_path):
    run_tiny(tmp_path, seeds=(0, 1, 2), arms=("full",), source_run=source[0])
    said = run_tiny(tmp_path, seeds=(0, 1, 2), arms=("full",))[1]
    assert "stage pretrain: 6 steps" in said and "stage adapt: found finished" in said
