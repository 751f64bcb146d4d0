"""A network of two dense layers, a batch of two or more domains, and the network by hand."""

import dataclasses
import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from shapes import SHAPE

from jaxtl.models import Block, classes, from_blocks
from jaxtl.paths import flatten
from jaxtl.plan import State
from jaxtl.plan.batch import Batch, make_batch

B, CLASSES, WIDTH = 6, 3, 5
HEADS = {"task": classes(CLASSES)}
MODEL = from_blocks([Block(n, nn.Dense(WIDTH), nn.tanh) for n in ("first", "second")], HEADS)
SGD = optax.sgd(0.1)
KEY = jax.random.key(3)


def draw(domains=2, labelled=(0,), seed=0, roles=None):
    """A batch; only the `labelled` domains have labels, of unequal weights, and are the sources."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (B, domains))
    weights = rng.uniform(0.5, 2, (B, domains)).astype(np.float32)
    hidden = np.isin(np.arange(domains), labelled, invert=True)
    labels[:, hidden], weights[:, hidden] = -1, 0
    inputs = rng.normal(size=(B, domains, 4)) + np.arange(domains)[None, :, None] * 0.7
    inputs = inputs.astype(np.float32)
    roles = np.where(hidden, "target", "source").tolist() if roles is None else roles
    return make_batch(inputs, {"task": labels}, {"task": weights}, roles=roles)


@functools.cache
def start():
    return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 4)))[0]


def initial(method, shape=SHAPE):
    """Parameters, those of the method's modules among them, all off zero."""
    output = {"features": jnp.zeros((1, WIDTH)), "logits": {"task": jnp.zeros((1, CLASSES))}}
    params = start() | {
        name: module.init(KEY, output, shape) for name, module in method.modules.items()
    }
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype("f"), params)


@dataclasses.dataclass
class Forward:
    """What the network makes of a batch whose first domains are the sources."""

    params: dict
    batch: Batch

    def __post_init__(self):
        x, p = jnp.asarray(self.batch.inputs), self.params
        for block in ("first", "second"):
            layer = p["backbone"][block]
            x = jnp.tanh(jnp.einsum("bdi,io->bdo", x, layer["kernel"]) + layer["bias"][None, None])
        head, s = p["heads"]["task"], self.batch.roles.count("source")
        self.all_logits = jnp.einsum("bdi,io->bdo", x, head["kernel"]) + head["bias"][None, None]
        self.all_features = x
        self.fs, self.ft = x[:, :s].reshape(-1, WIDTH), x[:, s:].reshape(-1, WIDTH)
        self.zs = self.all_logits[:, :s].reshape(-1, CLASSES)
        self.zt = self.all_logits[:, s:].reshape(-1, CLASSES)
        self.labels = self.batch.labels["task"][:, :s].reshape(-1)
        self.task = cross_entropy(self.all_logits, self.batch)


def computed(params, batch):
    """The same as numbers, compiled at once."""

    def run(params):
        found = vars(Forward(params, batch))
        return {name: found[name] for name in ("all_features", "task", "fs", "ft", "zs", "zt")}

    return types.SimpleNamespace(**jax.device_get(jax.jit(run)(params)))


def cross_entropy(logits, batch):
    log_p = jax.nn.log_softmax(logits)
    one_hot = np.asarray(batch.labels["task"])[..., None] == np.arange(CLASSES)[None, None]
    return -jnp.sum(batch.weights["task"] * jnp.sum(one_hot * log_p, -1)) / B


def dense(params, x, layers=("output",)):
    """A small network of the method's own: ReLU after all layers but the last."""
    for name in layers:
        x = x @ params[name]["kernel"] + params[name]["bias"][None]
        x = jnp.maximum(x, 0) if name != layers[-1] else x
    return x


def evaluated(method, params, batch, index=0, state=None, step=7):
    """(loss, metrics, gradient by all parameters) of one update of a method."""

    state = jax.tree.map(jnp.asarray, state or State({}))

    def run(params):
        return method.updates[index].loss(MODEL, params, state, batch, KEY, step)

    (loss, (_, metrics)), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(params)
    return loss, metrics, gradient


def gradient_of(function, params):
    return jax.jit(jax.value_and_grad(function))(params)


def assert_close(tree, expected, rtol=2e-4, atol=2e-6):
    found, wanted = flatten(tree), flatten(expected)
    assert found.keys() == wanted.keys()
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, wanted[path], rtol=rtol, atol=atol, err_msg=path)
