import dataclasses
import os
import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from counted_rows import counted_model, rows_computed

from jaxtl import data, models
from jaxtl.data.streamed import Streamed
from jaxtl.features import (
    FeatureStore,
    backbone_features,
    entries,
    feature_store,
    programs,
    row_of,
    shared,
    store,
    trace,
)
from jaxtl.features.feature_store import Counts
from jaxtl.fingerprint import of_value
from jaxtl.models import Block, from_blocks
from jaxtl.models.bert import BertConfig
from jaxtl.plan import State

HEADS = {"label": models.classes(3)}
ROWS = np.random.default_rng(0).random((40, 5), np.float32)
ALL = np.arange(40)
SIZE = programs.ROWS_ON_CPU


def made(model, inputs=ROWS, seed=0):
    """(the model's first block, parameters, statistics)."""
    first = jax.tree.map(lambda x: x[:1], inputs)
    return (model.cut("a")[0], *model.init(jax.random.key(seed), first))


@pytest.fixture(scope="module")
def plain():
    return made(counted_model())


def expected(plain, rows=ALL):
    first, params, statistics = plain
    output = np.asarray(first.apply(params, statistics, ROWS)[0]["features"])
    rows_computed()
    return output[rows]


def test_each_row_is_computed_once(plain):
    values, keeper = expected(plain), FeatureStore()
    rows = np.array([3, 1, 30, 1])
    np.testing.assert_allclose(keeper.features(*plain, ROWS, rows), values[rows], rtol=1e-5)
    assert rows_computed() == SIZE and keeper.counts.computed == 3
    whole = keeper.features(*plain, ROWS, ALL)
    np.testing.assert_allclose(whole, values, rtol=1e-5)
    assert rows_computed() == 48 and keeper.counts.computed == 40  # the last of 37 is repeated
    again = keeper.features(*plain, ROWS.copy(), ALL[::-1])  # the content decides
    np.testing.assert_array_equal(again, whole[::-1])
    assert rows_computed() == 0
    assert keeper.counts.from_memory == 3 + 40 and keeper.counts.seconds_saved > 0
    assert not whole.flags.writeable and not again.flags.writeable
    assert keeper.features(*plain, ROWS, np.array([], int)).shape == (0, 6)


@pytest.mark.parametrize("name", ["counted", "convolutions", "transformer"])
def test_bits_do_not_depend_on_the_company_of_a_row(name):
    inputs = ROWS
    if name == "counted":
        model = counted_model()
    elif name == "convolutions":
        model = models.conv_net(HEADS)
        inputs = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 1), np.uint8)
    else:
        size = BertConfig(16, 1, 2, 32, vocabulary=50, positions=8)
        model = models.bert(size, HEADS, dropout=0)
        inputs = {"ids": np.arange(320).reshape(40, 8) % 50, "mask": np.ones((40, 8), np.int32)}
    first = model.cut(model.blocks[-1])[0]
    floats = jax.tree.map(lambda x: x[:1].astype(np.float32) if x.dtype == "u1" else x[:1], inputs)
    params, statistics = model.init(jax.random.key(0), floats)
    whole = FeatureStore().features(first, params, statistics, inputs, ALL)
    rng = np.random.default_rng(1)
    for count in (1, 7, 23):
        rows = rng.permutation(40)[:count]
        part = FeatureStore().features(first, params, statistics, inputs, rows)
        jax.tree.map(lambda a, b, r=rows: np.testing.assert_array_equal(a, b[r]), part, whole)


def test_training_and_evaluation_meet_where_they_compute_the_same(plain):
    keeper = FeatureStore()
    keeper.features(*plain, ROWS, ALL)
    keeper.features(*plain, ROWS, ALL, train=True)
    assert keeper.counts.computed == 40
    model = from_blocks(
        [Block("a", nn.Dropout(0.5, deterministic=False)), Block("b", nn.Dense(4))], HEADS
    )
    dropped = (model.cut("a")[0], *model.init(jax.random.key(0), ROWS[:1]))
    with pytest.raises(ValueError, match="random"):
        keeper.features(*dropped, ROWS, ALL, train=True)


def test_equal_models_are_traced_once_whatever_their_heads(plain, monkeypatch):
    traced = []
    real = programs._trace
    monkeypatch.setattr(programs, "_trace", lambda *args: traced.append(1) or real(*args))
    for heads in (HEADS, {"other": models.classes(2), **HEADS}):
        first, params, statistics = made(counted_model(heads, features=9))
        for _ in range(2):
            trace(first, params, statistics, ROWS, train=False)
    assert traced == [1]


def changed_weight(plain):
    first, params, statistics = plain
    kernel = np.array(params["backbone"]["a"]["Dense_0"]["kernel"])
    kernel[2, 1] = np.nextafter(kernel[2, 1], np.float32(9))
    layer = {**params["backbone"]["a"]["Dense_0"], "kernel": kernel}
    backbone = {**params["backbone"], "a": {"Dense_0": layer}}
    return first, {**params, "backbone": backbone}, statistics


def test_a_weight_that_differs_by_one_bit_is_another_key(plain):
    keeper = FeatureStore()
    keeper.features(*plain, ROWS, ALL)
    keeper.features(*changed_weight(plain), ROWS, ALL)
    assert keeper.counts.computed == 80
    first, params, statistics = plain
    heads = jax.tree.map(lambda leaf: leaf + 1, params["heads"])
    other = {
        **params["backbone"],
        "b": jax.tree.map(lambda leaf: leaf + 1, params["backbone"]["b"]),
    }
    keeper.features(first, {"backbone": other, "heads": heads}, statistics, ROWS, ALL)
    assert keeper.counts.computed == 80  # what the block does not read does not matter


def test_a_weight_that_is_written_to_is_looked_at_again(plain):
    first, params, statistics = plain
    params = jax.tree.map(np.array, params)
    keeper = FeatureStore()
    before = keeper.features(first, params, statistics, ROWS, ALL)
    params["backbone"]["a"]["Dense_0"]["kernel"] *= 2
    assert (keeper.features(first, params, statistics, ROWS, ALL) != before).any()


def test_rows_that_differ_are_computed_and_only_these(plain):
    keeper = FeatureStore()
    keeper.features(*plain, ROWS, ALL)
    edited = ROWS.copy()
    edited[7, 3] = np.nextafter(edited[7, 3], np.float32(9))
    keeper.features(*plain, edited, ALL)
    assert keeper.counts.computed == 41
    other_kind = (ROWS * 255).astype(np.uint8)
    keeper.features(*plain, other_kind, ALL)
    keeper.features(*plain, other_kind.astype(np.float32), ALL)  # not divided by 255
    assert keeper.counts.computed == 121


def test_weights_in_a_stack_are_hashed_once(plain, monkeypatch):
    from jaxtl.features import digests

    first, params, statistics = plain
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf * 2]), params)
    hashed, real = [], digests._digest_of
    monkeypatch.setattr(digests, "_digest_of", lambda leaf: hashed.append(1) or real(leaf))
    keeper = FeatureStore()
    for _ in range(3):
        for replica in range(2):
            rows = jax.tree.map(lambda leaf, i=replica: row_of(leaf, i), stacked)
            keeper.features(first, rows, statistics, ROWS, ALL)
    assert len(hashed) == 4 and keeper.counts.computed == 80  # a kernel and a bias, twice


def test_a_row_of_a_vector_is_a_number():
    vector = np.asarray(jnp.arange(3))
    assert not vector.flags.writeable and row_of(vector, 1) == 1


def test_the_batch_is_the_same_on_many_devices(plain):
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from jaxtl.train.mesh import make_mesh

    whole = FeatureStore().features(*plain, ROWS, ALL)
    first, params, statistics = plain
    mesh = make_mesh("data=4,model=2")
    copies = jax.device_put(params, NamedSharding(mesh, P()))
    np.testing.assert_array_equal(
        FeatureStore().features(first, copies, statistics, ROWS, ALL), whole
    )
    split = jax.tree.map(
        lambda x: jax.device_put(x, NamedSharding(mesh, P(*(None,) * (x.ndim - 1), "model"))),
        params["backbone"]["a"],
    )
    params = {**params, "backbone": {**params["backbone"], "a": split}}
    keeper = FeatureStore()
    np.testing.assert_allclose(
        keeper.features(first, params, statistics, ROWS, ALL), whole, rtol=1e-5
    )


def test_an_embedding_is_looked_up_each_time():
    model = models.bert(BertConfig(16, 1, 2, 32, vocabulary=50, positions=8), HEADS, dropout=0)
    inputs = {"ids": np.arange(320).reshape(40, 8) % 50, "mask": np.ones((40, 8), np.int32)}
    first, keeper = model.cut("embed")[0], FeatureStore()
    row = jax.tree.map(lambda leaf: leaf[:1], inputs)
    params, statistics = model.init(jax.random.key(0), row)
    expected = first.apply(params, statistics, inputs)[0]["features"]
    for rows in (ALL, ALL[5:7]):
        found = keeper.features(first, params, statistics, inputs, rows)
        chosen = jax.tree.map(lambda leaf, rows=rows: leaf[rows], expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), found, chosen)
    assert keeper.counts.computed == 42 and not keeper._entries


def test_backbone_features_are_those_of_outputs(monkeypatch):
    monkeypatch.setattr(shared, "_store", FeatureStore())
    model = models.conv_net(HEADS)
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 1), np.uint8)
    params, statistics = model.init(jax.random.key(0), images[:1].astype(np.float32))
    for _ in range(2):
        found = backbone_features(model, params, State(statistics), images)
        expected = models.outputs(model, params, State(statistics), images, "features")
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert shared.store().counts.computed == shared.store().counts.from_memory == 40


def test_threads_that_ask_for_the_same_compute_it_once(plain):
    keeper, results = FeatureStore(), []
    rows_computed()
    threads = [
        threading.Thread(target=lambda: results.append(keeper.features(*plain, ROWS, ALL)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows_computed() == 48 and len(results) == 6
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_memory_is_bounded_and_the_longest_unused_goes_first(plain, monkeypatch):
    monkeypatch.setattr(feature_store, "LEAST_BYTES", 0)
    keeper = FeatureStore(memory_bytes=2000)  # two times 40 rows of 6 floats
    keys = [plain, changed_weight(plain), made(counted_model(), seed=3)]
    for each in (keys[0], keys[1], keys[0], keys[2]):
        keeper.features(*each, ROWS, ALL)
    assert keeper.counts.computed == 120
    keeper.features(*keys[0], ROWS, ALL)
    assert keeper.counts.computed == 120
    keeper.features(*keys[1], ROWS, ALL)
    assert keeper.counts.computed == 160


def test_streamed_rows_are_known_by_content_where_nothing_else_tells(plain):
    keeper, reads = FeatureStore(), []
    lazy = Streamed(ROWS.shape, ROWS.dtype, lambda rows: reads.append(len(rows)) or ROWS[rows])
    whole = keeper.features(*plain, ROWS, ALL)
    np.testing.assert_array_equal(keeper.features(*plain, lazy, ALL), whole)
    assert keeper.counts.computed == 40 and sum(reads) == 40
    keeper.features(*plain, lazy, ALL)
    assert sum(reads) == 40


def test_streamed_rows_with_a_source_are_not_read_to_be_known(plain, tmp_path):
    file = tmp_path / "rows"
    ROWS.tofile(file)
    reads = []

    def rows_of(path, scale, source):
        def read(rows):
            reads.append(len(rows))
            return np.fromfile(path, np.float32).reshape(ROWS.shape)[rows] * np.float32(scale)

        return Streamed(ROWS.shape, ROWS.dtype, read, [path], source)

    keeper = FeatureStore()
    lazy = rows_of(file, 1, ("scaled", 1))
    whole = keeper.features(*plain, lazy, ALL)
    assert sum(reads) == 40
    np.testing.assert_array_equal(
        keeper.features(*plain, rows_of(file, 1, ("scaled", 1)), ALL), whole
    )
    view = lazy.select(np.array([30, 2, 7]))
    np.testing.assert_array_equal(keeper.features(*plain, view, np.array([0, 2])), whole[[30, 7]])
    assert sum(reads) == 40 and keeper.counts.computed == 40
    halved = keeper.features(*plain, lazy.map(lambda x: x / 2), ALL)
    doubled = keeper.features(*plain, rows_of(file, 2, ("scaled", 2)), ALL)
    assert keeper.counts.computed == 120 and (halved != doubled).any()
    (ROWS + 1).astype(np.float32).tofile(file)
    assert (keeper.features(*plain, lazy, ALL) != whole).any()


def test_images_in_files_are_known_by_file_and_preprocessing(tmp_path):
    for number, name in enumerate(("a/1", "a/2", "b/1", "b/2")):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(file)

    def inputs(size):
        return data.image_folder(tmp_path, size=size, streamed=True).table().inputs

    read, lazy = [], inputs((4, 4))
    lazy._read = lambda rows, of=lazy._read: read.append(len(rows)) or of(rows)
    model = from_blocks([Block("a", nn.Dense(3)), Block("b", nn.Dense(4))], HEADS)
    keeper, first = FeatureStore(), made(model, np.zeros((1, 4, 4, 3), np.float32))
    rows = np.arange(4)
    whole = keeper.features(*first, lazy, rows)
    np.testing.assert_array_equal(keeper.features(*first, lazy, rows[::-1]), whole[::-1])
    assert keeper.counts.computed == 4 and sum(read) == 4
    keeper.features(*first, lazy.map(lambda x: 255 - x), rows)
    assert keeper.counts.computed == 8
    os.utime(tmp_path / "a" / "2.png", (1, 1))
    changed = inputs((4, 4))
    keeper.features(*first, changed, rows)
    assert keeper.counts.computed == 9 and changed is not lazy
    assert of_value(lazy.source) != of_value(inputs((4, 5)).source)
    assert not of_value(lazy.source).opaque


def test_what_cannot_be_looked_into_is_shared_by_one_object_only():
    class Odd:
        __slots__ = ("function",)

        def __init__(self, function):
            self.function = function

        def __reduce__(self):
            raise TypeError

    calls = []

    def model(scale):
        def before(x):
            return x * jax.pure_callback(
                lambda: calls.append(iter([scale])) or np.float32(scale),
                jax.ShapeDtypeStruct((), "f4"),
            )

        return from_blocks([Block("a", nn.Dense(3))], HEADS, before=before)

    keeper, made_once = FeatureStore(), made(model(2.0))
    one = keeper.features(*made_once, ROWS, ALL)
    np.testing.assert_array_equal(keeper.features(*made_once, ROWS, ALL), one)
    assert keeper.counts.computed == 40
    keeper.features(*made(model(3.0)), ROWS, ALL)
    assert keeper.counts.computed == 80


def test_the_store_of_the_process_is_one():
    assert store() is store() and isinstance(store().counts, Counts)
    assert dataclasses.asdict(Counts(1, 2) + Counts(1, 1, 5)) == dataclasses.asdict(Counts(2, 3, 5))
    assert entries.Entry("key", True).nbytes == 0
