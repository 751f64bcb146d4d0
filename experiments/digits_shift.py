"""Digits that are turned, thickened, noisy or inverted: does adaptation without labels help?

    python launch.py --experiment=digits_shift

Result: not measured
"""

import dataclasses
import functools

import optax

from jaxtl import data, models
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled

SHIFTS = {
    "rotated": functools.partial(data.rotated, degrees=40),
    "thick": data.thickened,
    "noisy": functools.partial(data.noisy, stddev=0.3),
    "inverted": data.inverted,
}
SWEEP = {"shift": tuple(SHIFTS)}


@dataclasses.dataclass(frozen=True)
class Config:
    shift: str = "rotated"
    steps: int = 300


def build(config: Config) -> Experiment:
    digits = data.digits()
    if config.shift not in SHIFTS:
        raise ValueError(f"shift: expected one of {', '.join(SHIFTS)}, got {config.shift!r}")
    shifted = SHIFTS[config.shift](digits)
    model = models.conv_net({"d": models.classes(10)}, batch_norm=True)
    tx, steps = optax.adam(1e-3), config.steps
    old, new = labelled(digits.train, "d"), unlabelled(shifted.train, "d")

    def stage(name, method, *domains, steps=steps):
        return Stage(name, model, method, domains, 64, steps)

    start = [stage("source", transfer.full(tx), old)]
    methods = adapt.catalogue(tx, classes=10, num_steps=steps)
    chosen = ("dan", "deep_coral", "dann", "cdan_e", "mcc", "self_training")
    arms = {"source_only": [*start, stage("source_only", transfer.full(tx), old)]}
    arms |= {name: [*start, stage(name, methods[name], old, new)] for name in chosen}
    slow = optax.sgd(1e-2, momentum=0.9, nesterov=True)  # of SHOT's paper
    arms["shot"] = [*start, stage("shot", adapt.shot(slow), new)]
    arms["adabn"] = [*start, stage("adabn", transfer.refresh_statistics(), new, steps=0)]
    arms["target_only"] = [stage("target_only", transfer.full(tx), labelled(shifted.train, "d"))]
    evals = {
        "target": classification(shifted.test, "d"),
        "source": classification(digits.test, "d"),
    }
    return Experiment(arms, "source_only", evals, maximize("target/accuracy"))
