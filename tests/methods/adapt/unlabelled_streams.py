"""Small models, a batch with an unlabelled target, its forward pass in NumPy, and stages of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.models import Block, classes, from_blocks
from jaxtl.paths import flatten, nest
from jaxtl.plan import Stage, State, labelled, unlabelled
from jaxtl.plan.batch import make_batch
from jaxtl.train.loop import train_stage
from jaxtl.train.options import RunOptions
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve

B, C = 6, 3
SHIFT = 2.6
SGD = optax.sgd(0.1)
KEY = jax.random.key(3)
OPTIONS = RunOptions(checkpoint_every=50, steps_per_dispatch=50, feature_cache=False)
MODEL = from_blocks([Block("first", nn.Dense(5), nn.tanh)], {"c": classes(C)})


class Body(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(8, name="dense")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.8, name="norm")(x)
        return nn.relu(nn.Dense(8, name="last")(nn.relu(x)))


def normed(size=C):
    return models.from_linen(Body(), {"c": classes(size)}, name="body")


def start(model=MODEL, seed=0, width=4):
    """(params, state) of a model, moved off its zero biases."""
    params, statistics = host(jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, width))))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: x + 0.4 * rng.normal(size=x.shape).astype("f"), params)
    return params, State(statistics)


def draw(seed=0, domains=2, unknown=1, size=B, roles=None):
    """A batch whose last `unknown` domains are unlabelled targets, the others sources."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, C, (size, domains))
    weights = rng.uniform(0.5, 2, (size, domains)).astype(np.float32)
    labels[:, domains - unknown :], weights[:, domains - unknown :] = -1, 0
    inputs = rng.normal(size=(size, domains, 4)).astype(np.float32)
    roles = ["source"] * (domains - unknown) + ["target"] * unknown if roles is None else roles
    return make_batch(inputs, {"c": labels}, {"c": weights}, roles=roles)


def forward(params, inputs):
    """(features, logits) of MODEL in float64."""
    p = {path: np.asarray(leaf, np.float64) for path, leaf in flatten(params).items()}
    x = np.tanh(np.asarray(inputs, np.float64) @ p["backbone/first/kernel"]
                + p["backbone/first/bias"])  # fmt: skip
    return x, x @ p["heads/c/kernel"] + p["heads/c/bias"]


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def softmax(logits):
    return np.exp(log_softmax(logits))


def cross_entropy(logits, labels):
    """Of each example."""
    return -np.take_along_axis(log_softmax(logits), labels[..., None], -1)[..., 0]


def task(params, batch):
    """The supervised objective of the first domain, the source."""
    logits = forward(params, batch.inputs)[1][:, :1]
    losses = cross_entropy(logits, batch.labels["c"][:, :1])
    return (batch.weights["c"][:, :1] * losses).sum() / len(logits)


def value_and_gradient(method, params, state, batch, step=0, model=MODEL):
    """(loss, new state, metrics, gradient) of the method's only update."""
    (update,) = method.updates

    def run(params, state, batch):
        return update.loss(model, params, state, batch, KEY, step)

    run = jax.jit(jax.value_and_grad(run, has_aux=True))
    (value, (new, metrics)), gradient = run(params, state, batch)
    return value, new, metrics, gradient


def assert_gradient(gradient, value_of, params, **tolerance):
    """The largest number of each leaf's gradient against central differences in float64."""
    flat = {path: np.asarray(leaf, np.float64) for path, leaf in flatten(params).items()}
    for path, leaf in flatten(gradient).items():
        index = np.unravel_index(np.argmax(np.abs(leaf)), leaf.shape)
        ends = []
        for sign in (1, -1):
            shifted = {**flat, path: flat[path].copy()}
            shifted[path][index] += sign * 1e-5
            ends.append(value_of(nest(shifted)))
        slope = (ends[0] - ends[1]) / 2e-5
        settings = {"rtol": 2e-3, "atol": 1e-5} | tolerance
        np.testing.assert_allclose(leaf[index], slope, err_msg=path, **settings)


def blobs(name, n=120, shift=0.0, seed=0, garbage=False):
    """Three Gaussian classes in four dimensions, moved; their labels, or nonsense."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % C
    centres = np.random.default_rng(7).normal(size=(C, 4)) * 2
    inputs = centres[labels] + 0.6 * rng.normal(size=(n, 4)) + shift
    labels = rng.integers(0, C, n) if garbage else labels
    return data.arrays(inputs.astype(np.float32), labels, name=name, classes=["a", "b", "c"])


def domains_of(garbage=False, source=True, present=range(C)):
    """The source, if it is there, and a target that has some of the classes."""
    target = blobs("target", seed=1, shift=SHIFT, garbage=garbage)
    target = unlabelled(target if len(present) == C else target.only(present), "c")
    return [labelled(blobs("source"), "c"), target] if source else [target]


def pretrained(directory, model, steps=60):
    """(setup, params and state with a leading axis) of a model trained on the source."""
    method = transfer.full(optax.adam(3e-2))
    stage = Stage(
        "source",
        model,
        method,
        domains=[labelled(blobs("source"), "c")],
        batch_size=12,
        num_steps=steps,
    )
    setup = resolve(stage, None)
    run = train_stage(over_seeds(setup, (0,)), None, directory, {"stage": "source"}, OPTIONS)
    return setup, (run.params, run.state)


def trained(method, directory, begun, *, garbage=False, source=True, present=range(C)):
    """A stage after that, trained by the engine."""
    parent, weights = begun
    steps = 150 if method.updates else 0
    stage = Stage(
        "s",
        parent.stage.model,
        method,
        domains=domains_of(garbage, source, present),
        batch_size=20,
        num_steps=steps,
    )
    replicas = over_seeds(resolve(stage, parent), (0,))
    return train_stage(replicas, weights, directory, {"stage": "s"}, OPTIONS)


def accuracy(run, method, dataset):
    """Of the model that a stage leaves."""
    params, state = jax.tree.map(lambda leaf: leaf[0], (run.params, run.state))
    table, model = dataset.table().select(dataset.rows(0)), run.replicas.setup.model
    if method.predict is None:
        output = model.apply(params, state.statistics, table.inputs)[0]
    else:
        output = method.predict(model, params, state, table.inputs)
    return float(np.mean(output["logits"]["c"].argmax(-1) == table.labels["label"]))


def host(tree):
    return jax.device_get(tree)
