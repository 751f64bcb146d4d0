"""Modules that are no backbone, each with one line that says why."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtl.models import Block, classes, from_blocks, from_linen

HEADS = {"label": classes(3)}
X = jax.ShapeDtypeStruct((1, 5), jnp.float32)


class Gives(nn.Module):
    """Dense features, changed by a function of them."""

    change: object

    @nn.compact
    def __call__(self, x):
        return self.change(nn.Dense(4)(x))


class Masked(nn.Module):
    @nn.compact
    def __call__(self, x, mask, train=False):
        return nn.Dense(4)(x * mask)


class OfBatchSize(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x @ nn.Dense(4)(x.T)


class KeywordOnly(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dropout(0.5, deterministic=not train)(nn.Dense(4)(x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(5, 4, rngs=rngs)


def init(module, **options):
    return jax.eval_shape(from_linen(module, HEADS, **options).init, jax.random.key(0), X)


@pytest.mark.parametrize(
    "layer, said",
    [
        (nn.Dense, "Dense is a class, not a module: Dense(...)"),
        (Nnx(nnx.Rngs(0)), "Nnx is a Flax NNX module, which models.from_nnx takes"),
        (Nnx, "Nnx is a Flax NNX module"),
        (nnx.Linear(5, 4, rngs=nnx.Rngs(0)), "Linear is a Flax NNX module"),
        (lambda x: x, "a function"),
        (nn.relu, "got "),
        (None, "got None, a NoneType"),
        ([nn.Dense(4)], "a list"),
    ],
)
def test_what_is_no_linen_module_is_refused_at_once(layer, said):
    for build in (
        lambda: from_linen(layer, HEADS),
        lambda: from_blocks([Block("body", layer)], HEADS),
    ):
        with pytest.raises(ValueError, match=r"an instance of a flax\.linen\.Module") as error:
            build()
        assert said in str(error.value) and "\n" not in str(error.value)
        assert str(error.value).startswith("block 'body': ")


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda x: (x, x), "gives a tuple"),
        (lambda x: {"features": x}, "gives a dict"),
        (lambda x: None, "gives a NoneType"),
        (lambda x: x.argmax(-1), "numbers of type int32"),
        (lambda x: x > 0, "numbers of type bool"),
        (lambda x: x.mean(), "the shape [] for 1 example"),
        (lambda x: x[0], "the shape [4] for 1 example"),
        (lambda x: x.T, "the shape [4, 1] for 1 example"),
    ],
)
def test_outputs_that_are_no_features_are_refused_by_init(change, said):
    with pytest.raises(ValueError, match="block 'body' gives") as error:
        init(Gives(change))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_call_chooses_among_outputs_and_one_number_an_example_is_a_feature():
    call = lambda module, x, train: module(x)[0]  # noqa: E731
    params, _ = init(Gives(lambda x: (x, x)), call=call)
    assert params["heads"]["label"]["kernel"].shape == (4, 3)
    params, _ = init(Gives(lambda x: x.sum(-1)))
    assert params["heads"]["label"]["kernel"].shape == (1, 3)


def test_further_arguments_are_named():
    with pytest.raises(ValueError, match="inputs, train: missing a required argument: 'mask'"):
        init(Masked())
    init(Masked(), call=lambda module, x, train: module(x, 1.0, train=train))


def test_train_by_keyword_only_is_understood():
    model = from_linen(KeywordOnly(), HEADS)
    params, state = model.init(jax.random.key(0), jnp.ones((1, 5)))
    outputs = [
        model.apply(params, state, jnp.ones((2, 5)), rng=jax.random.key(1), train=train)[0]
        for train in (False, True)
    ]
    assert not np.array_equal(outputs[0]["features"], outputs[1]["features"])


def test_parameters_that_depend_on_the_number_of_examples_are_refused():
    model = from_linen(OfBatchSize(), HEADS)
    with pytest.raises(ValueError, match="not on the number of examples") as error:
        params, state = jax.eval_shape(model.init, jax.random.key(0), X)
        jax.eval_shape(model.apply, params, state, jax.ShapeDtypeStruct((4, 5), jnp.float32))
    assert "\n" not in str(error.value) and "block 'body'" in str(error.value)
