import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxtl import data, models, pretrained
from jaxtl.features import FeatureStore, feature_store, shared
from jaxtl.paths import flatten
from jaxtl.pretrained import Entry, Scheme

OWN = Scheme("ours", Entry, (), {})
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), np.uint8)


@pytest.fixture
def published(tmp_path):
    """(model, its parameters and statistics, weights of its backbone in a file)."""
    model = models.conv_net({"digit": models.classes(3)}, batch_norm=True)
    params, state = model.init(jax.random.key(1), np.zeros((1, 8, 8, 1), np.float32))
    state = jax.tree.map(lambda leaf: leaf + 0.5, state)
    leaves = {k: np.asarray(v) for tree in (params, state) for k, v in flatten(tree).items()}
    save_file({k: v for k, v in leaves.items() if "heads" not in k}, tmp_path / "w.safetensors")
    return model, params, state, pretrained.weights(tmp_path / "w.safetensors", [OWN])


def test_inputs_become_the_features_of_the_published_model(published):
    model, params, state, weights = published
    images = data.arrays(IMAGES, np.arange(10) % 3)
    found = pretrained.features(images, model, weights)
    expected = model.apply(params, state, IMAGES / np.float32(255))[0]["features"]
    table = found.table()
    np.testing.assert_allclose(table.inputs, expected, rtol=1e-5, atol=1e-6)
    assert table.inputs.dtype == np.float32
    np.testing.assert_array_equal(table.labels["label"], np.arange(10) % 3)
    few = found.slice(2, 5)
    np.testing.assert_array_equal(few.rows(0), [2, 3, 4])
    assert few.table() is table


def test_equal_handles_share_one_pass(published):
    model, _, _, weights = published
    images = data.arrays(IMAGES, np.arange(10) % 3)
    one, two = (pretrained.features(images, model, weights) for _ in range(2))
    assert one == two and one.table() is two.table()
    other = models.conv_net({"digit": models.classes(3)}, batch_norm=True)
    assert pretrained.features(images, other, weights) != one


def test_equal_weights_and_rows_are_computed_once(published, monkeypatch, tmp_path):
    model, _, _, weights = published
    monkeypatch.setattr(shared, "_store", FeatureStore(tmp_path / "kept"))
    monkeypatch.setattr(feature_store, "WRITE_SECONDS", 0)
    monkeypatch.setattr(feature_store, "READ_BYTES_PER_SECOND", 1e30)
    images = data.arrays(IMAGES, np.arange(10) % 3)
    one = pretrained.features(images, model, weights).table().inputs
    other = models.conv_net({"animal": models.classes(2)}, batch_norm=True)
    two = pretrained.features(data.arrays(IMAGES[::-1].copy(), np.arange(10) % 3), other, weights)
    np.testing.assert_array_equal(two.table().inputs, one[::-1])
    assert shared.store().counts.computed == 10
    shared.store().flush()
    monkeypatch.setattr(shared, "_store", FeatureStore(tmp_path / "kept"))  # another process
    images = data.arrays(IMAGES, np.arange(10) % 2)
    np.testing.assert_array_equal(pretrained.features(images, model, weights).table().inputs, one)
    assert shared.store().counts.computed == 0


def test_arguments_of_another_kind_are_refused_at_once(published):
    model, _, _, weights = published
    images = data.arrays(IMAGES, np.arange(10) % 3)
    with pytest.raises(ValueError, match=r"weights must be published weights .*, got 'w.safe"):
        pretrained.features(images, model, "w.safetensors")
    with pytest.raises(ValueError, match=r"model must be a model such as .*, got"):
        pretrained.features(images, models.conv_net, weights)


def test_features_that_are_no_numbers_are_refused(published, tmp_path):
    model, params, state, _ = published
    state = jax.tree.map(lambda leaf: -leaf, state)  # variances below 0
    leaves = {k: np.asarray(v) for tree in (params, state) for k, v in flatten(tree).items()}
    save_file({k: v for k, v in leaves.items() if "heads" not in k}, tmp_path / "v.safetensors")
    weights = pretrained.weights(tmp_path / "v.safetensors", [OWN])
    dataset = pretrained.features(data.arrays(IMAGES, np.zeros(10, int)), model, weights)
    with pytest.raises(
        ValueError, match=r"v.safetensors are not finite for 10 of 10 examples, the"
    ):
        dataset.table()


def test_the_models_heads_and_the_files_do_not_matter(published, tmp_path):
    model, params, state, _ = published
    leaves = {k: np.asarray(v) for tree in (params, state) for k, v in flatten(tree).items()}
    save_file(leaves, tmp_path / "w.safetensors")
    images = data.arrays(IMAGES, np.zeros(10, int))
    for head in (None, "digit"):
        weights = pretrained.weights(tmp_path / "w.safetensors", OWN, head=head)
        assert pretrained.features(images, model, weights).table().inputs.shape[0] == 10


def test_weights_that_do_not_fit_are_listed(published):
    _, _, _, weights = published
    deeper = models.mlp({}, (4,))
    wrong = pretrained.features(data.arrays(IMAGES, np.zeros(10, int)), deeper, weights)
    with pytest.raises(ValueError, match=r"cannot load 2 of 2 arrays .*\n.*backbone/dense_0"):
        wrong.table()
