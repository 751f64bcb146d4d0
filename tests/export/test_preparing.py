"""Datasets of every kind: what is written down of one prepares rows where the data are not."""

import dataclasses
import json

import flax.linen as nn
import jax
import numpy as np
import pytest
from preparing import ROWS

from jaxtl import data, models
from jaxtl.data import Table
from jaxtl.data.steps import images, traceable
from jaxtl.export.files import entry, program, write_preparations
from jaxtl.export.predictor import Predictor
from jaxtl.export.recipe import read_recipe
from jaxtl.export.rows import read_rows
from jaxtl.models import classes
from jaxtl.plan import Method, Stage, State
from jaxtl.train.store.preprocessing import preparation

FAR = ROWS["far"]


def recorded(tmp_path, dataset, again=None):
    """The recipe of a dataset as it comes back from the run's directory."""
    record = json.loads(json.dumps(preparation(tmp_path, dataset)))
    return read_recipe(record, again or dataset, tmp_path)


def predictor_of(recipe, dataset, model):
    """Of a model as it is initialised."""
    rows = jax.tree.map(lambda x: x[:1], dataset.table().inputs)
    params, state = model.init(jax.random.key(1), models.to_float(rows))
    inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), rows)
    stage = Stage("made", model, Method(), domains=[], batch_size=1, num_steps=0)
    return Predictor(
        model, params, State(state), {}, inputs, "a", (stage,), 0, {"test": recipe}, "test"
    )


def mirrored(images):
    return images[:, :, ::-1]


def darker(images, by):
    return np.maximum(images.astype(int) - by, 0).astype(np.uint8)


def joined(inputs):
    leaves = jax.tree.leaves(inputs)
    return jax.numpy.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], 1)


PHOTOS = np.random.default_rng(0).integers(0, 256, (7, 8, 10, 3), np.uint8)
DEEP = PHOTOS.astype(np.uint16) * 257
COUNTS = np.random.default_rng(1).integers(10**6, 10**6 + 99, (7, 3))
TIMES = 1.7e9 + np.random.default_rng(2).random((7, 2))
KINDS = {
    "plain": (PHOTOS, lambda d: d, 0),
    "all": (PHOTOS, lambda d: d.pad(1).center_crop((8, 8)).grayscale().resize((4, 4)), 0),
    "own": (PHOTOS, lambda d: d.map_images(mirrored).standardize(), 0),
    "host": (PHOTOS, lambda d: d.resize((4, 5)).map_images(darker, 9).standardize(), 2),
    "shift": (PHOTOS, lambda d: data.rotated(d, 20).take(5).standardize(), 1),
    "deep": (DEEP, lambda d: d.resize((4, 4)).rgb(), 0),
    "counts": (COUNTS, lambda d: d.standardize(), 0),
    "times": (TIMES, lambda d: d.standardize(), 1),  # JAX has no float64
    "several": ({"photo": PHOTOS, "columns": FAR[:7]}, lambda d: d.rgb().standardize(), 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_rows_are_prepared_on_the_host_and_in_programs(tmp_path, name):
    rows, prepare, on_host = KINDS[name]
    dataset = prepare(data.arrays(rows, np.arange(7) % 2))
    one_row = jax.tree.map(lambda x: x[:1], rows)
    recipe = recorded(tmp_path, dataset, prepare(data.arrays(one_row, [0])))
    model = models.from_blocks([], {"y": classes(2)}, before=joined)
    predictor = predictor_of(recipe, dataset, model)
    expected = predictor.predict(dataset.table().inputs, raw=False)["logits"]["y"]
    assert np.std(expected) > 1e-3
    others = [PHOTOS.astype(np.int64), PHOTOS / np.float32(255)] if rows is PHOTOS else []
    for given in (rows, *others):
        found = predictor.predict(given)["logits"]["y"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    before, inside = recipe.split
    assert len(before) == on_host and len(before) + len(inside) == len(recipe.actions)
    pytest.importorskip("flatbuffers")
    table = Table(read_rows(rows, recipe.raw, recipe.ranges), {})
    for action in before:
        table = action.apply(table)
    some = jax.tree.map(lambda x: x[:3], table.inputs)
    logits = program(predictor).call(some)["logits"]["y"]
    np.testing.assert_allclose(logits, expected[:3], rtol=1e-4, atol=5e-3)  # a pixel may round up


def test_streamed_rows_are_written_down_alike(tmp_path):
    np.save(tmp_path / "rows.npy", PHOTOS)
    on_disk = np.load(tmp_path / "rows.npy", mmap_mode="r")
    in_memory, streamed = (
        data.arrays(x, np.arange(7) % 2).map_images(mirrored).resize((4, 4)).standardize()
        for x in (PHOTOS, on_disk)
    )
    assert preparation(tmp_path, streamed) == preparation(tmp_path, in_memory)


@pytest.mark.parametrize("function", traceable.IMAGES, ids=lambda function: function.__name__)
def test_traced_transforms_are_those_of_the_host(function):
    arguments = {images.resize: [(3, 25)], images.pad: [2], images.center_crop: [(5, 4)]}
    options, twin = arguments.get(function, []), traceable.IMAGES[function]
    for x in (PHOTOS, np.float32(PHOTOS / 255)):
        x = x[..., :1] if function is images.rgb else x
        expected, found = function(x, *options), jax.jit(lambda x: twin(x, *options))(x)
        assert expected.dtype == found.dtype
        apart = np.abs(expected.astype(float) - found)
        assert apart.max() <= (1 if x.dtype == np.uint8 else 1e-6)
        assert (apart > 1e-6).mean() < 0.01


def test_ranges_of_float_images(tmp_path):
    floats = np.float32(PHOTOS / 255)
    with_hole = np.where(np.arange(10)[None, None, :, None] == 3, np.nan, floats)
    for given, expected in ((floats, [0, 1]), (floats * 4 - 2, [-2, 2]), (with_hole, [0, 1])):
        (found,) = preparation(tmp_path, data.arrays(given, np.arange(7)))["ranges"]
        np.testing.assert_allclose(found, expected, atol=0.05)
    assert preparation(tmp_path, data.arrays(PHOTOS, np.arange(7)))["ranges"] == [None]


def shrink(table):
    return table.select(np.arange(len(table)) % 2 == 0)


def centre(table):
    return dataclasses.replace(table, inputs=table.inputs - table.inputs.mean(0))


def brightest(table):
    return dataclasses.replace(table, inputs=table.inputs / table.inputs.max())


def by_label(table):
    scale = table.labels["label"][:, None].astype(np.float32)
    return dataclasses.replace(table, inputs=table.inputs * scale)


def in_order(table):
    return dataclasses.replace(table, inputs=table.inputs + np.arange(len(table))[:, None])


def blurred(images):
    return images + np.random.default_rng().normal(size=images.shape).astype(np.float32)


def other_labels(table):
    return dataclasses.replace(table, labels={"label": 1 - table.labels["label"]})


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda d: d.map(centre), "map(centre): it gives another result for a row alone"),
        (lambda d: d.map(in_order), "map(in_order): it gives another result for a row alone"),
        (lambda d: d.map(brightest), "map(brightest): what it gives for a row depends on"),
        (lambda d: d.map(by_label), "map(by_label): on rows without labels it raises KeyError"),
        (lambda d: d.map(shrink), "map(shrink): it makes 6 rows of 12"),
    ],
)
def test_functions_that_need_more_than_rows(tmp_path, prepare, expected):
    rows = FAR.copy()
    rows[[0, -1], 0] = rows.max()  # so that the first row and the last have the brightest value
    dataset = prepare(data.arrays(rows, np.arange(12) % 2))
    recipe = recorded(tmp_path, dataset)
    predictor = predictor_of(recipe, dataset, models.linear({"y": classes(2)}))
    with pytest.raises(ValueError, match="raw rows cannot be prepared by") as error:
        predictor.predict(rows)
    assert expected in str(error.value) and "predict(rows, raw=False)" in str(error.value)
    assert predictor.predict(dataset.table().inputs, raw=False)["logits"]["y"].shape[1] == 2
    inputs, before, _ = entry(predictor, "stablehlo")  # a program goes on after it
    assert inputs == recipe.actions[0].gives and before == recipe.actions


def test_labels_alone_are_no_preparation(tmp_path):
    dataset = data.arrays(FAR, np.arange(12) % 3).map(other_labels).classes([0, 1]).few(1)
    dataset = dataset.relabel("far", lambda table: table.inputs[:, 0]).hide("far", 0.5)
    assert recorded(tmp_path, dataset).actions == ()


def test_a_function_that_is_gone(tmp_path):
    dataset = data.arrays(PHOTOS, np.arange(7)).map_images(mirrored)
    again = data.arrays(PHOTOS, np.arange(7)).map_images(darker, 1)
    (problem,) = recorded(tmp_path, dataset, again).problems
    assert problem.startswith("map_images(mirrored): the experiment's file does not have it")


# Texts.


class Words(nn.Module):
    @nn.compact
    def __call__(self, x):
        return (nn.Embed(9, 4)(x["ids"]) * x["mask"][..., None]).sum(1)


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "very", "not"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Reads texts; its vocabulary's file is gone."""
    pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("texts")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    texts = np.array(["good film", "bad film", "not very good", "film"], object)
    dataset = data.arrays(texts, np.arange(4) % 2).tokenize(folder / "vocab.txt", 5)
    recipe = recorded(folder / "run", dataset)
    predictor = predictor_of(recipe, dataset, models.from_linen(Words(), {"y": classes(2)}))
    (folder / "vocab.txt").unlink()
    return predictor


def test_texts_are_strings(reader, tmp_path):
    ids = {"ids": [[2, 4, 6, 3, 0], [2, 1, 3, 0, 0]], "mask": [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]}
    expected = reader.predict(ids, raw=False)["logits"]["y"]
    for texts in (["good film", "Unheard"], np.array(["good film", "unheard"])):
        np.testing.assert_array_equal(reader.predict(texts)["logits"]["y"], expected)
    assert reader.predict([])["logits"]["y"].shape == (0, 2)
    assert repr(reader).endswith("str[n] -> y[n, 2])")
    pytest.importorskip("flatbuffers")
    exported = program(reader)
    ids = {name: np.array(values, np.int32) for name, values in ids.items()}
    np.testing.assert_allclose(exported.call(ids)["logits"]["y"], expected, atol=1e-6)
    (steps,) = write_preparations(reader, "stablehlo", tmp_path / "a.stablehlo").values()
    (tokenize,) = steps["before"]
    assert tokenize["length"] == 5 and (tmp_path / tokenize["file"]).read_text().split() == WORDS


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("good film", "one text, not a list of texts"),
        (["good", None, 3.5], "2 of 3 rows are no texts, such as None"),
        ([["good", "film"]], "object[1, 2] has 2 axes, not 1"),
        (np.zeros((2, 5), np.int32), "int32[2, 5] has 2 axes, not 1"),
        ([1, 2], "2 of 2 rows are no texts, such as 1"),
        ({"ids": 1, "mask": 2}, "expected an array, got {ids, mask}"),
    ],
)
def test_what_is_no_text(reader, texts, expected):
    with pytest.raises(ValueError, match="trained on str") as error:
        reader.predict(texts)
    assert expected in str(error.value)


@pytest.mark.parametrize("wrong", [9, -1, 2**31 - 1])
def test_ids_that_no_token_has(reader, wrong):
    ids = np.array([[2, 4, 3, 0, 0], [2, wrong, wrong, 3, 0]])
    message = r"\['ids'\] 2 values in 1 of 2 rows are outside 0 to 8, the ids that the model knows"
    with pytest.raises(ValueError, match=message):
        reader.predict({"ids": ids, "mask": ids > 0}, raw=False)
