"""ResNet and EfficientNet-Lite in training; tests/pretrained compares their values."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtl import models, paths
from jaxtl.models.efficientnet_lite import InvertedResidual

# architecture: (variant, last of the blocks that have every kind of layer, mean and standard
# deviation of the pixels, padding of the stem, decay of the batch statistics), as published
FIRST = {
    "resnet": (
        "resnet18",
        "stage_1",
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ((3, 3), (3, 3)),
        0.9,
    ),
    "efficientnet_lite": ("lite0", "stage_2", ([0.5] * 3, [0.5] * 3), "SAME", 0.99),
}


@functools.cache
def setting(architecture):
    """The first blocks, random parameters and positive statistics, and images in [0, 1]."""
    variant, block, *_ = FIRST[architecture]
    model, _ = getattr(models, architecture)(variant, {}).cut(block)
    rng = np.random.default_rng(0)
    images = rng.random((4, 32, 33, 3), dtype=np.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)

    def random(leaf):
        fan = max(1, int(np.prod(leaf.shape[:-1])))
        return (rng.normal(size=leaf.shape) / np.sqrt(fan)).astype(np.float32)

    params = jax.tree.map(random, params)
    return model, params, jax.tree.map(lambda leaf: 0.5 + random(leaf) ** 2, state), images


@functools.cache
def trained(architecture):
    """A step of training, traced; its gradients and its new statistics."""
    model, params, state, images = setting(architecture)

    def loss(params, state, images):
        output, state = model.apply(params, state, images, train=True)
        return jnp.sum(output["features"] ** 2), state

    step = jax.jit(jax.grad(loss, has_aux=True)).trace(params, state, images)
    return step, *step.lower().compile()(params, state, images)


@pytest.mark.parametrize("architecture", FIRST)
def test_every_parameter_gets_a_gradient(architecture):
    _, gradients, _ = trained(architecture)
    assert all(np.any(value != 0) for value in paths.flatten(gradients).values())


@pytest.mark.parametrize("architecture", FIRST)
def test_the_statistics_of_a_step(architecture):
    _, _, (center, scale), pads, decay = FIRST[architecture]
    _, params, state, images = setting(architecture)
    _, _, moved = trained(architecture)
    outputs = jax.lax.conv_general_dilated(
        (images - np.float32(center).reshape(1, 1, 1, 3)) / np.float32(scale).reshape(1, 1, 1, 3),
        params["backbone"]["stem"]["kernel"],
        (2, 2),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    old, new = (tree["backbone"]["stem"]["norm"] for tree in (state, moved))
    for name, value in (("mean", outputs.mean((0, 1, 2))), ("var", outputs.var((0, 1, 2)))):
        expected = decay * old[name] + (1 - decay) * value
        np.testing.assert_allclose(new[name], expected, rtol=1e-5, atol=1e-6)


def groups(text):
    """The numbers of groups of a lowered program's convolutions."""
    return {int(number) for number in re.findall(r"feature_group_count = (\d+)", text)}


def test_a_cpu_gets_no_grouped_convolution():
    model, params, state, images = setting("efficientnet_lite")
    forward = jax.jit(model.apply).trace(params, state, images)
    for program in (forward, trained("efficientnet_lite")[0]):
        assert groups(program.lower(lowering_platforms=("cpu",)).as_text()) <= {1}
        assert 96 in groups(program.lower(lowering_platforms=("tpu",)).as_text())
    compiled = forward.lower(lowering_platforms=("cpu",)).compile().as_text()
    assert " dot(" in compiled and "feature_group_count" not in compiled


def test_drop_path_skips_whole_examples_and_keeps_the_mean():
    inputs = np.random.default_rng(0).normal(size=(400, 2, 2, 8)).astype(np.float32)
    layer = InvertedResidual(8, 3, 1, 1, drop_path=0.0)
    variables = jax.jit(layer.init)(jax.random.key(0), inputs)

    @functools.partial(jax.jit, static_argnums=0)
    def run(rate):
        rngs = {"dropout": jax.random.key(1)}
        trained = layer.clone(drop_path=rate)
        return (
            trained.apply(variables, inputs, True, rngs=rngs, mutable=["batch_stats"])[0] - inputs
        )

    whole, dropped = np.asarray(run(0.0)), np.asarray(run(0.25))
    skipped = ~dropped.any((1, 2, 3))
    assert abs(skipped.mean() - 0.25) < 0.09  # four standard errors
    np.testing.assert_allclose(dropped[~skipped], whole[~skipped] / 0.75, rtol=1e-4, atol=1e-5)


def test_dropout_of_the_features():
    def top(rate):
        model = models.efficientnet_lite("lite0", {}, dropout=rate)
        return model.cut("stage_7")[1]

    inputs = np.random.default_rng(0).random((3, 2, 2, 320), dtype=np.float32)
    params, state = jax.jit(top(0.0).init)(jax.random.key(0), inputs)

    @functools.partial(jax.jit, static_argnums=0)
    def run(rate):
        output, _ = top(rate).apply(params, state, inputs, rng=jax.random.key(1), train=True)
        return output["features"]

    whole, dropped = run(0.0), run(0.25)
    zero = (dropped == 0) & (whole != 0)
    assert abs(zero.sum() / (whole != 0).sum() - 0.25) < 0.03  # four standard errors
    np.testing.assert_allclose(dropped[~zero], whole[~zero] / 0.75, rtol=1e-5)
