"""A model of two heads, one step of it, and the gradients of its single losses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl import data, models
from jaxtl.losses import task_losses
from jaxtl.models import apply_flat, classes, regression
from jaxtl.plan import Stage, State, labelled
from jaxtl.train.feed.examples import gather, host_feed
from jaxtl.train.resolve.replicas import over_seeds
from jaxtl.train.resolve.stage import resolve
from jaxtl.train.state import start
from jaxtl.train.step import make_step

SIZE, RATE, KEY = 8, 0.5, jax.random.key(5)
SGD = optax.sgd(RATE)


def dataset(name="several", seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(60, 5)).astype(np.float32)
    labels = {"kind": np.arange(60) % 3, "size": (3 * inputs[:, 0] - 1).astype(np.float32)}
    return data.arrays(inputs, labels, name=name)


def stage(method, domains=1, steps=10):
    model = models.mlp({"kind": classes(3), "size": regression()}, hidden=(6,))
    heads = {"kind": "kind", "size": "size"}
    chosen = [labelled(dataset(f"d{d}", d), heads) for d in range(domains)]
    return Stage("several", model, method, domains=chosen, batch_size=SIZE, num_steps=steps)


def begun(method, domains=1):
    """(setup, train state of one seed, batch)."""
    setup = resolve(stage(method, domains), None)
    replicas = over_seeds(setup, (0,))
    train = jax.tree.map(lambda leaf: leaf[0], start(replicas, None))
    feed = host_feed(replicas)
    own = jax.tree.map(lambda leaf: leaf[0], feed.per_replica)
    index = jnp.tile(jnp.arange(SIZE)[:, None], (1, domains))
    return setup, train, gather(setup.stage, feed.shared, own, index, KEY)


def stepper(setup, parts=1):
    """(train state, batch) -> (train state, metrics): step 0, compiled once."""
    step = jax.jit(make_step(setup, parts))
    return lambda train, batch: step(train, batch, KEY, jnp.int32(0))


def stepped(setup, train, batch, parts=1):
    return stepper(setup, parts)(train, batch)


def losses(model, params, batch):
    """[tasks], of the whole batch."""
    output, _ = apply_flat(model, params, State({}), batch.inputs, train=True)
    return task_losses(model.heads, output["logits"], batch)[0]
