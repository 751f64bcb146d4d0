"""Upright digits to digits turned by 20 degrees, and to inverted ones: does the transfer help?

    python launch.py --experiment=digits

The target has two labels a class, and other images than the source; `dan` uses none of its labels.

Result: target/accuracy, turned | inverted: scratch 0.776 | 0.743, source_only 0.698 | 0.047, full
0.877 | 0.759, partial 0.853 | 0.577, probe 0.848 | 0.162, ridge 0.793 | 0.564, joint 0.880 | 0.724,
dan 0.895 | 0.048: it helps on turned digits and hurts on inverted ones; 5 seeds, 28 s.
"""

import dataclasses
import functools
from typing import Literal

import optax

from jaxtl import data, models
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled

SHIFTS = {"rotated": functools.partial(data.rotated, degrees=20), "inverted": data.inverted}
SWEEP = {"shift": tuple(SHIFTS)}  # both, if --config.shift names none


@dataclasses.dataclass(frozen=True)
class Config:
    shift: Literal["rotated", "inverted"] = "rotated"  # what was done to the target's digits
    labels_per_class: int = 2  # of the target
    batch_size: int = 32
    source_steps: int = 400
    target_steps: int = 200
    learning_rate: float = 1e-3


def build(config: Config) -> Experiment:
    digits = data.digits()
    shift = SHIFTS[config.shift]
    upright, others = digits.train.split(0.5)  # no digit is seen in both positions
    shifted, test = shift(others), shift(digits.test)
    few = shifted.few(config.labels_per_class)  # drawn per seed, the same for every arm
    model = models.conv_net({"digit": models.classes(10)})
    adam = optax.adam(config.learning_rate)
    source, target = labelled(upright, "digit"), labelled(few, "digit", role="target")
    unseen = unlabelled(shifted, "digit")  # its labels reach no method

    def stage(name, method, domains, steps=config.target_steps):
        size = config.batch_size
        return Stage(name, model, method, domains=domains, batch_size=size, num_steps=steps)

    full, frozen = transfer.full(adam), transfer.partial(adam, freeze=("backbone/conv_.*",))
    pretrain = stage("pretrain", full, [source], steps=config.source_steps)
    return Experiment(
        arms={
            "scratch": [stage("scratch", full, [target])],
            "source_only": [pretrain],
            "full": [pretrain, stage("full", full, [target])],
            "partial": [pretrain, stage("partial", frozen, [target])],
            "probe": [pretrain, stage("probe", transfer.probe(adam), [target])],
            "ridge": [pretrain, stage("ridge", transfer.ridge(), [target], steps=0)],
            "joint": [pretrain, stage("joint", full, [source, target])],
            "dan": [pretrain, stage("dan", adapt.dan(adam), [source, unseen])],
        },
        baseline="scratch",
        evals={
            "target": classification(test, "digit"),
            "source": classification(digits.test, "digit"),
        },
        primary=maximize("target", "accuracy"),
    )
