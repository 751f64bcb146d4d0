"""Four looks of digits, each left out in turn: which methods help where nobody has seen the look?

    python launch.py --experiment=digits_generalize --seeds=3

All arms train on three looks and end with the step that is best on other digits of these;
`--sweep=held_out=plain,turned,plain+turned` leaves two out at once.

Result: mean over looks: erm 0.663 [0.633, 0.693]; undecided: rsc 0.685, sd 0.682, and_mask 0.679,
mixup, group_dro, fish, sand_mask 0.670, coral, mldg, eqrm 0.650, cdann 0.640, mmd 0.418; worse:
vrex 0.628, fishr 0.575, dann 0.503, ib_erm 0.214, irm 0.156; constants of longer training; 3 seeds.
"""

import dataclasses
import functools

import optax

from jaxtl import data, models
from jaxtl.methods import generalize, multitask, transfer
from jaxtl.metrics import Derived, classification
from jaxtl.plan import Experiment, Stage, labelled, maximize

LOOKS = {
    "plain": lambda digits: digits,
    "turned": functools.partial(data.rotated, degrees=30),
    "thick": data.thickened,
    "noisy": functools.partial(data.noisy, stddev=0.3),
}
SWEEP = {"held_out": tuple(LOOKS)}


@dataclasses.dataclass(frozen=True)
class Config:
    held_out: str = "plain"  # one look, or two as in plain+turned
    batch_size: int = 16  # of each look
    steps: int = 400
    learning_rate: float = 1e-3


def build(config: Config) -> Experiment:
    digits, count = data.digits(), len(LOOKS)
    dealt = {name: digits.train.slice(i, None, count) for i, name in enumerate(LOOKS)}
    parts = {name: LOOKS[name](digits).split(0.8) for name, digits in dealt.items()}
    left_out = config.held_out.split("+")
    training = [name for name in LOOKS if name not in left_out]
    domains = [labelled(parts[name][0], "digit", weight=1 / len(training)) for name in training]
    model, adam = models.conv_net({"digit": models.classes(10)}), optax.adam(config.learning_rate)

    def late(value, early=1.0):  # DomainBed's 500 of 5,001 steps
        return optax.piecewise_constant_schedule(early, {config.steps // 10: value / early})

    candidates = {
        "erm": transfer.full(adam),
        "irm": generalize.irm(adam, weight=late(100.0)),
        "vrex": generalize.vrex(adam, weight=late(10.0)),
        "group_dro": generalize.group_dro(adam),
        "mixup": generalize.domain_mixup(adam),
        "mldg": generalize.mldg(adam, inner_rate=config.learning_rate),
        "coral": generalize.coral(adam),
        "mmd": generalize.mmd(adam),
        "dann": generalize.dann(adam, reversal=1.0),
        "cdann": generalize.cdann(adam, reversal=1.0),
        "sd": generalize.spectral_decoupling(adam, weight=0.1),
        "ib_erm": generalize.ib_erm(adam, weight=late(100.0, early=1e-3)),
        "eqrm": generalize.eqrm(adam, burn_in=config.steps // 2),
        "fish": generalize.fish(adam),
        "fishr": generalize.fishr(adam, warm_up=3 * config.steps // 10),
        "rsc": generalize.rsc(adam),
        "and_mask": multitask.joint(adam, generalize.and_mask(), per="domain"),
        "sand_mask": multitask.joint(adam, generalize.sand_mask(), per="domain"),
    }
    form = {"domains": domains, "batch_size": config.batch_size, "num_steps": config.steps}
    arms = {name: [Stage(name, model, method, **form)] for name, method in candidates.items()}

    def mean_over(names, values):
        return sum(values[f"{name}/accuracy"] for name in names) / len(names)

    return Experiment(
        arms=arms,
        baseline="erm",
        evals={name: classification(part[1], "digit") for name, part in parts.items()},
        primary=maximize("held_out", "accuracy"),
        derived={
            "training/accuracy": Derived(functools.partial(mean_over, training), "max"),
            "held_out/accuracy": Derived(functools.partial(mean_over, left_out), "max"),
        },
        select=maximize("training", "accuracy"),
        held_out="held_out",
    )
