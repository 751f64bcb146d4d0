"""A network of two dense layers, its batches, and the same in NumPy."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from shapes import SHAPE

from jaxtl.models import Block, classes, from_blocks
from jaxtl.paths import flatten, nest
from jaxtl.plan import Columns
from jaxtl.plan.batch import make_batch

B, D = 6, 2
HEADS = {"source": classes(4), "target": classes(3)}
MODEL = from_blocks([Block(n, nn.Dense(5), nn.tanh) for n in ("first", "second")], HEADS)
SGD = optax.sgd(0.1)
KEY = jax.random.key(3)


def draw(seed=0):
    """A batch in which a third of the labels is hidden."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (B, D))
    weights = rng.uniform(0.5, 2, (B, D)).astype(np.float32)
    hidden = np.arange(B * D).reshape(B, D) % 3 == 0
    labels[hidden], weights[hidden] = -1, 0
    inputs = rng.normal(size=(B, D, 4)).astype(np.float32)
    return make_batch(inputs, {"target": labels}, {"target": weights})


@functools.cache
def start():
    return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 4)))[0]


def initial(modules=()):
    """Parameters, those of a method's modules among them."""
    output = {"features": jnp.zeros((1, 5))}
    return start() | {
        name: module.init(KEY, output, SHAPE) for name, module in dict(modules).items()
    }


def moved(params, seed=1):
    """Other parameters nearby."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype("f"), params)


def numbers(tree):
    return {path: np.asarray(leaf, np.float64) for path, leaf in flatten(tree).items()}


def forward(params, inputs):
    """({block: output}, {head: logits}) in float64."""
    p, x, maps = numbers(params), np.asarray(inputs, np.float64), {}
    for block in ("first", "second"):
        x = np.tanh(x @ p[f"backbone/{block}/kernel"] + p[f"backbone/{block}/bias"])
        maps[block] = x
    return maps, {h: x @ p[f"heads/{h}/kernel"] + p[f"heads/{h}/bias"] for h in HEADS}


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def cross_entropy(logits, labels, weights):
    chosen = np.take_along_axis(log_softmax(logits), np.maximum(labels, 0)[..., None], -1)
    return -np.sum(weights * chosen[..., 0]) / B


def objective(params, batch):
    target = [np.asarray(values["target"]) for values in (batch.labels, batch.weights)]
    return cross_entropy(forward(params, batch.inputs)[1]["target"], *target)


@functools.cache
def compiled(loss):
    def run(params, state, batch):
        return loss(MODEL, params, state, batch, KEY, 0)

    return jax.jit(jax.value_and_grad(run, has_aux=True))


def value_and_gradient(method, params, state, batch):
    """(loss, new state, metrics, gradient) of the method's only update."""
    (update,) = method.updates
    (value, (new, metrics)), gradient = compiled(update.loss)(params, state, batch)
    return value, new, metrics, gradient


def differs_as(gradient, value_of, params, path):
    """One number of the gradient against a central difference of the NumPy value."""
    flat = numbers(params)
    index = np.unravel_index(np.argmax(np.abs(flatten(gradient)[path])), flat[path].shape)
    ends = []
    for sign in (1, -1):
        shifted = {**flat, path: flat[path].copy()}
        shifted[path][index] += sign * 1e-5
        ends.append(value_of(nest(shifted)))
    slope = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(flatten(gradient)[path][index], slope, rtol=2e-3)
    assert abs(slope) > 1e-4


def columns(seed=0, n=20):
    rng = np.random.default_rng(seed)
    labels, weights = rng.integers(0, 3, n), rng.uniform(0.5, 2, n).astype(np.float32)
    labels[::4], weights[::4] = -1, 0
    inputs = rng.normal(size=(n, 4)).astype(np.float32)
    return Columns(inputs, {"target": labels}, {"target": weights}, np.ones(n, np.float32))


def host(tree):
    return jax.device_get(tree)
