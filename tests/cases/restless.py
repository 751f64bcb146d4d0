"""A small experiment with all that goes on over steps: to be launched, stopped and launched again.

    python launch.py --experiment=tests/cases/restless.py

Result: not measured.
"""

import dataclasses
import os

import numpy as np
import optax

from jaxtl import data, models
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled
from jaxtl.transferability import neighborhood_density


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 12
    rate: float = 0.03
    width: int = 8
    folder: str = ""  # where the source's inputs lie, which are read page by page; empty: in memory
    select: bool = False  # the last stages end with what was best on validation data
    prepares: bool = False  # an arm whose method looks at all data every few steps
    freezes: bool = False  # an arm whose first block runs once per example
    analyses: bool = True


def blobs(name, rows, shift, seed, folder=""):
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    centres = 2 * np.random.default_rng(7).normal(size=(3, 5))
    inputs = (centres[labels] + rng.normal(size=(rows, 5)) + shift).astype(np.float32)
    if folder:
        path = os.path.join(folder, f"{name}.npy")
        if not os.path.exists(path):
            np.save(path, inputs)
        inputs = np.load(path, mmap_mode="r")
    return data.arrays(inputs, labels, name=name)


def build(config):
    source, target = blobs("source", 40, 0.0, 0, config.folder), blobs("target", 40, 1.0, 1)
    valid, test = blobs("valid", 21, 1.0, 2), blobs("test", 30, 1.0, 3)
    heads = {"y": classes(3)}
    dropout = 0.0 if config.freezes else 0.1  # features that change cannot be cached
    model = models.mlp(heads, hidden=(config.width, config.width), dropout=dropout)
    adam, few = optax.adam(config.rate), labelled(target.few(4), "y")

    def stage(name, method, *domains):
        return Stage(name, model, method, domains=domains, batch_size=8, num_steps=config.steps)

    pretrain = stage("pretrain", transfer.full(adam), labelled(source, "y"))
    arms = {
        "scratch": [stage("scratch", transfer.full(adam), few)],
        "full": [pretrain, stage("full", transfer.full(adam), few)],
    }
    if config.prepares:
        pada = adapt.pada(adam, reversal=0.5, every=4)
        domains = labelled(blobs("source", 40, 0.0, 0), "y"), unlabelled(target, "y")
        arms["pada"] = [pretrain, stage("pada", pada, *domains)]
    if config.freezes:
        partial = transfer.partial(adam, freeze=("backbone/dense_0/.*",))
        arms["partial"] = [pretrain, stage("partial", partial, few)]
    evals = {"test": classification(test, "y")}
    if config.select:
        evals["valid"] = classification(valid, "y")
    return Experiment(
        arms,
        "scratch",
        evals,
        primary=maximize("test", "accuracy"),
        select=maximize("valid", "accuracy") if config.select else None,
        select_every=4,
        criteria={"density": neighborhood_density(target, "y")} if config.select else {},
        analyses=None if config.analyses else (),
    )
