"""All methods that learn from unlabelled data: they run, learn, and never see a hidden label."""

import functools

import jax
import numpy as np
import optax
import pytest
from shapes import SHAPE
from unlabelled_streams import (
    KEY,
    MODEL,
    SHIFT,
    accuracy,
    blobs,
    draw,
    normed,
    pretrained,
    start,
    trained,
)

from jaxtl import losses
from jaxtl.methods import adapt
from jaxtl.models import mlp_head
from jaxtl.plan import State

ADAM = optax.adam(1e-2)


def jitter(rng, inputs):
    return inputs + 0.2 * jax.random.normal(rng, inputs.shape)


LARGER = losses.reversal_schedule(150)
METHODS = {  # name: (method, whether the source is there)
    "dirt_t": (adapt.dirt_t(ADAM, target_weight=0.3, radius=0.5, every=20), False),
    "fix_match": (adapt.fix_match(ADAM, strong=jitter), True),
    "iwan": (adapt.iwan(ADAM, reversal=LARGER), True),
    "mean_teacher": (adapt.mean_teacher(ADAM, augment=jitter, decay=0.9), True),
    "osbp": (adapt.osbp(ADAM), True),
    "pada": (adapt.pada(ADAM, reversal=LARGER, every=50), True),
    "self_training": (adapt.self_training(ADAM, every=4), True),
    "shot": (adapt.shot(ADAM, every=4), False),
    "shot_im": (adapt.shot_im(ADAM), False),
    "t3a": (adapt.t3a(), False),
    "tent": (adapt.tent(ADAM, norms=("backbone/body/norm/.*",)), False),
    "vada": (adapt.vada(ADAM, radius=0.5), True),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("source"), normed())


LONG = ("dirt_t", "fix_match", "iwan", "mean_teacher", "osbp", "pada", "vada")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in METHODS]
)
def test_a_shift_is_undone_and_hidden_labels_have_no_effect(name, begun, tmp_path):
    """Other labels under the same inputs of the unlabelled target leave every bit as it is."""
    method, source = METHODS[name]
    runs = [
        trained(method, tmp_path / str(g), begun, garbage=g, source=source) for g in (False, True)
    ]
    one, other = ((run.params, run.state) for run in runs)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, leaf), same in zip(
        jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        np.testing.assert_array_equal(leaf, same, err_msg=str(path))
        assert np.isfinite(leaf).all(), path
    target = blobs("target_test", n=300, seed=4, shift=SHIFT)
    model, (params, state) = begun[0].model, jax.tree.map(lambda leaf: leaf[0], begun[1])
    logits = model.apply(params, state.statistics, target.table().inputs)[0]["logits"]["c"]
    before = float(np.mean(logits.argmax(-1) == target.table().labels["label"]))
    if name != "pada":  # whose weights believe in the source model's mistakes
        assert accuracy(runs[0], method, target) > before + 0.1


def test_pada_leaves_out_a_class_that_the_target_lacks(begun, tmp_path):
    run = trained(adapt.pada(ADAM, reversal=LARGER, every=50), tmp_path, begun, present=[0, 1])
    weights = run.state.method["c"][0]
    assert weights.max() == 1 and weights[2] < 0.3 * weights[:2].min()


def value(method, params, state, batch):
    return method.updates[0].loss(MODEL, params, state, batch, KEY, 1)[0]


ROLES = ("source", "target", "target")


@pytest.mark.parametrize("name", [name for name, (_, source) in METHODS.items() if source])
def test_a_few_labels_of_the_target_train_too(name):
    """Three streams: the source, a labelled part of the target, and an unlabelled one."""
    method, batch = METHODS[name][0], draw(domains=3, roles=ROLES)
    params, _ = start()
    output, _ = MODEL.apply(params, {}, batch.inputs[:, 0])
    shape = SHAPE._replace(roles=ROLES)
    params |= {key: module.init(KEY, output, shape) for key, module in method.modules.items()}
    state = State({}, method.state(MODEL, params, {}, shape) if method.state else None)
    other = batch.replace(labels={"c": batch.labels["c"].copy()})
    other.labels["c"][:, 1] = (other.labels["c"][:, 1] + 1) % 3
    loss = jax.jit(functools.partial(value, method))
    before, after = (loss(params, state, each) for each in (batch, other))
    assert abs(after - before) > 1e-3
    if method.updates[0].per_example and name not in ("fix_match", "vada"):  # those draw
        halves = [jax.tree.map(lambda leaf, i=i: leaf[i::2], batch) for i in range(2)]
        parts = [loss(params, state, half) for half in halves]
        np.testing.assert_allclose(sum(parts) / 2, before, rtol=1e-5)


def test_vada_knows_how_many_domains_there_are():
    shape = SHAPE._replace(roles=ROLES)
    output, _ = MODEL.apply(start()[0], {}, draw().inputs[:, 0])
    network = adapt.vada(ADAM).modules["discriminator"]
    assert network.init(KEY, output, shape)["output"]["bias"].shape == (3,)
    wrong = adapt.vada(ADAM, discriminator=mlp_head((4,), 2)).modules["discriminator"]
    with pytest.raises(ValueError, match="has 2 outputs, its stage has 3 domains"):
        wrong.init(KEY, output, shape)
