"""An experiment file whose arms differ in what their predictions need, and its data."""

import numpy as np

EXPERIMENT = '''\
"""Which of three tiny ways?

    python launch.py --experiment=leaving
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtl import data, models
from jaxtl.data import Dataset, Table
from jaxtl.data.table import Call
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import Block, classes
from jaxtl.plan import Experiment, Method, Stage, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 12
    width: tuple[int, ...] = (4,)


class Centres(NamedTuple):
    """Of the classes; the fields stand in no alphabetical order."""

    scale: jax.Array
    centre: jax.Array


@dataclasses.dataclass(frozen=True)
class Published:
    name: str = "published.bin"

    def read(self, wanted):
        def numbers(path, leaf):  # those of a file do not depend on what else is read
            return np.random.default_rng(list(path.encode())).random(leaf.shape, leaf.dtype)

        return {path: numbers(path, leaf) for path, leaf in wanted.items()}, "all"

    def digest(self):
        return "0"

    def save(self, path, leaves):
        path.write_text(" ".join(sorted(leaves)))


def read(file, part):
    rows = np.load(file)
    labels = {"label": rows[f"{part}_label"]}
    return Table(rows[f"{part}_image"], labels, {"label": ("cat", "dog", "owl")})


def dataset(part):
    return Dataset(part, Call(read, (str(Path("rows.npz").absolute()), part)))


def nearest(model, params, state, inputs):
    output, centres = model.apply(params, state.statistics, inputs)[0], state.method
    distance = jnp.sum((output["features"][:, None] - centres.centre[None]) ** 2, -1)
    return {**output, "logits": {**output["logits"], "animal": -centres.scale * distance}}


def find_centres(model, params, state, domains):
    (columns,) = domains
    output = model.apply(params, state.statistics, models.to_float(columns.inputs))[0]
    features, labels = np.asarray(output["features"]), columns.labels["animal"]
    centre = np.stack([features[labels == c].mean(0) for c in range(3)])
    return params, state._replace(method=Centres(np.float32(2), centre))


def no_centres(model, params, statistics, shape):
    size = params["heads"]["animal"]["kernel"].shape[0]
    return Centres(jnp.zeros(()), jnp.zeros((3, size)))


class BesideHead(models.Network):
    """A head with a low-rank change beside it, off zero from the beginning."""

    def init(self, rng, inputs):
        params, state = super().init(rng, inputs)
        rows, columns = params["heads"]["animal"]["kernel"].shape
        down = jax.random.normal(rng, (rows, 2))
        up = jax.random.normal(rng, (2, columns))
        return {**params, "adapter": {"down": down, "up": up}}, state

    def apply(self, params, state, inputs, **options):
        return super().apply(self.changed(params), state, inputs, **options)

    def merge(self, params):
        merged = self.changed(params)
        head = merged["heads"]["animal"]
        head["kernel"] = np.asfortranarray(head["kernel"])
        return models.Network(**vars(self)), merged

    def changed(self, params):
        own, head = params["adapter"], params["heads"]["animal"]
        head = {**head, "kernel": head["kernel"] + own["down"] @ own["up"]}
        heads = {**params["heads"], "animal": head}
        return {"backbone": params["backbone"], "heads": heads}


def build(config):
    def flat(layer, x, train):
        return layer(x.reshape(x.shape[0], -1))

    dense = Block("dense", nn.Dense(config.width[0]), call=flat)
    norm = Block("norm", nn.BatchNorm(), nn.relu, lambda f, x, train: f(x, not train))
    model = models.from_blocks([dense, norm], {"animal": classes(3), "other": classes(2)})
    sgd, domains = transfer.full(optax.sgd(0.1)), [labelled(dataset("train"), "animal")]
    prototypes = Method(state=no_centres, prepare=find_centres, predict=nearest)
    as_it_is, lora = Method(fresh_frozen=True), BesideHead(**vars(model))
    both = {"domains": domains, "batch_size": 8}
    first = Stage("first", model, sgd, num_steps=config.steps, **both)
    then = Stage("then", model, sgd, num_steps=config.steps, fresh=("heads/.*",), **both)
    arms = {
        "two": [first, then],
        "prototypes": [first, Stage("prototypes", model, prototypes, num_steps=0, **both)],
        "adapter": [
            Stage(
                "adapter",
                lora,
                as_it_is,
                num_steps=0,
                fresh=("adapter/.*",),
                weights=Published(),
                **both,
            )
        ],
    }
    evals = {"animal": classification(dataset("test"), "animal")}
    return Experiment(arms, "two", evals, primary=maximize("animal", "accuracy"))
'''


def rows(seed: int, n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int32) % 3
    images = rng.integers(0, 199, (n, 4, 4, 1)) + 25 * labels.reshape(-1, 1, 1, 1)
    return {"image": images.astype(np.uint8), "label": labels}


TRAIN, TEST = rows(0, 24), rows(1, 30)
