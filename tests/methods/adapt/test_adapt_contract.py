"""What every deep adaptation method does: it trains, and never sees a label of the target."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtl import data
from jaxtl.losses import reversal_schedule
from jaxtl.methods import adapt, transfer
from jaxtl.models import classes, from_linen, mlp_head
from jaxtl.paths import flatten
from jaxtl.plan import Stage, labelled, unlabelled
from jaxtl.train.feed.examples import gather, make_feed
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.state import start
from jaxtl.train.step import make_step

TX, CLASSES = optax.sgd(0.05), 3
RISE = reversal_schedule(10)
TWO, THREE = mlp_head((4,), 2), mlp_head((4,), 3)
SCORE = mlp_head((4,), 1)
METHODS = {
    "adda": functools.partial(adapt.adda, TX, discriminator=TWO),
    "afn": functools.partial(adapt.afn, TX),
    "bnm": functools.partial(adapt.bnm, TX),
    "bsp": functools.partial(adapt.bsp, TX, reversal=RISE, discriminator=THREE),
    "can": functools.partial(adapt.can, TX, every=5, largest_distance=0.4),
    "cdan": functools.partial(adapt.cdan, TX, reversal=RISE, discriminator=THREE),
    "cdan_e": functools.partial(
        adapt.cdan_e, TX, reversal=RISE, discriminator=THREE, random_features=6
    ),
    "cmd": functools.partial(adapt.cmd, TX),
    "dan": functools.partial(adapt.dan, TX),
    "dann": functools.partial(adapt.dann, TX, reversal=RISE, discriminator=THREE),
    "deep_coral": functools.partial(adapt.deep_coral, TX),
    "deep_coral_features": functools.partial(adapt.deep_coral_features, TX),
    "deep_jdot": functools.partial(adapt.deep_jdot, TX, num_steps=5),
    "dsan": functools.partial(adapt.dsan, TX, weight=reversal_schedule(10, high=0.5)),
    "entropy_minimization": functools.partial(adapt.entropy_minimization, TX),
    "information_maximization": functools.partial(adapt.information_maximization, TX),
    "jan": functools.partial(adapt.jan, TX),
    "mcc": functools.partial(adapt.mcc, TX),
    "mcd": functools.partial(adapt.mcd, TX, encoder_steps=2),
    "mdd": functools.partial(adapt.mdd, TX, reversal=RISE),
    "wdgrl": functools.partial(adapt.wdgrl, TX, critic=SCORE, critic_steps=2),
}


class Body(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(6, name="dense")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        return nn.tanh(nn.Dense(5, name="last")(nn.relu(x)))


MODEL = from_linen(Body(), {"task": classes(CLASSES)})


def blobs(name, n, shift=0.0, seed=0, garbage=False):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    centres = np.random.default_rng(7).normal(size=(CLASSES, 4)) * 2
    inputs = centres[labels] + rng.normal(size=(n, 4)) + shift
    labels = (labels * 2 + 1) % CLASSES if garbage else labels
    return data.arrays(inputs.astype(np.float32), labels, name=name, classes=("a", "b", "c"))


def domains(garbage=False, second_source=False):
    """A source, a few labelled targets (or another source), many unlabelled targets."""
    second = labelled(blobs("source_2", 20, 0.5, 4), "task")
    few = labelled(blobs("few", 8, 1.0, 1), "task", role="target")
    return [
        labelled(blobs("source", 24), "task"),
        second if second_source else few,
        unlabelled(blobs("target", 20, 1.0, 2, garbage), "task"),
    ]


@functools.cache
def before():
    """(setup, start) of a source stage that has not trained."""
    stage = Stage(
        "source",
        MODEL,
        transfer.full(TX),
        domains=[labelled(blobs("s", 24), "task")],
        batch_size=4,
        num_steps=1,
    )
    setup = resolve(stage, None)
    full = start(over_seeds(setup, (0,)), None)
    return setup, (full.params, full.state)


def begun(method, chosen):
    """(setup, what the first seed starts from, three batches)."""
    setup = resolve(
        Stage("adapt", MODEL, method, domains=chosen, batch_size=8, num_steps=3), before()[0]
    )
    replicas = over_seeds(setup, (0,))
    first = functools.partial(jax.tree.map, lambda leaf: leaf[0])
    full, feed = first(start(replicas, before()[1])), make_feed(replicas, RunOptions())
    own, batches = first(feed.per_replica), []
    for i in range(3):
        index = (jnp.arange(8)[:, None] + 8 * i) % jnp.array([[24, 8, 20]])
        batches.append(gather(setup.stage, feed.shared, own, index, jax.random.key(0)))
    return setup, full, batches


SLOW = {"adda", "bsp", "can", "mcd", "wdgrl"}  # several updates, or a costly gradient to compile
SLOW |= {"afn", "bnm", "cdan_e", "cmd", "deep_coral_features", "entropy_minimization", "jan"}
SLOW |= {"information_maximization"}  # the others of their kinds stay


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in METHODS]
)
def test_it_trains_and_hidden_labels_change_no_bit(name):
    method, ends, step = METHODS[name](), [], None
    for garbage in (False, True):
        setup, full, batches = begun(method, domains(garbage))
        at_first = full
        step = step or jax.jit(make_step(setup))
        for i, batch in enumerate(batches):
            full, metrics = step(full, batch, jax.random.key(i), jnp.int32(i))
        ends.append((full.params, full.state, metrics))
    assert int(full.failed) == -1
    for path, leaf in flatten(ends[0][0]).items():
        assert np.isfinite(leaf).all(), path
        np.testing.assert_array_equal(leaf, flatten(ends[1][0])[path], err_msg=path)
    jax.tree.map(np.testing.assert_array_equal, ends[0][1:], ends[1][1:])
    moved = {
        path.split("/")[0]
        for path, leaf in flatten(full.params).items()
        if not np.array_equal(leaf, flatten(at_first.params)[path])
    }
    assert moved == {"backbone", "heads", *method.modules} - (
        {"heads"} if name == "adda" else set()
    )
    if method.state is not None:  # what is kept changes in `prepare` only
        kept = (train.state.method for train in (full, at_first))
        jax.tree.map(np.testing.assert_array_equal, *kept)
    mean = full.state.statistics["backbone"]["body"]["norm"]["mean"]
    assert not np.array_equal(mean, at_first.state.statistics["backbone"]["body"]["norm"]["mean"])


@pytest.mark.parametrize("name", METHODS)
def test_several_sources(name):
    """Traced, not compiled: every shape fits, and what the step returns is what it takes."""
    method = METHODS[name]()
    setup, full, batches = begun(method, domains(second_source=True))
    carry, metrics = jax.eval_shape(
        make_step(setup), full, batches[0], jax.random.key(0), jnp.int32(0)
    )
    assert jax.tree.structure(carry.state) == jax.tree.structure(full.state)
    assert all(leaf.shape == () for leaf in jax.tree.leaves(metrics))


def test_the_catalogue_has_each_method_under_its_name():
    tx, schedule = optax.adam(1e-3), {"num_steps": 10}
    found = adapt.catalogue(tx, **schedule, strong=lambda rng, x: x, radius=1.0)
    assert found.keys() - adapt.catalogue(tx, **schedule).keys() == {"fix_match", "vada"}
    assert all(callable(getattr(adapt, name)) for name in found)
    for method in found.values():  # tx trains all of them
        assert all(one is tx for _, one in method.optimizers.values())
    slower = adapt.slow_optimizers(10)
    found = adapt.catalogue(tx, **schedule, tx_by_method=slower)
    others = {name for name, method in found.items() if method.optimizers["all"][1] is tx}
    assert slower.keys() == found.keys() - others
    with pytest.raises(ValueError, match="tx_by_method: unknown method 'dan_n'"):
        adapt.catalogue(tx, **schedule, tx_by_method={"dan_n": tx})
    for name in ("dann", "bsp", "cdan", "cdan_e", "mdd"):  # the rate of the DANN paper
        _, slow = found[name].optimizers["all"]
        state = slow.init({"x": jnp.ones(())})
        step, state = slow.update({"x": jnp.ones(())}, state)
        np.testing.assert_allclose(step["x"], -0.01, rtol=1e-6)
        step, _ = slow.update({"x": jnp.ones(())}, state)
        np.testing.assert_allclose(step["x"], -0.01 * 1.9 / 2**0.75, rtol=1e-5)
