"""Which inputs choose among the entries of a table."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxtl import models
from jaxtl.models import BertConfig, classes, index_bounds


def bounds(function, **inputs):
    shapes = {name: jax.ShapeDtypeStruct((1, 4), dtype) for name, dtype in inputs.items()}
    sizes = index_bounds(lambda p, s, x: function(x), 0, 0, shapes)
    return dict(zip(sorted(inputs), sizes, strict=True))


TABLE, SMALLER = jnp.ones((9, 3)), jnp.ones((5, 3))


def test_what_is_looked_up():
    int32, float32 = jnp.int32, jnp.float32
    assert bounds(lambda x: TABLE[x["a"]] * x["b"][..., None], a=int32, b=int32) == {
        "a": 9,
        "b": None,
    }
    assert bounds(lambda x: TABLE[x["a"]] + SMALLER[x["a"]], a=int32) == {"a": 5}
    assert bounds(lambda x: jax.jit(lambda i: jnp.take(TABLE, i + 1, axis=0))(x["a"]), a=int32) == {
        "a": 9
    }
    assert bounds(lambda x: x["a"] * 2.0 + x["b"], a=int32, b=float32) == {"a": None, "b": None}
    assert bounds(lambda x: TABLE[jnp.argmax(x["b"] + x["a"], -1)], a=int32, b=float32) == {
        "a": None,
        "b": None,
    }
    loop = lambda x: jax.lax.scan(lambda c, i: (c, TABLE[i]), 0.0, x["a"])[1]  # noqa: E731
    assert bounds(loop, a=int32) == {"a": 9}


def test_the_vocabulary_of_a_bert():
    config = BertConfig(8, 1, 2, 12, vocabulary=23, positions=7)
    model = models.bert(config, {"y": classes(2)}, "mean", dropout=0.0)
    shapes = {name: jax.ShapeDtypeStruct((1, 7), jnp.int32) for name in ("ids", "mask")}
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    params, state = jax.eval_shape(model.init, jax.random.key(0), zeros)
    forward = lambda p, s, x: model.apply(p, s, x)[0]  # noqa: E731
    assert index_bounds(forward, params, state, shapes) == [23, None]


def test_an_embedding_behind_other_layers():
    class Columns(nn.Module):
        @nn.compact
        def __call__(self, x):
            hidden = nn.Embed(6, 4)(jnp.clip(x["kind"], 0)) + nn.Dense(4)(x["values"])[:, None]
            return hidden.mean(1)

    model = models.from_linen(Columns(), {"y": classes(2)})
    inputs = {"kind": jnp.zeros((1, 2), jnp.int32), "values": jnp.zeros((1, 3))}
    params, state = model.init(jax.random.key(0), inputs)
    found = index_bounds(lambda p, s, x: model.apply(p, s, x)[0], params, state, inputs)
    assert found == [6, None]
