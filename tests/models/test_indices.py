"""Which inputs choose among the entries of a table."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxtl import models
from jaxtl.models import BertConfig, classes, index_bounds


def bounds(function, **inputs):
    shapes = {name: jax.ShapeDtypeStruct((1, 4), dtype) for name, dtype in inputs.items()}
    return index_bounds(lambda params, state, x: function(x), 0, 0, shapes)


TABLE, SMALLER = jnp.ones((9, 3)), jnp.ones((5, 3))
A = "['a']"


def test_what_is_looked_up():
    int32, float32 = jnp.int32, jnp.float32
    both = {"a": int32, "b": int32}
    assert bounds(lambda x: TABLE[x["a"]] * x["b"][..., None], **both) == {A: 9}
    assert bounds(lambda x: TABLE[x["a"]] + SMALLER[x["a"]], a=int32) == {A: 5}
    inside = jax.jit(lambda i: jnp.take(TABLE, i.T, axis=0))
    assert bounds(lambda x: inside(x["a"]), a=int32) == {A: 9}
    loop = lambda x: jax.lax.scan(lambda c, i: (c, TABLE[i]), 0.0, x["a"])[1]  # noqa: E731
    assert bounds(loop, a=int32) == {A: 9}
    assert bounds(lambda x: x["a"] * 2.0 + x["b"], a=int32, b=float32) == {}
    best = lambda x: TABLE[jnp.argmax(x["b"] + x["a"], -1)]  # noqa: E731
    assert bounds(best, a=int32, b=float32) == {}


@pytest.mark.parametrize(
    "function",
    [
        lambda a: TABLE[a - 1],  # counted from 1
        lambda a: TABLE[jnp.clip(a, 0, 8)],
        lambda a: TABLE[a // 2],
        lambda a: TABLE[jnp.where(a < 0, 0, a)],
        lambda a: jnp.ones((1, 4, 3))[jnp.arange(1), a.sum(1) - 1],  # the last token by a mask
        lambda a: jnp.ones((4, 9, 3))[jnp.arange(4), a],  # a table for each column
    ],
)
def test_other_numbers_may_be_larger(function):
    assert bounds(lambda x: function(x["a"]), a=jnp.int32) == {}


def test_the_vocabulary_of_a_bert():
    config = BertConfig(8, 1, 2, 12, vocabulary=23, positions=7)
    model = models.bert(config, {"y": classes(2)}, "mean", dropout=0.0)
    shapes = {name: jax.ShapeDtypeStruct((1, 7), jnp.int32) for name in ("ids", "mask")}
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    params, state = jax.eval_shape(model.init, jax.random.key(0), zeros)
    forward = lambda p, s, x: model.apply(p, s, x)[0]  # noqa: E731
    assert index_bounds(forward, params, state, shapes) == {"['ids']": 23}


def test_an_embedding_behind_other_layers():
    class Columns(nn.Module):
        @nn.compact
        def __call__(self, x):
            hidden = nn.Embed(6, 4)(x["kind"]) + nn.Dense(4)(x["values"])[:, None]
            return hidden.mean(1)

    model = models.from_linen(Columns(), {"y": classes(2)})
    inputs = {"kind": jnp.zeros((1, 2), jnp.int32), "values": jnp.zeros((1, 3))}
    params, state = model.init(jax.random.key(0), inputs)
    found = index_bounds(lambda p, s, x: model.apply(p, s, x)[0], params, state, inputs)
    assert found == {"['kind']": 6}
