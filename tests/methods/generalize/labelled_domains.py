"""A linear model of two heads on labelled domains, and its losses by loops in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl.models import classes, linear, regression
from jaxtl.paths import flatten
from jaxtl.plan import State
from jaxtl.plan.batch import make_batch

B, D, WIDTH, CLASSES = 6, 3, 4, 3
HEADS = {"kind": classes(CLASSES), "size": regression()}
MODEL = linear(HEADS)
SGD, KEY = optax.sgd(0.1), jax.random.key(3)


def draw(domains=D, seed=0, heads=("kind", "size")):
    """Unequal weights; some labels are missing, and all of the last domain's sizes."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(B, domains, WIDTH)) + 0.5 * np.arange(domains)[None, :, None]
    labels = {"kind": rng.integers(0, CLASSES, (B, domains)), "size": rng.normal(size=(B, domains))}
    weights = {name: rng.uniform(0.5, 2, (B, domains)) for name in labels}
    present = np.ones((B, domains))
    present[-1, 0] = 0  # padding
    labels["kind"][1, 0], weights["kind"][1, 0] = -1, 0
    weights["size"][:, -1] = 0
    labels["size"] = np.where(weights["size"] > 0, labels["size"], np.nan)
    weights = {name: (leaf * present).astype("f") for name, leaf in weights.items()}
    return make_batch(
        inputs.astype("f"),
        {name: labels[name].astype("i" if name == "kind" else "f") for name in heads},
        {name: weights[name] for name in heads},
        present=present.astype("f"),
    )


@functools.cache
def start():
    params = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, WIDTH)))[0]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype("f"), params)


def example_loss(name, outputs, label):
    """Of one example, in float64."""
    if name == "size":
        return (outputs[0] - label) ** 2
    return np.log(np.exp(outputs).sum()) - outputs[label]


def outputs_of(params, batch, name, i, d):
    head = params["heads"][name]
    return np.float64(batch.inputs[i, d]) @ np.float64(head["kernel"]) + np.float64(head["bias"])


def risk(params, batch, name, d, factor=1.0, rows=range(B)):
    """(mean loss of a domain's labelled examples, their weight / the batch), by a loop."""
    total, weight = 0.0, 0.0
    for i in rows:
        if (w := np.float64(batch.weights[name][i, d])) > 0:
            outputs = factor * outputs_of(params, batch, name, i, d)
            total += w * example_loss(name, outputs, batch.labels[name][i, d])
            weight += w
    return (total / weight if weight else 0.0), weight / B


def evaluated(method, params, batch, step=7, model=MODEL, state=None):
    """(loss, metrics, gradient) of the one update of a method."""
    state = jax.tree.map(jnp.asarray, state or State({}))

    def run(params):
        loss, (_, metrics) = method.updates[0].loss(model, params, state, batch, KEY, step)
        return loss, metrics

    (loss, metrics), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(params)
    return loss, metrics, gradient


def slopes_of(value, params, size=1e-6):
    """The gradient of a function of float64 parameters, number by number, by differences."""
    flat = {path: np.float64(leaf) for path, leaf in flatten(params).items()}
    gradient = {}
    for path, leaf in flat.items():
        gradient[path] = np.zeros_like(leaf)
        for place in np.ndindex(leaf.shape):
            ends = []
            for sign in (1, -1):
                moved = leaf.copy()
                moved[place] += sign * size
                ends.append(value(nested(flat | {path: moved})))
            gradient[path][place] = (ends[0] - ends[1]) / (2 * size)
    return gradient


def nested(flat):
    tree = {}
    for path, leaf in flat.items():
        *rooms, last = path.split("/")
        place = tree
        for room in rooms:
            place = place.setdefault(room, {})
        place[last] = leaf
    return tree


def assert_slopes(gradient, expected, rtol=2e-4, atol=2e-5):
    assert flatten(gradient).keys() == expected.keys()
    for path, leaf in flatten(gradient).items():
        np.testing.assert_allclose(leaf, expected[path], rtol=rtol, atol=atol, err_msg=path)
