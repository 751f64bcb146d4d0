"""A small experiment with all that goes on over steps: to be launched, stopped and launched again.

    python launch.py --experiment=tests/cases/restless.py

Result: not measured.
"""

import dataclasses
import os
import tempfile

import numpy as np
import optax

from jaxtl import data, models
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled
from jaxtl.transferability import criteria


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 12
    rate: float = 0.03
    width: int = 8
    on_disk: bool = False  # the inputs are read from a file, page by page
    select: bool = False  # the last stages end with what was best on validation data
    prepares: bool = False  # an arm whose method looks at all data every few steps
    frozen: bool = False  # an arm whose first block is computed once


def blobs(config, name, rows, shift, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    centres = 2 * np.random.default_rng(7).normal(size=(3, 5))
    inputs = (centres[labels] + rng.normal(size=(rows, 5)) + shift).astype(np.float32)
    if config.on_disk:
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            np.save(file, inputs)
            file.flush()
            inputs = np.load(file.name, mmap_mode="r")
            os.stat(file.name)  # the map outlives its name
    return data.arrays(inputs, labels, name=name)


def build(config):
    source, target = (blobs(config, n, 40, s, i) for i, (n, s) in enumerate([("s", 0), ("t", 1)]))
    test = blobs(config, "test", 30, 1.0, 2)
    heads = {"y": classes(3)}
    model = models.mlp(heads, hidden=(config.width, config.width), dropout=0.1)
    adam, few = optax.adam(config.rate), target.few(4)

    def stage(name, method, *domains):
        return Stage(name, model, method, domains=domains, batch_size=8, num_steps=config.steps)

    source, seen = labelled(source, "y"), labelled(few, "y")
    pretrain = stage("pretrain", transfer.full(adam), source)
    arms = {
        "scratch": [stage("scratch", transfer.full(adam), seen)],
        "full": [pretrain, stage("full", transfer.full(adam), seen)],
    }
    if config.prepares:
        pada = adapt.pada(adam, reversal=0.5, every=4)
        arms["pada"] = [pretrain, stage("pada", pada, source, unlabelled(target, "y"))]
    if config.frozen:
        partial = transfer.partial(adam, freeze=("backbone/dense_0/.*",))
        arms["partial"] = [pretrain, stage("partial", partial, seen)]
    watched = {"snd": criteria.soft_neighborhood_density(test, "y")} if config.select else {}
    return Experiment(
        arms,
        "scratch",
        {"test": classification(test, "y"), "valid": classification(few, "y")},
        primary=maximize("test", "accuracy"),
        select=maximize("valid", "accuracy") if config.select else None,
        select_every=4,
        criteria=watched,
    )
