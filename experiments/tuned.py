"""Digits 0-4 to 5-9 with a learning rate picked for each arm: does transfer still hurt?

    python launch.py --experiment=tuned

Rates and seeds train in one program; digits that are not the test set's pick rate and step.

Result: target/accuracy at the picked rate: scratch 0.927 [0.895, 0.960], full 0.902 (gain -0.026
[-0.065, 0.014]), partial 0.834, probe 0.702 (both negative); 5 seeds, 5 rates, 62 s on 2 cores.
"""

import dataclasses

import optax

from jaxtl import data, models
from jaxtl.methods import transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize

CONVOLUTIONS = ("backbone/conv_.*",)
SWEEP = {"learning_rate": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)}


@dataclasses.dataclass(frozen=True)
class Config:
    learning_rate: float = 1e-3
    labels_per_class: int = 10
    source_steps: int = 1_000
    target_steps: int = 300


def build(config: Config) -> Experiment:
    digits = data.digits()
    source, target = digits.classes(range(5)), digits.classes(range(5, 10))
    pool, validation = target.train.split(0.8)
    few = [labelled(pool.few(config.labels_per_class), "target")]
    model = models.conv_net({name: models.classes(5) for name in ("source", "target")})
    adam, first = optax.adam(config.learning_rate), transfer.full(optax.adam(1e-3))
    many = [labelled(source.train, "source")]
    pretrain = Stage(
        "pretrain", model, first, domains=many, batch_size=64, num_steps=config.source_steps
    )

    def fine_tune(name, method):
        return Stage(
            name,
            model,
            method,
            domains=few,
            batch_size=64,
            num_steps=config.target_steps,
            fresh=("heads/target/.*",),
        )

    return Experiment(
        arms={
            "scratch": [fine_tune("scratch", transfer.full(adam))],
            "full": [pretrain, fine_tune("full", transfer.full(adam))],
            "partial": [
                pretrain,
                fine_tune("partial", transfer.partial(adam, freeze=CONVOLUTIONS)),
            ],
            "probe": [pretrain, fine_tune("probe", transfer.probe(adam))],
        },
        baseline="scratch",
        evals={
            "target": classification(target.test, "target"),
            "validation": classification(validation, "target"),
        },
        primary=maximize("target", "accuracy"),
        select=maximize("validation", "accuracy"),
        select_every=25,
    )
