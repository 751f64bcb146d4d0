"""Digits 0-4 to 5-9 with ten labels a class: which way of transferring helps?

    python launch.py --experiment=digits_halves

Result: target/accuracy: scratch 0.931 [0.888, 0.974], full 0.891 [0.866, 0.915], partial 0.811
[0.772, 0.851], probe 0.621 [0.551, 0.691], ridge 0.837 [0.796, 0.878]; 5 seeds, 52 s on 2 CPU
cores.
"""

import dataclasses

import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize


@dataclasses.dataclass(frozen=True)
class Config:
    labels_per_class: int = 10
    batch_size: int = 64
    source_steps: int = 1_000
    target_steps: int = 300
    learning_rate: float = 1e-3


def build(config: Config) -> Experiment:
    digits = data.digits()
    source, target = digits.classes(range(5)), digits.classes(range(5, 10))
    few = target.train.few(config.labels_per_class)  # drawn per seed
    model = models.conv_net({"source": classes(5), "target": classes(5)})
    adam = optax.adam(config.learning_rate)
    pretrain = Stage(
        "pretrain",
        model,
        transfer.full(adam),
        domains=[labelled(source.train, "source")],
        batch_size=config.batch_size,
        num_steps=config.source_steps,
    )

    def fine_tune(name, method, steps=config.target_steps):
        return Stage(
            name,
            model,
            method,
            domains=[labelled(few, "target")],
            batch_size=config.batch_size,
            num_steps=steps,
            fresh=("heads/target/.*",),
        )

    partial = transfer.partial(adam, freeze=("backbone/conv_.*",))
    return Experiment(
        arms={
            "scratch": [fine_tune("scratch", transfer.full(adam))],
            "full": [pretrain, fine_tune("full", transfer.full(adam))],
            "partial": [pretrain, fine_tune("partial", partial)],
            "probe": [pretrain, fine_tune("probe", transfer.probe(adam))],
            "ridge": [pretrain, fine_tune("ridge", transfer.ridge(), steps=0)],
        },
        baseline="scratch",
        evals={
            "target": classification(target.test, "target"),
            "source": classification(source.test, "source"),
        },
        primary=maximize("target", "accuracy"),
    )
