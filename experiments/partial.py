"""Ten digits to five turned ones: does an adversary know which classes to leave alone?

    python launch.py --experiment=partial

Half of the training digits are the source. The target has the digits 0 to 4 of the others, without
labels; predictions may be of any digit. Rates and schedules are those of the papers.

Result: target/accuracy: source_only 0.743 [0.691, 0.796], dann 0.647 [0.485, 0.809], pada 0.782
[0.701, 0.863], iwan 0.848 [0.715, 0.981]; no gain is sure; 5 seeds, 145 s of CPU time.
"""

import dataclasses

import optax

from jaxtl import data, losses, models
from jaxtl.methods import adapt, transfer
from jaxtl.metrics import classification
from jaxtl.models import classes
from jaxtl.plan import Experiment, Stage, labelled, maximize, unlabelled


@dataclasses.dataclass(frozen=True)
class Config:
    degrees: float = 20.0
    batch_size: int = 64
    source_steps: int = 300
    target_steps: int = 600


def build(config: Config) -> Experiment:
    digits = data.digits()
    shifted = data.rotated(digits, config.degrees).only(range(5))
    source, target = digits.train.split(0.5)[0], shifted.train.split(0.5)[1]
    model = models.conv_net({"digit": classes(10)}, batch_norm=True)
    batch, steps = config.batch_size, config.target_steps
    sgd = optax.sgd(lambda step: 0.01 / (1 + 10 * step / steps) ** 0.75, momentum=0.9)
    on_source = [labelled(source, "digit")]
    first = Stage(
        "source",
        model,
        transfer.full(sgd),
        domains=on_source,
        batch_size=batch,
        num_steps=config.source_steps,
    )
    domains = [*on_source, unlabelled(target, "digit")]
    growing = losses.reversal_schedule(steps)
    smaller = losses.reversal_schedule(steps, high=0.1)

    def arm(name, method):
        return [
            first,
            Stage(name, model, method, domains=domains, batch_size=batch, num_steps=steps),
        ]

    return Experiment(
        arms={
            "source_only": arm("source_only", transfer.full(sgd)),
            "dann": arm("dann", adapt.dann(sgd, reversal=growing)),
            "pada": arm("pada", adapt.pada(sgd, reversal=growing, every=100)),
            "iwan": arm("iwan", adapt.iwan(sgd, reversal=smaller)),
        },
        baseline="source_only",
        evals={
            "target": classification(shifted.test, "digit"),
            "source": classification(digits.test, "digit"),
        },
        primary=maximize("target", "accuracy"),
    )
