"""Optimizers that look at the loss, and what is no optimizer at all."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_step import adapted, prepared
from tiny import blobs

from jaxtl import models
from jaxtl.methods import transfer
from jaxtl.models import classes
from jaxtl.plan import Stage, labelled
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.step import make_step


def trained(tx, steps=4, method=None):
    """(losses, train state) of a linear model that sees one batch."""
    model = models.from_blocks([], {"target": classes(3)})
    domains = [labelled(blobs("target", 24), "target")]
    stage = Stage(
        "adapt", model, method or transfer.full(tx), domains=domains, batch_size=8, num_steps=steps
    )
    setup, full, batch = prepared(stage)
    step = jax.jit(make_step(setup))
    values = []
    for i in range(steps):
        full, metrics = step(full, batch, jax.random.key(0), jnp.int32(i))
        values.append(float(metrics["loss"]))
    return values, full


PLATEAU = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, atol=1e9, rtol=0.0)


@pytest.mark.parametrize(
    "tx",
    [
        optax.chain(optax.sgd(0.1), PLATEAU),
        optax.multi_transform({"a": optax.chain(optax.sgd(0.1), PLATEAU)}, "a"),
        optax.MultiSteps(optax.chain(optax.sgd(0.1), PLATEAU), 1),
    ],
    ids=["chain", "partition", "accumulated"],
)
def test_a_plateau_reduces_the_rate(tx):
    _, carry = trained(tx, 6)
    scales = [
        float(leaf.scale)
        for leaf in jax.tree.leaves(carry.opt_state, is_leaf=lambda x: hasattr(x, "plateau_count"))
        if hasattr(leaf, "plateau_count")
    ]
    assert len(scales) == 1 and scales[0] < 0.5


@pytest.mark.parametrize(
    "tx",
    [
        optax.lbfgs(),
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(8)),
        optax.polyak_sgd(),
        optax.contrib.momo(),
    ],
    ids=["lbfgs", "backtracking", "polyak", "momo"],
)
def test_optimizers_that_look_at_the_loss_train(tx):
    values, _ = trained(tx)
    assert values[-1] < 0.5 * values[0]


@pytest.mark.slow
def test_lbfgs_takes_the_steps_of_its_own_loop():
    values, _ = trained(optax.lbfgs(), 3)
    _, full, batch = prepared(
        Stage(
            "adapt",
            models.from_blocks([], {"target": classes(3)}),
            transfer.full(optax.lbfgs()),
            domains=[labelled(blobs("target", 24), "target")],
            batch_size=8,
            num_steps=3,
        )
    )
    tx, params = optax.lbfgs(), full.params
    state = tx.init(params)

    def loss(params):
        inputs = batch.inputs.reshape(8, -1)
        kernel, bias = (params["heads"]["target"][k] for k in ("kernel", "bias"))
        logits = inputs @ kernel + bias[None]
        labels = batch.labels["target"].ravel()
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    for expected in values:
        value, grads = jax.value_and_grad(loss)(params)
        np.testing.assert_allclose(expected, value, rtol=1e-4)
        updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
        params = optax.apply_updates(params, updates)


def test_sam_with_a_plateau_and_a_clipped_line_search():
    tx = optax.chain(optax.sgd(0.1), PLATEAU)
    values, _ = trained(None, method=transfer.sam(transfer.full(tx)))
    assert np.isfinite(values).all()
    clipped = dataclasses.replace(transfer.full(optax.lbfgs()), clip_norm=0.1)
    values, _ = trained(None, method=clipped)
    assert values[-1] < values[0]


def test_a_line_search_over_a_part_and_unknown_arguments_are_refused():
    part = optax.masked(optax.lbfgs(), {"heads": {"target": {"kernel": True, "bias": False}}})
    with pytest.raises(ValueError, match="optimizer 'all' searches along a line inside"):
        trained(part)
    with pytest.raises(ValueError, match=r"optimizer 'all' needs arguments .* 'rng'"):
        update = lambda grads, state, params=None, *, rng, **extra: (grads, state)  # noqa: E731
        trained(optax.GradientTransformationExtraArgs(lambda params: (), update))


class Torch:
    def step(self):
        pass


@pytest.mark.parametrize(
    "tx, said",
    [
        (1e-3, "is 0.001, a float"),
        (None, "is None, a NoneType"),
        ("adam", "is 'adam', a str"),
        (optax.adam, "is the function adam, uncalled"),
        (functools.partial(optax.adam, 1e-3), "is the function partial, uncalled"),
        (optax.cosine_decay_schedule(1e-3, 10), "or a schedule"),
        (Torch(), "is a test_optimizers.Torch"),
        (Torch, "is the class test_optimizers.Torch, not an instance"),
        (optax.GradientTransformation, "is the class optax"),
        ((optax.adam(1e-3), optax.sgd(1e-3)), "is a builtins.tuple"),
    ],
)
def test_what_is_no_optimizer_is_refused(tx, said):
    stage = adapted(transfer.full(tx))
    with pytest.raises(ValueError, match="an Optax transformation is expected") as error:
        resolve(stage, None)
    assert said in str(error.value) and "\n" not in str(error.value)
