"""Digits 0-5 to turned 0-9: is a digit that the source has not told from those it has?

    python launch.py --experiment=open_set

`source_only` and `dann` call unknown what they are less than half sure of.

Result: target/hos: source_only 0.280 [0.080, 0.479], dann 0.214 [0.111, 0.317], osbp 0.701 [0.571,
0.831]; 5 seeds, 100 s of CPU time.
"""

import dataclasses

import numpy as np
import optax

from jaxtl import data, losses, models
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification, open_set
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled


@dataclasses.dataclass(frozen=True)
class Config:
    degrees: float = 20.0
    batch_size: int = 64
    steps: int = 600


def known_or_six(table):
    return np.minimum(table.labels["label"], 6)


def build(config: Config) -> Experiment:
    digits = data.digits().relabel("label", known_or_six, (*"012345", "unknown"))
    shifted = data.rotated(digits, config.degrees)
    source, target = digits.train.split(0.5)[0].only(range(6)), shifted.train.split(0.5)[1]
    model = models.conv_net({"digit": classes(7)}, batch_norm=True)
    sgd = optax.sgd(lambda step: 0.01 / (1 + 10 * step / config.steps) ** 0.75, momentum=0.9)
    on_source, on_target = [labelled(source, "digit")], [unlabelled(target, "digit")]

    def arm(name, method, domains):
        return [
            Stage(
                name,
                model,
                method,
                domains=domains,
                batch_size=config.batch_size,
                num_steps=config.steps,
            )
        ]

    plain = adapt.reject_unsure(transfer.full(sgd), head="digit")
    growing = losses.reversal_schedule(config.steps)
    dann = adapt.reject_unsure(adapt.dann(sgd, reversal=growing), head="digit")
    return Experiment(
        arms={
            "source_only": arm("source_only", plain, on_source),
            "dann": arm("dann", dann, [*on_source, *on_target]),
            "osbp": arm("osbp", adapt.osbp(sgd), [*on_source, *on_target]),
        },
        baseline="source_only",
        evals={
            "target": open_set(shifted.test, "digit"),
            "source": classification(digits.test.only(range(6)), "digit"),
        },
        primary=maximize("target", "hos"),
    )
