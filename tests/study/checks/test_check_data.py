"""Labels, ranges and ids that a model cannot read are refused before any work."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import run_tiny

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification, multilabel, regression
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize
from jaxtl.study.checks.experiments import plan_stages, warnings
from jaxtl.study.checks.label_space import match_classes
from jaxtl.train.feed.examples import columns

ADAM = optax.adam(0.3)
RNG = np.random.default_rng(0)


def plan(train, test, head, metric=classification, model=None, steps=40, **more):
    model = model or models.linear({"y": head})
    stage = Stage(
        "fit",
        model,
        transfer.full(ADAM),
        domains=[labelled(train, "y")],
        batch_size=8,
        num_steps=steps,
        **more,
    )
    evals = {"test": metric(test, "y")}
    return Experiment({"fit": [stage]}, "fit", evals, primary=maximize("test", "accuracy"))


def problems(experiment, seeds=(0, 1)):
    try:
        plan_stages(match_classes(experiment)[0], ("fit",), seeds)
    except ValueError as error:
        return str(error)
    return ""


def rows(labels, n=None, inputs=None, **more):
    labels = np.asarray(labels)
    inputs = RNG.normal(size=(len(labels), 3)).astype(np.float32) if inputs is None else inputs
    return data.arrays(inputs, labels, **more)


def read_by(head, dataset):
    """(labels, weights) of what one seed trains on."""
    read = columns(labelled(dataset, "y"), {"y": head}, seed=0)
    return read.labels["y"], read.weights["y"]


def test_hidden_integers_are_not_numbers_to_learn():
    whole = np.random.default_rng(0).integers(0, 347, 50)
    hidden = [rows(whole.astype(kind)).hide("label", 0.8) for kind in (int, float)]
    (labels, weights), (as_floats, float_weights) = (
        read_by(models.regression(), each) for each in hidden
    )
    np.testing.assert_array_equal(labels, as_floats)
    np.testing.assert_array_equal(weights, float_weights)
    assert weights.sum() == 10 and np.isnan(labels[weights == 0]).all()


@pytest.mark.parametrize("missing", [-1, np.nan, None])
def test_one_missing_label_of_several_hides_that_one_alone(missing):
    values = np.arange(60).reshape(20, 3) % 2
    here = np.arange(60).reshape(20, 3) % 4 == 0
    tags = values.astype(object if missing is None else type(missing))
    tags[here] = missing
    labels, weights = read_by(models.binary(3), rows(tags))
    np.testing.assert_array_equal(weights, ~here)
    np.testing.assert_array_equal(labels[~here], values[~here])


def test_training_and_metrics_read_the_labels_that_are_known(tmp_path):
    inputs = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    tags = np.where(np.arange(192).reshape(64, 3) % 4 == 0, np.nan, inputs > 0)
    tagged = data.arrays(inputs, tags)
    tiny = plan(tagged, tagged, models.binary(3), multilabel)
    summary, _ = run_tiny(tmp_path, plan=tiny)
    assert summary["arms"]["fit"]["metrics"]["test/accuracy"]["mean"] > 0.9


@pytest.mark.parametrize(
    "head, labels, said",
    [
        (models.regression(), [1, -1, 0, 5], "-1 may be a number or a missing one"),
        (models.regression(), ["1st", "2nd", "1st", "2nd"], "holds the classes 1st, 2nd"),
        (models.binary(1), [[0], [7], [1], [1]], "holds 7, head 'y' expects labels from 0 to 1"),
        (models.binary(1), [[-1.0], [1.0], [1.0], [-1.0]], "expects labels from 0 to 1"),
        (classes(3), [1, 2, 3, 1], "0 to 2; classes are numbered from 0: subtract 1"),
        (classes(3), [10, 20, 30, 10], "0 to 2; number them with np.unique"),
        (classes(2), [0, 1, 2, 1], "0 to 1; there are 3 classes"),
        (classes(2), [0.0, 1.0, 1.0, 0.0], "holds float32, head 'y' expects class indices"),
        (classes(2), [-1, -1, -1, -1], "holds no known label (seed 0, 1)"),
        (classes(2), [None, None, None, None], "holds no known label (seed 0, 1)"),
        (models.regression(), [np.nan] * 4, "holds no known label (seed 0, 1)"),
    ],
)
def test_labels_that_a_head_cannot_read(head, labels, said):
    metric = classification if head.integer else regression
    data_ = rows(labels)
    assert said in problems(plan(data_, data_, head, metric)), problems(plan(data_, data_, head))


def test_nothing_labelled_is_said_for_the_seed_that_draws_it():
    half = rows([0, 1, *[-1] * 30]).take(8)
    said = problems(plan(half, rows([0, 1]), classes(2)), seeds=tuple(range(6)))
    assert "stage 'fit': dataset arrays" in said and "holds no known label (seed " in said
    hidden = rows([0, 1, 0, 1]).hide("label", 1.0)
    assert "evaluation 'test': dataset" in problems(plan(rows([0, 1]), hidden, classes(2)))


def photographs(dtype, top=255, n=6):
    values = np.random.default_rng(0).uniform(0, top, (n, 4, 4, 1)).astype(dtype)
    return data.arrays(values, np.arange(n) % 2, name=f"{np.dtype(dtype).name}_{top}")


@dataclasses.dataclass(frozen=True)
class Published:
    name: str = "published"

    def read(self, wanted):
        return {path: np.zeros(leaf.shape, np.float32) for path, leaf in wanted.items()}, ""

    def digest(self):
        return ""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_beside_bytes_lie_in_their_range(dtype):
    bytes_, floats = photographs(np.uint8), photographs(dtype)
    said = "are floats from"
    assert said in problems(plan(bytes_, floats, classes(2)))
    assert "evaluation 'test'" in problems(plan(bytes_, floats, classes(2)))
    assert "stage 'fit': images" in problems(plan(floats, bytes_, classes(2)))
    assert said in problems(plan(bytes_.standardize(), bytes_, classes(2)))
    assert problems(plan(bytes_, photographs(dtype, 1), classes(2))) == ""
    assert problems(plan(photographs(np.int64), photographs(np.uint16, 65535), classes(2))) == ""


def test_published_weights_read_images_in_the_unit_range():
    model = models.conv_net({"y": classes(2)})
    more = {"model": model, "weights": Published()}
    floats = photographs(np.float32)
    assert problems(plan(floats, floats, classes(2))) == ""
    assert "read images in [0, 1]" in problems(plan(floats, floats, classes(2), **more))
    normal = photographs(np.float32, 1).standardize()
    tiny = plan(normal, normal, classes(2), **more)
    assert problems(tiny) == ""
    (note,) = warnings(tiny, plan_stages(tiny, ("fit",), (0,)))[-1:]
    assert "which published weights of stage 'fit' read as they are" in note


class Words(nn.Module):
    @nn.compact
    def __call__(self, ids):
        return nn.Embed(10, 4)(ids).mean(1)


@pytest.mark.parametrize("bad", [10, -1, 30_521])
def test_ids_beyond_the_vocabulary(bad):
    model = models.from_linen(Words(), {"y": classes(2)})
    good = rows([0, 1, 0, 1], inputs=np.arange(8).reshape(4, 2))
    wrong = rows([0, 1, 0, 1], inputs=np.array([[0, 1], [2, bad], [1, 1], [0, 3]]))
    assert problems(plan(good, good, classes(2), model=model)) == ""
    said = problems(plan(good, wrong, classes(2), model=model))
    assert "evaluation 'test': dataset arrays has ids from" in said and "0 to 9" in said
    assert "stage 'fit': " in problems(plan(wrong, good, classes(2), model=model))


def test_outputs_that_are_not_numbers_are_no_class(tmp_path):
    class Broken(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return x if train else jnp.where(x[:, :1] > 0, jnp.nan, x)

    good = rows(np.arange(24) % 2)
    model = models.from_linen(Broken(), {"y": classes(2)})
    summary, said = run_tiny(tmp_path, plan=plan(good, good, classes(2), model=model, steps=3))
    assert summary["arms"]["fit"]["metrics"]["test/accuracy"]["per_seed"] == [None, None]
    bad = int((good.table().inputs[:, 0] > 0).sum())
    assert f"outputs are not finite ({bad} of seed 0, {bad} of seed 1)" in said
    assert summary["arms"]["fit"]["not_finite"] == {"test": [bad, bad]}


def test_a_file_of_numbers_that_are_none_is_no_success(tmp_path):
    on_disk = np.memmap(tmp_path / "x", np.float32, "w+", shape=(24, 3))
    on_disk[:] = np.nan
    good = rows(np.arange(24) % 2)
    broken = data.arrays(on_disk, np.zeros(24, int))
    summary, said = run_tiny(tmp_path / "run", plan=plan(good, broken, classes(2), steps=3))
    assert summary["arms"]["fit"]["metrics"]["test/accuracy"]["mean"] is None
    assert "outputs are not finite (24 of seed 0" in said
