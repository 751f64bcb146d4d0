"""The table of truths: what every architecture counts, and that it may be cut."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_facts import parameter_count

from jaxtl import models, paths
from jaxtl.plan import Model

TEN = {"target": models.classes(10)}

# (architecture, options, one input's shape, parameters with one head of ten classes)
TABLE = [
    ("linear", {}, (4,), 4 * 10 + 10),
    ("mlp", {}, (28, 28, 1), 784 * 256 + 256 + 2_570),
    ("mlp", {"hidden": (8, 6), "dropout": 0.5}, (4,), 40 + 54 + 70),
    ("conv_net", {"padding": "VALID"}, (28, 28, 1), 93_322),
    ("conv_net", {}, (8, 8, 1), 55_744 + 256 * 64 + 64 + 650),
    # Each of the 160 biases gives way to a scale and a bias.
    ("conv_net", {"batch_norm": True}, (8, 8, 1), 55_744 + 160 + 256 * 64 + 64 + 650),
    ("conv_4", {}, (28, 28, 1), 9 * (64 + 3 * 64**2) + 4 * 128 + 650),
    ("conv_4", {"downsampling": "stride"}, (28, 28, 1), 111_168 + 512 + 2_570),  # 2 x 2 are left
    ("lenet", {"dropout": 0.5}, (28, 28, 1), 431_080),  # Caffe's
    ("cifar_conv_net", {}, (32, 32, 3), 896 + 18_496 + 4096 * 512 + 512 + 5_130),
]

SMALL = [
    ("mlp", {"hidden": (8, 6), "dropout": 0.5}, (4,)),
    ("conv_net", {"batch_norm": True}, (5, 4, 1)),
    ("conv_4", {"width": 5}, (16, 17, 1)),
    ("conv_4", {"width": 5, "downsampling": "stride"}, (5, 6, 1)),
    ("lenet", {"dropout": 0.5}, (16, 17, 1)),
    ("cifar_conv_net", {"dropout": 0.5}, (6, 6, 3)),
]


def test_every_architecture_is_in_the_table():
    def is_architecture(function):
        signature = inspect.signature(function)
        return signature.return_annotation is Model and next(iter(signature.parameters)) == "heads"

    public = inspect.getmembers(models, inspect.isfunction)
    architectures = {name for name, function in public if is_architecture(function)}
    assert architectures == {row[0] for row in TABLE}


@pytest.mark.parametrize(("name", "options", "shape", "count"), TABLE)
def test_parameter_count(name, options, shape, count):
    model = getattr(models, name)(TEN, **options)
    inputs = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), inputs)
    assert parameter_count(params) == count
    # Directly under the block's name, and nothing beside backbone and heads.
    leaves = {f"backbone/{b}/{leaf}" for b in model.blocks for leaf in ("kernel", "bias")}
    norms = {path for path in paths.flatten(params) if "/norm/" in path}
    assert set(paths.flatten(params)) - norms <= leaves | {
        "heads/target/kernel",
        "heads/target/bias",
    }
    assert {path.rpartition("/")[0] for path in norms} == {
        path.rpartition("/")[0] for path in paths.flatten(state)
    }


def setting(name, options, shape):
    """A model with random parameters (compiling `init` would take most of the test's time)."""
    model, rng = getattr(models, name)(TEN, **options), np.random.default_rng(0)
    inputs = rng.normal(size=(8, *shape)).astype(np.float32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), inputs)
    values = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) / 4, abstract)
    return model, values[0], jax.tree.map(np.abs, values[1]), inputs


@pytest.mark.parametrize(("name", "options", "shape"), SMALL)
def test_block_after_block_is_the_whole(name, options, shape):
    model, params, state, inputs = setting(name, options, shape)

    def run(part, state, inputs):
        apply = jax.jit(lambda *args: part.apply(*args, rng=jax.random.key(1), train=True))
        return apply(params, state, inputs)

    whole, rest, moved = run(model, state, inputs), model, state
    for block in model.blocks:
        (prefix, rest), remaining = rest.cut(block), rest.blocks
        assert prefix.blocks == (block,) and prefix.blocks + rest.blocks == remaining
        hidden, moved = run(prefix, moved, inputs)
        assert hidden["logits"] == {}
        inputs = hidden["features"]
    jax.tree.map(np.testing.assert_array_equal, run(rest, moved, inputs), whole)


@pytest.mark.parametrize(("name", "options", "shape"), SMALL)
def test_every_parameter_gets_a_gradient(name, options, shape):
    model, params, state, inputs = setting(name, options, shape)

    def loss(params):
        output, _ = model.apply(params, state, inputs, rng=jax.random.key(1), train=True)
        return TEN["target"].loss(output["logits"]["target"], jnp.arange(8)).mean()

    gradients = paths.flatten(jax.jit(jax.grad(loss))(params))
    assert all(np.any(value != 0) for value in gradients.values())


def test_dropout_drops_the_given_share_and_keeps_the_mean():
    model = models.mlp({}, (4000,), dropout=0.25)
    inputs = jnp.ones((1, 2))
    params, state = model.init(jax.random.key(0), inputs)
    params["backbone"]["dense_0"]["bias"] += 10.0  # so that ReLU leaves every unit on
    kept, _ = model.apply(params, state, inputs)
    dropped, _ = model.apply(params, state, inputs, rng=jax.random.key(1), train=True)
    zero = dropped["features"] == 0
    assert abs(zero.mean() - 0.25) < 0.03  # four standard errors
    np.testing.assert_allclose(
        dropped["features"][~zero], kept["features"][~zero] / 0.75, rtol=1e-6
    )


def test_images_too_small_for_the_padding():
    model = models.conv_net(TEN, "VALID")
    with pytest.raises(ValueError, match=r"does not fit.*padding 'SAME'"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 8, 8, 1)))
